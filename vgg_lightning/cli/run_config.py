"""The config.yaml of a run folder, which may come from elsewhere: options with plain values, and nothing to import.

A configuration can name classes, which are imported when it is read: a logger, a callback, a strategy. One that the
user gives with --config is the user's own; one that lies beside a checkpoint is not, so it passes this file first.
One that names classes is taken if this user has started that run, in that folder: its SHA-256 was noted then.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import read_regular
from vgg_lightning.base.options import LONGEST
from vgg_lightning.base.options_file import LARGEST, BrokenFileError, read_options
from vgg_lightning.classifier import Classifier
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.data.files import own_cache
from vgg_lightning.loading.opened import checked_options
from vgg_lightning.loading.run_data import data_dir_of
from vgg_lightning.training.run_options import FIT, places

GROUPS = {"model": Classifier, "data": FashionMNISTDataModule}
LAST = "test"  # the option that every run writes after its groups
OWN = [name for name, row in FIT.items() if not row.launch]


def plain_config(file: Path) -> dict[str, Any]:
    """Return the configuration of a run without what belongs to one machine or one launch.

    Raises:
        BrokenFileError: if it cannot be read, or is empty or cut off.
        UserError: if it holds more than options with plain values.
    """
    found = _read(file)
    config: dict[str, Any] = {name: found[name] for name in OWN if name in found}
    for name, value in config.items():
        _require_plain(name, value, file)
    for group, owner in GROUPS.items():
        config[group] = checked_options(_group(found, group), owner, str(file))
    if data_dir := data_dir_of(found, file.parent, config["data"].get("dataset")):
        config["data"]["data_dir"] = data_dir
    config["trainer"] = _group(found, "trainer")
    if _note_of(file).is_file():
        return config
    for name, value in config["trainer"].items():
        _require_plain(f"trainer.{name}", value, file)
    absent = [group for group in (*GROUPS, "trainer") if group not in found]
    if absent or LAST not in found:
        raise BrokenFileError(f"{file} ends before its options of {' and '.join(absent) or 'the run'}")
    return config


def note_as_own(file: Path) -> None:
    """Note that this user has started the run of a configuration that names classes, so that it can be resumed."""
    with contextlib.suppress(UserError):
        plain_config(file)
        return  # without a note
    with contextlib.suppress(OSError):  # then it is resumed with --config
        note = _note_of(file)
        note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        note.touch()


def _note_of(file: Path) -> Path:
    """Return where it is noted that a configuration, with this content and in this place, is the user's own."""
    content = read_regular(file, LARGEST)
    digest = hashlib.sha256(os.fsencode(file.resolve()) + b"\0" + content).hexdigest()
    return own_cache() / "own_configs" / digest


def _read(file: Path) -> dict[str, Any]:
    found = read_options(file)
    if found is None:
        raise BrokenFileError(f"{file} is empty")
    if not isinstance(found, dict):
        raise UserError(f"{file} is not a configuration: it has no options")
    return found


def _group(found: dict[str, Any], group: str) -> dict[str, Any]:
    options = found.get(group) or {}
    if not isinstance(options, dict):
        raise UserError(f"{group} in the configuration of the run is not a table of options")
    return {name: value for name, value in options.items() if name not in places(group)}


def _require_plain(name: Any, value: Any, file: Path) -> None:
    """Refuse what could name a class or a file: a table, or a word with a dot or a slash."""
    parts = value if isinstance(value, list) and len(value) <= LONGEST else [value]
    if name == "trainer.max_time" and isinstance(value, dict):
        parts = list(value.values())  # {"hours": 1}
    for part in parts:
        number = part is None or isinstance(part, bool | int | float)
        word = isinstance(part, str) and re.fullmatch(r"[\w:, -]{1,100}", part)
        if not (number or word):
            raise UserError(f"{file} is refused: {name} may import a class; if you trust it, add --config {file}")
