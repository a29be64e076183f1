"""Compares the options of a resumed run with its checkpoint, as their rows say (`base.options.RESUMED`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.options import SEED, in_range
from vgg_lightning.base.options_file import read_options
from vgg_lightning.base.process import seat
from vgg_lightning.base.progress import say
from vgg_lightning.loading.opened import Opened, open_checkpoint
from vgg_lightning.run.checkpoints.locate import check_unfinished
from vgg_lightning.run.folders import run_folder_of
from vgg_lightning.run.precision import PRECISIONS, unified
from vgg_lightning.training.run_options import GROUPS, OBEYED_INSTEAD


def agree(subcommand: str, config: Mapping[str, Any], owner: type[L.LightningModule]) -> int | None:
    """Hold the options of a subcommand against those in its checkpoint.

    Args:
        subcommand: "fit", "validate", "test" or "predict".
        config: its options by name, the groups "model", "data" and "trainer" as tables, with a `ckpt_path`. What is
            None in them becomes what the checkpoint has, and so does what a resumed run ignores.
        owner: the class of the model.

    Returns:
        The step at which a run resumes; None if the subcommand is not fit.

    Raises:
        UserError: if an option contradicts the checkpoint, or the checkpoint cannot be used.
        RunFinished: if the run has nothing left to do.
    """
    opened = open_checkpoint(config["ckpt_path"], owner, hand_on=True)
    saved: dict[str, dict[str, Any]] = {"model": opened.model_options, "data": opened.data_options}
    if subcommand == "fit":
        saved |= _of_run(opened)
        saved["model"] = {"weights": None, **saved["model"]}  # a place, which no checkpoint holds
    for group, has in saved.items():
        given: Any = config if group == "fit" else config[group]
        for name, row in GROUPS[group].items():
            if name not in has or row.resumed == "obeyed" or (row.resumed != "kept" and subcommand != "fit"):
                continue
            asked = given[name]
            same = asked == has[name] or (name == "seed_everything" and asked is True)
            if asked is None or same:
                given[name] = has[name]  # not said: the statistics and the names of classes are the checkpoint's
                continue
            full = name if group == "fit" else f"{group}.{name}"
            place = option(row.follows or full)
            if row.resumed == "ignored":
                _say_unchanged(place, asked, config["ckpt_path"])
                given[name] = has[name]
                continue
            instead = f"; {option(OBEYED_INSTEAD[full])} can be changed" if full in OBEYED_INSTEAD else ""
            raise UserError(
                f"{place} {asked} contradicts the checkpoint, which has {has[name]}: leave the option out{instead}"
            )
    if subcommand != "fit":
        return None
    root, folder = config["trainer"]["default_root_dir"], run_folder_of(opened.file)
    if root is not None and folder and Path(root).resolve() not in folder.resolve().parents:
        _say_unchanged(option("trainer.default_root_dir"), root, folder)
        config["trainer"]["default_root_dir"] = None
    return _step(opened.checkpoint, config)


def run_options(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the options `precision` and `seed_everything` in a checkpoint; earlier versions saved none."""
    found = checkpoint.get("run_options")
    if not isinstance(found, dict):
        return {}
    precision, seed = found.get("precision"), found.get("seed_everything")
    options: dict[str, Any] = {"precision": precision} if type(precision) is str and precision in PRECISIONS else {}
    return options | ({"seed_everything": seed} if type(seed) is int and in_range(seed, SEED) else {})


def saved_config(run_folder: Path) -> dict[str, Any]:
    """Return the config.yaml of a run as plain values, nothing of which may be acted on; empty if there is none."""
    try:
        found = read_options(run_folder / "config.yaml")
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}


def _of_run(opened: Opened) -> dict[str, dict[str, Any]]:
    """Return the options of the run: those in the checkpoint, or for earlier versions those in config.yaml."""
    folder = run_folder_of(opened.file)
    config = saved_config(folder) if folder else {}
    of_file = config.get("trainer")
    saved = run_options(opened.checkpoint)
    if not saved and config:
        precision = of_file.get("precision") if isinstance(of_file, dict) else None
        saved = run_options({"run_options": {"precision": unified(precision) or "32-true"}})
        saved |= run_options({"run_options": {"seed_everything": config.get("seed_everything")}})
    trainer = {"precision": saved["precision"]} if "precision" in saved else {}
    own = {"seed_everything": saved["seed_everything"]} if "seed_everything" in saved else {}
    if folder:
        absolute = folder.resolve()
        own["name"] = config.get("name") or absolute.parent.name
    return {"trainer": trainer, "fit": own}


def _say_unchanged(place: str, asked: Any, run: Any) -> None:
    if not seat().rank:
        say(f"note: {place} {asked} changes nothing in a run that has begun: {run}")


def _step(checkpoint: dict[str, Any], config: Mapping[str, Any]) -> int:
    try:
        step = int(checkpoint["global_step"])
        if run := run_folder_of(Path(config["ckpt_path"])):
            check_unfinished(checkpoint, SimpleNamespace(**config["trainer"]), config["early_stopping"], run)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{config['ckpt_path']} is refused: it does not say how far its run was") from error
    return step
