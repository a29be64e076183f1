"""Run folders: `lightning_logs/<name>/version_N`, which contain everything that a run writes."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.process import SHARED, is_child

if TYPE_CHECKING:
    from vgg_lightning.run.parallel.rendezvous import Meeting


def new_run_folder(root: str | Path | None, name: str) -> Path:
    """Make and return the next free `lightning_logs/<name>/version_N` below `root` (the current folder if None).

    Raises:
        UserError: if it cannot be written.
    """
    if is_child():
        return Path(os.environ[SHARED])
    parent = Path(root or ".") / "lightning_logs" / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        taken = [int(p.name[8:]) for p in parent.glob("version_*") if p.name[8:].isdigit()]
        number = max(taken, default=-1) + 1
        while True:
            try:
                (parent / f"version_{number}").mkdir()  # fails if another run was faster
                os.environ[SHARED] = str(parent / f"version_{number}")
                return parent / f"version_{number}"
            except FileExistsError:
                number += 1
    except OSError as error:
        raise UserError(
            f"cannot write the run folder {parent}: {error.strerror}; "
            f"choose another with {option('trainer.default_root_dir')}"
        ) from error


def shared_run_folder(root: str | Path | None, name: str, meeting: Meeting | None) -> Path:
    """Make a run folder in the first process of a run; in the others, see that it is there.

    Raises:
        UserError: if it cannot be written, or not be seen.
    """
    if meeting is None:
        return new_run_folder(root, name)
    folder = Path(meeting.share("run folder", lambda: str(new_run_folder(root, name))))
    if not folder.is_dir():
        raise UserError(
            f"the run folder {folder} is not here: "
            f"name one that all machines share with {option('trainer.default_root_dir')}"
        )
    return folder


def discard_run_folder(folder: Path) -> None:
    """Remove a run folder without checkpoints, and the folders above it that `new_run_folder` made, if now empty."""
    if any(folder.rglob("*.ckpt")):
        return
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # not empty
        folder.parent.rmdir()
        folder.parent.parent.rmdir()


def run_folder_of(checkpoint: Path) -> Path | None:
    """Return the run folder of a checkpoint file, relative if the file's path is; None if it does not lie in one."""
    folder = checkpoint.resolve().parent
    if folder.name != "checkpoints":
        return None
    named = checkpoint.parent.parent
    return named if named.resolve() == folder.parent else folder.parent
