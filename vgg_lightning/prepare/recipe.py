"""The recipe of a run: config.yaml, and the command that starts its other processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from vgg_lightning.base.files import write_whole
from vgg_lightning.base.text import say
from vgg_lightning.loading.agreement import saved_config
from vgg_lightning.prepare.run import Options, Run
from vgg_lightning.training.run_options import all_rows

FILLED = ("num_classes", "options", "seed", "val_size", "batch_size")  # by `prepare`, where nobody has said them
_PLACES = [(group, name) for group, name, row in all_rows() if row.place and group != "fit"]


def recipe_of(options: Options) -> tuple[Options, list[str]]:
    """Return options as `fit --config` takes them, and the names of those that are objects, which no file can hold."""
    recipe = {**options, **{group: dict(options[group]) for group in ("trainer", "model", "data")}}
    for group, name in (("model", "image_size"), ("data", "in_channels")):  # which follow the other group
        del recipe[group][name]
    left_out = [name for name, value in recipe["trainer"].items() if not _is_plain(value)]
    recipe["trainer"] = {name: value for name, value in recipe["trainer"].items() if name not in left_out}
    return {name: value for name, value in recipe.items() if name != "ckpt_path"}, left_out


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str)


def save_config(run: Run, file: Path) -> None:
    """Write config.yaml, from which the run can be repeated. Raises OSError if that fails."""
    kept = _kept_places(file.parent, run.options)
    if run.asked:
        used = {"seed_everything": run.options["seed_everything"], "trainer.precision": run.trainer.precision}
        used["trainer.max_epochs"] = run.options["trainer"]["max_epochs"]
        used |= {f"{group}.{name}": run.options[group][name] for group, name in _PLACES} | kept
        for group, name, row in all_rows():
            settled = row.resumed != "obeyed" and run.options["ckpt_path"] and not row.follows
            if group in ("model", "data") and (settled or name in FILLED) and not row.place:
                used[f"{group}.{name}"] = run.options[group][name]
        run.asked.save_config(file, used)
        return
    recipe, left_out = recipe_of(run.options)
    for place, value in kept.items():
        group, _, name = place.partition(".")
        recipe[group][name] = value
    write_whole(file, yaml.safe_dump(recipe, sort_keys=False))
    if left_out:
        say(f"config.yaml leaves out {', '.join(left_out)} of the Trainer: objects are in no file", sys.stderr)


def _kept_places(folder: Path, options: Options) -> Options:
    """Return the paths that the config.yaml of a run has and that this launch was not given: part of its recipe."""
    found = saved_config(folder) if options["ckpt_path"] else {}
    kept: Options = {}
    for group, name in _PLACES:
        there = found.get(group)
        if isinstance(there, dict) and options[group].get(name) is None and isinstance(there.get(name), str):
            kept[f"{group}.{name}"] = there[name]
    return kept
