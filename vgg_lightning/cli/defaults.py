"""Default options: from a preset or from the checkpoint, placed before the user's options."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.options_file import BrokenFileError
from vgg_lightning.base.text import say
from vgg_lightning.classifier import Classifier
from vgg_lightning.cli.run_config import plain_config
from vgg_lightning.data.sources.catalogue import DATASETS
from vgg_lightning.loading.agreement import run_options, saved_config
from vgg_lightning.loading.opened import SUFFIX, Opened, UnknownNetworkError, open_checkpoint
from vgg_lightning.loading.run_data import data_of
from vgg_lightning.networks.vgg import OWN_BLOCKS, VGG_BLOCKS
from vgg_lightning.presets import BLANK, DEFAULT, check_config, find_config, presets
from vgg_lightning.run.checkpoints.locate import (
    find_checkpoint,
    meant_by,
    newest_beside,
    newest_of,
    newest_unfinished,
    newest_valid,
)
from vgg_lightning.run.folders import run_folder_of
from vgg_lightning.training.run_options import LINKED


def with_defaults(subcommand: str, options: list[str], needs_weights: bool = True) -> list[str]:
    """Put in front of the user's options what they stand on: a preset for fit, else the checkpoint's own options.

    Args:
        subcommand: the subcommand.
        options: of the user.
        needs_weights: whether subcommands other than fit are refused without a checkpoint.

    Raises:
        UserError: if a checkpoint or a configuration is missing or cannot be read.
    """
    options = [part for option in options for part in _split_equals(option)]
    for i, option in enumerate(options[:-1]):
        if option in ("--config", "-c") and not options[i + 1].lstrip().startswith("{"):
            options[i + 1] = str(check_config(find_config(options[i + 1])))
    if "--ckpt_path" not in options:
        options = _without_launch(options)
    base: list[str] = []
    if subcommand == "fit" and "--resume" in options:
        where = options.index("--resume")
        auto = options[where + 1 : where + 2] == ["auto"]
        del options[where : where + 1 + auto]
        if checkpoint := _to_resume(options, auto):
            options += ["--ckpt_path", str(checkpoint)]
    where = _value_of("--ckpt_path", options) if "--ckpt_path" in options[:-1] else 0
    if where and options[where] != "null":
        opened = _open(options[where], subcommand)
        options += ["--ckpt_path", str(opened.file)]  # at the end: what is typed wins over a configuration
        base = _options_of(opened, subcommand, own_config=bool({"--config", "-c"} & set(options)))
    elif subcommand != "fit" and needs_weights:
        raise UserError(f"{subcommand} needs weights: give --ckpt_path a checkpoint or a run folder")
    if not base and subcommand == "fit" and not {"--config", "-c"} & set(options):
        base = ["--config", str(find_config(_default_preset(options))), *_follow_own_data(options)]
    return base + options


def _without_launch(options: list[str]) -> list[str]:
    """Make a recipe of the config.yaml of a run: that of earlier versions names the checkpoint that was resumed."""
    found: list[str] = []
    for option, value in zip(["", *options], [*options, ""], strict=True):
        if option in ("--config", "-c") and (folder := Path(value).parent / "checkpoints").is_dir():
            forget = saved_config(folder.parent).get("ckpt_path") is not None and Path(value).name == "config.yaml"
            found += [value, "--ckpt_path", "null"] if forget else [value]
        else:
            found.append(value)
    return found[:-1]


def _to_resume(options: list[str], auto: bool) -> Path | None:
    """Return the checkpoint to resume; with `auto`, None if there is none yet."""
    named = any(option.partition("=")[0] in ("--name", "--config", "-c") for option in options)
    if not named and not auto and (run := newest_unfinished(_place(options, DEFAULT)[0])):
        say(f"resuming {run}, the newest run that is not finished; --name chooses another")
        return newest_valid(run) or find_checkpoint(run, prefer="last")
    try:
        return checkpoint_to_resume(options, _default_preset(options))
    except UserError:
        if auto:
            return None
        raise


def checkpoint_to_resume(options: list[str], default: str) -> Path:
    """Return the newest valid checkpoint of the run that `vgg-lightning fit OPTIONS` would make.

    Args:
        options: of fit; configurations are paths already.
        default: the configuration if there is none among the options.

    Raises:
        UserError: if that run, the newest of its name, has no valid checkpoint.
    """
    return newest_of(*_place(options, default))


def _place(options: list[str], default: str) -> tuple[str, str]:
    """Return the root folder and the name of the run that these options make."""
    files = [options[i + 1] for i, option in enumerate(options[:-1]) if option in ("--config", "-c")]
    found: dict[str, Any] = {}
    for file in files:
        config = yaml.safe_load(file if file.lstrip().startswith("{") else Path(file).read_text(encoding="utf-8")) or {}
        found |= {"root": (config.get("trainer") or {}).get("default_root_dir") or found.get("root")}
        found |= {"name": config.get("name") or found.get("name")}
    for key, option in (("root", "--trainer.default_root_dir"), ("name", "--name")):
        given = [options[i + 1] for i, o in enumerate(options[:-1]) if o == option]
        given += [o.partition("=")[2] for o in options if o.startswith(f"{option}=")]
        found[key] = given[-1] if given else found.get(key)
    return found["root"] or ".", found["name"] or run_name([Path(file) for file in files] or [find_config(default)])


def run_name(files: list[Path]) -> str:
    """Return the name of a run that is made from these configurations: that of the last."""
    return config_name(files[-1], path=False).replace("/", "-")


def config_name(file: Path, path: bool = True) -> str:
    """Return the name of a preset by its file; of another configuration its path, or the file's name without it."""
    known = {preset.resolve(): name for name, preset in presets().items()}
    return known.get(file.resolve(), str(file) if path else file.stem)


