"""Writes checkpoints atomically: a valid one exists at any moment, whatever happens to process, machine or disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import CheckpointIO

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import part_of, remove_parts, remove_parts_of, sync_folder
from vgg_lightning.run.checkpoints.read import take
from vgg_lightning.run.checkpoints.seal import SealedWriter, damage_of

remove_leftovers = remove_parts  # its name before


class CheckpointNotWrittenError(OSError):
    """A checkpoint could not be written; the one before is untouched."""

    def __init__(self, file: Path, error: OSError) -> None:
        super().__init__(f"checkpoint {file} is not written: {error.strerror or error}")


class VerifiedCheckpointIO(CheckpointIO):
    """Lightning's door to checkpoint files: sealed, verified and atomic.

    A file is written under another name in the same folder, flushed to the disk, read back and verified, and only
    then replaces the old one, which stays as `NAME-prev.ckpt`.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write `checkpoint`. Raises CheckpointNotWrittenError if that fails."""
        file = Path(path)
        part = part_of(file)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            remove_parts_of(file)
            _write(checkpoint, part)
            if file.exists():
                _keep(file, previous_of(file))
            os.replace(part, file)
            sync_folder(file.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise CheckpointNotWrittenError(file, error) from error

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, unless that was done to look at its options: verified, tensors and plain values only.

        Raises:
            UserError: if it is damaged.
        """
        return take(Path(path))

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint and the one before it."""
        for file in (Path(path), previous_of(Path(path))):
            file.unlink(missing_ok=True)


def previous_of(file: Path) -> Path:
    """Return the name under which the generation before `file` is kept."""
    return file.with_name(f"{file.stem}-prev{file.suffix}")


def go_back_to(file: Path, newest: Path) -> None:
    """Replace `newest` by a copy of `file`; the old one is kept as its previous generation unless it is damaged.

    Raises:
        UserError: if `newest` is a folder, or cannot be written; it is untouched then.
    """
    if newest.is_dir():
        raise UserError(f"{newest} is a folder, where the run keeps its newest checkpoint: move it away")
    part = part_of(newest)
    try:
        shutil.copyfile(file, part)
        if file != previous_of(newest) and _is_sound(newest):
            _keep(newest, previous_of(newest))
        os.replace(part, newest)
        sync_folder(newest.parent)
    except OSError as error:
        raise UserError(f"cannot write {newest}: {error.strerror}; make room and resume again") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _is_sound(file: Path) -> bool:
    try:
        return damage_of(file) is None
    except OSError:  # there is none, or it is a pipe or a device
        return False


def _write(checkpoint: dict[str, Any], file: Path) -> None:
    with file.open("x+b") as stream:  # a new file, never one behind a link
        writer = SealedWriter(stream)
        torch.save(checkpoint, cast(IO[bytes], writer))  # it calls write and flush
        writer.seal()
        os.fsync(stream.fileno())
    if damage := damage_of(file):
        raise OSError(errno.EIO, f"read back, {damage}")


def _keep(file: Path, previous: Path) -> None:
    """Keep `file` as `previous`, without a moment in which it is missing where the file system has hard links."""
    part = part_of(previous)
    try:
        os.link(file, part)
        os.replace(part, previous)
        part.unlink(missing_ok=True)  # two names of one file: then replace does nothing
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        os.replace(file, previous)
