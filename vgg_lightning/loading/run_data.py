"""The data folder of a run: it is not in the checkpoint, but in config.yaml of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.options_file import read_options
from vgg_lightning.data.sources.catalogue import DATASETS
from vgg_lightning.loading.opened import Opened
from vgg_lightning.run.folders import run_folder_of


def data_of(opened: Opened) -> dict[str, Any]:
    """Return the options of the data in a checkpoint, and `data_dir` of its run if it is known.

    Args:
        opened: the checkpoint. If it lies in a run folder, config.yaml there is read; a damaged one says nothing.
    """
    run = run_folder_of(opened.file)
    try:
        found = read_options(run / "config.yaml") if run else None
    except UserError:
        found = None
    place = data_dir_of(found, run, opened.data_options.get("dataset"))
    return {**opened.data_options, **({"data_dir": place} if place else {})}


def data_dir_of(config: Any, run: Path | None, dataset: str | None) -> str | None:
    """Return the folder of the data that the configuration of a run names, or None.

    A relative path is looked for in the current folder, then in that in which the run was begun. Own data that is gone
    is named all the same, as there is no other place for it; other data has its usual place.

    Args:
        config: what config.yaml holds.
        run: the run folder.
        dataset: the data set of the run.
    """
    data = config.get("data") if isinstance(config, dict) else None
    place = data.get("data_dir") if isinstance(data, dict) else None
    if not isinstance(place, str) or not place:
        return None
    try:
        there = [Path(place).expanduser(), *([run.resolve().parents[2] / place] if run else [])]
        folder = next((str(path) for path in there if path.is_dir()), None)
    except (OSError, ValueError, RuntimeError, IndexError):  # no path, or no such home
        return None
    known = DATASETS.get(str(dataset))
    return folder or (place if known is not None and known.own else None)
