"""The pictures of a folder: which files they are, in a fixed order, and a loader that reads them batch by batch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.text import printable
from vgg_lightning.data.images.decode import UnreadablePictureError
from vgg_lightning.data.images.prepare import read_picture

SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".heic", ".heif", ".avif", ".jp2"),  # pictures as well: they are named as not read, and not passed over
)
MOST_FILES = 1_000_000
AT_A_TIME = 32  # pictures: what a signal to stop has to wait for


@dataclass
class Found:
    """What lies below a path.

    Attributes:
        root: the folder, or that of the one file.
        names: of the pictures, relative to `root`, in the order of their parts.
        refused: name and reason of what is called like a picture, but may not be read.
        hidden: number of files and folders passed over since their names begin with a dot.
        others: number of files passed over since they are not called like pictures.
    """

    root: Path
    names: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    hidden: int = 0
    others: int = 0


def find_pictures(path: str | Path) -> Found:
    """Return the pictures that `path` means: one file, or all of a folder and of the folders in it.

    Symbolic links are followed only to what lies in the folder, too.

    Raises:
        UserError: if there is nothing at `path`, or no picture below it.
    """
    path = Path(path).expanduser()
    shown = printable(str(path))
    try:
        if not path.is_dir():
            path.stat()
            return Found(path.parent, [path.name])
        found = Found(path)
        _walk(path, path.resolve(), found)
    except OSError as error:
        raise UserError(f"{option('data.predict_path')} {shown} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{option('data.predict_path')} {shown} is no path: {error}") from error
    if not found.names and not found.refused:
        seen = found.hidden + found.others
        others = f" ({seen:,} other files)" if seen else ""
        raise UserError(f"{option('data.predict_path')} {shown} holds no picture{others}")
    found.names.sort(key=lambda name: name.split("/"))
    found.refused.sort()
    return found


def _walk(folder: Path, root: Path, found: Found) -> None:
    """Sort everything below a folder into `found`."""
    waiting = [(folder, "")]
    while waiting:
        here, prefix = waiting.pop()
        try:
            with os.scandir(here) as entries:
                waiting += [sub for entry in entries if (sub := _look_at(entry, prefix + entry.name, root, found))]
        except OSError as error:
            if not prefix:
                raise
            found.refused.append((prefix, f"the folder cannot be read: {error.strerror}"))
        if len(found.names) > MOST_FILES:
            most = f"{option('data.predict_path')} holds more than {MOST_FILES:,} pictures"
            raise UserError(f"{most}: give a folder below it")


def _look_at(entry: os.DirEntry[str], name: str, root: Path, found: Found) -> tuple[Path, str] | None:
    """Note one entry of a folder; return it if it is a folder to look into."""
    is_picture = os.path.splitext(name)[1].lower() in SUFFIXES
    if entry.name.startswith("."):
        found.hidden += 1
    elif entry.is_symlink() and not _is_within(entry.path, root):
        if is_picture or entry.is_dir():
            found.refused.append((name, "it is a link that leads out of the folder, or nowhere"))
        else:
            found.others += 1
    elif entry.is_dir(follow_symlinks=False) and not is_picture:
        return Path(entry.path), f"{name}/"
    elif is_picture:
        found.names.append(name)
    elif not entry.is_dir():
        found.others += 1
    return None


def _is_within(path: str, root: Path) -> bool:
    try:
        return Path(path).resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # it leads nowhere, or round in a circle
        return False


class PictureLoader:
    """Reads pictures batch by batch, so that as many as there are take no memory.

    Args:
        found: the pictures. Those that turn out to be unreadable are added to its `refused`.
        batch_size: the most pictures in a batch.
    """

    def __init__(self, found: Found, batch_size: int) -> None:
        self.found = found
        self.batch_size = min(batch_size, AT_A_TIME)
        self.sampler, self.batch_sampler = None, None  # where Lightning looks for set_epoch

    def __len__(self) -> int:
        """Return the number of batches, if all pictures can be read."""
        return math.ceil(len(self.found.names) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (uint8 pictures (N, 1, 28, 28), their places in `found.names` (N,)) of those that can be read."""
        for begin in range(0, len(self.found.names), self.batch_size):
            read = [
                (i, picture) for i in range(begin, begin + self.batch_size) if (picture := self._read(i)) is not None
            ]
            if read:
                yield torch.stack([picture for _, picture in read]), torch.tensor([i for i, _ in read])

    def _read(self, i: int) -> Tensor | None:
        if i >= len(self.found.names):
            return None
        name = self.found.names[i]
        try:
            return read_picture(self.found.root / name)
        except UnreadablePictureError as error:
            self.found.refused.append((name, error.reason))
            return None