def _open(path: str, subcommand: str) -> Opened:
    """Open the checkpoint that the subcommand is about, and keep it for the Trainer."""
    file = meant_by(path, resumes=subcommand == "fit")
    if file.suffix == SUFFIX:
        raise UserError(f"--ckpt_path {file} holds weights alone: give it to load_classifier or --model.weights")
    try:
        return open_checkpoint(file, Classifier, hand_on=True)
    except UnknownNetworkError:  # as any other one beside it does
        raise
    except UserError as error:
        raise UserError(f"{error}{newest_beside(file)}") from error


def _value_of(option: str, options: list[str]) -> int:
    """Return where the value of an option stands; given twice, the last one counts."""
    return len(options) - options[::-1].index(option)


def _split_equals(option: str) -> list[str]:
    # Only the options that are looked at here; jsonargparse takes both forms of the others.
    key, equals, value = option.partition("=")
    return (
        [key, value] if equals and key in ("--config", "-c", "--ckpt_path", "--model.network", "--resume") else [option]
    )


def _default_preset(options: list[str]) -> str:
    """Return `quick`; for a network outside the VGG family the first preset with that network, else `blank`."""
    network = options[_value_of("--model.network", options)] if "--model.network" in options[:-1] else "vgg11"
    if network in {**VGG_BLOCKS, **OWN_BLOCKS}:
        return DEFAULT
    lines = {name: file.read_text(encoding="utf-8").splitlines() for name, file in presets().items() if name != BLANK}
    return next((name for name, text in lines.items() if f"  network: {network}" in text), BLANK)


def _follow_own_data(options: list[str]) -> list[str]:
    """Return options that let sizes follow the number of images: no preset was asked for, and the data is one's own."""
    given = [options[i + 1] for i, option in enumerate(options[:-1]) if option == "--data.dataset"]
    given += [option.partition("=")[2] for option in options if option.startswith("--data.dataset=")]
    if not any(name in DATASETS and DATASETS[name].own for name in given):
        return []
    return ["--data.val_size=null", "--data.batch_size=null", "--trainer.max_epochs=null"]


def _options_of(opened: Opened, subcommand: str, own_config: bool) -> list[str]:
    """Return the options that a checkpoint was trained with, as arguments."""
    run = run_folder_of(opened.file)
    if subcommand == "fit" and run:
        try:
            return ["--config", json.dumps(plain_config(run / "config.yaml"))]
        except BrokenFileError as error:
            if not own_config:
                say(
                    f"{error}: model and data are those of {opened.file.name}; options of the Trainer, such as "
                    "--trainer.max_epochs, are the default ones unless they are given again",
                    sys.stderr,
                )
        except UserError:
            if not own_config:
                raise
    groups: dict[str, dict[str, Any]] = {"model": dict(opened.model_options), "data": data_of(opened)}
    for group, found in groups.items():
        for name in [name for name in found if f"{group}.{name}" in LINKED]:
            del found[name]
    run_options_of = run_options(opened.checkpoint) if subcommand == "fit" else {}
    groups |= {"seed_everything": seed} if (seed := run_options_of.pop("seed_everything", None)) is not None else {}
    return ["--config", json.dumps(groups | ({"trainer": run_options_of} if run_options_of else {}))]
