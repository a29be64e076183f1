"""Read checkpoint files safely: verified first, then opened as plain values and tensors only.

What one launch of a program reads of one file it reads once: within `one_launch`, a file that was verified is not
verified again, and what was read for the options is handed on to the Trainer, which loads by path.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import open_regular
from vgg_lightning.run.checkpoints.seal import verify

Checkpoint = dict[str, Any]
Stamp = tuple[str, int, int, int]


@dataclass
class ReadFile:
    """A checkpoint file that has been read.

    Attributes:
        file: the file.
        checkpoint: what is in it.
    """

    file: Path
    checkpoint: Checkpoint


@dataclass
class _Launch:
    """What a launch knows of files.

    Attributes:
        sound: those that were verified, with the SHA-256 of a sealed one.
        for_trainer: what was read of the one that the Trainer will load.
    """

    sound: dict[Stamp, str | None] = field(default_factory=dict)
    for_trainer: tuple[Stamp, ReadFile] | None = None


_launch: _Launch | None = None


@contextmanager
def one_launch() -> Iterator[None]:
    """Let what is read within it be read once."""
    global _launch
    before, _launch = _launch, _Launch()
    try:
        yield
    finally:
        _launch = before


def hand_on(found: ReadFile) -> None:
    """Keep what was read until the Trainer loads that file, or the launch ends."""
    if _launch:
        _launch.for_trainer = _stamp(found.file), found


def handed_on(file: Path) -> ReadFile | None:
    """Return what was read of a file, if it was kept for the Trainer and the file is still the same."""
    kept = _launch and _launch.for_trainer
    return kept[1] if kept and file.is_file() and kept[0] == _stamp(file) else None


def take(file: Path) -> Checkpoint:
    """Return what was read of a file, which is not kept any longer; read it if that has not been done."""
    kept = handed_on(file)
    if _launch:
        _launch.for_trainer = None
    return kept.checkpoint if kept else read_checkpoint(file, options=False)


def look_over(file: Path) -> None:
    """See that a file is a sound checkpoint, for who reads it himself; what was kept for the Trainer is let go.

    Raises:
        UserError: if it is damaged.
    """
    if _launch:
        _launch.for_trainer = None
    _check_archive(file)
    _check_sound(file)


def damage(file: Path) -> str | None:
    """Return what is wrong with a checkpoint file, as `seal.damage_of`; within a launch it is verified once.

    Raises:
        OSError: if it cannot be read.
    """
    stamp = _stamp(file)
    if _launch and stamp in _launch.sound:
        return None
    wrong, digest = verify(file)
    if _launch and not wrong:
        _launch.sound[stamp] = digest
    return wrong


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, which is known of a sealed one that was verified in this launch."""
    known = _launch.sound.get(_stamp(file)) if _launch else None
    return known or hashlib.sha256(file.read_bytes()).hexdigest()


def read_checkpoint(file: Path, options: bool = True) -> Checkpoint:
    """Read a checkpoint: every checksum in it verified, tensors and plain values only.

    Args:
        file: to read.
        options: whether the options of its model must be in it.

    Raises:
        UserError: if the file is damaged, or is no checkpoint with weights and options.
    """
    _check_archive(file)
    _check_sound(file)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {file}: {error.strerror or error}") from error
    except Exception as error:  # whatever a hostile file makes the reader do wrong
        raise UserError(f"{file} is refused: it holds more than tensors and plain values, or is damaged") from error
    needed = {"state_dict", *(["hyper_parameters"] if options else [])}
    if not isinstance(checkpoint, dict) or not needed <= checkpoint.keys():
        raise UserError(f"{file} is not a checkpoint of vgg_lightning: it has no weights or no options")
    weights = checkpoint["state_dict"]
    if not isinstance(weights, dict) or not all(
        type(k) is str and type(v) is torch.Tensor and v.layout == torch.strided for k, v in weights.items()
    ):
        raise UserError(f"{file} is refused: its weights are not a table of names and tensors")
    return checkpoint


def _stamp(file: Path) -> Stamp:
    found = file.stat()
    return str(file.resolve()), found.st_ino, found.st_size, found.st_mtime_ns


def _check_sound(file: Path) -> None:
    try:
        wrong = damage(file)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {file}: {error.strerror or error}") from error
    if wrong:
        raise UserError(f"{file} is damaged or no checkpoint: {wrong}; use another one")


def _check_archive(file: Path) -> None:
    """Refuse a small file that unpacks to a huge one."""
    try:
        with open_regular(file) as stream, zipfile.ZipFile(stream) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise UserError(f"{file} is refused: a checkpoint is not compressed")
            if sum(part.file_size for part in parts) > file.stat().st_size:
                raise UserError(f"{file} is refused: its parts are larger than the file")
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {file}: {error.strerror or error}") from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{file} is not a checkpoint, or is damaged: use another one") from error
