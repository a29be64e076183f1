"""What the first process of a run hands on to those that Lightning starts for the other devices."""

from __future__ import annotations

import os
from pathlib import Path

_RUN_FOLDER = "VGG_LIGHTNING_RUN_FOLDER"


def share_run_folder(folder: Path) -> Path:
    """Note the folder of the run in the environment, which the other processes inherit, and return it."""
    os.environ[_RUN_FOLDER] = str(folder)
    return folder


def shared_run_folder() -> Path | None:
    """Return the folder of the run if this is not its first process."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    return None if first or _RUN_FOLDER not in os.environ else Path(os.environ[_RUN_FOLDER])
