"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from vgg_lightning.base.errors import UserError, option


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `file`, then give it that name: whole or not at all."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, file)
    except OSError as error:
        elsewhere = f"choose another place with {option('output')}"
        raise UserError(f"cannot write {file}: {error.strerror}; {elsewhere}") from error
    finally:
        part.unlink(missing_ok=True)
