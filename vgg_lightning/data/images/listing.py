"""The content of a folder of images: images, refused files, and counts of skipped files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.text import printable

# The endings by which a file is taken for an image, wherever images are looked for. `NOT_DECODED` are images as well:
# they are named as not read, and not silently passed over.
DECODED = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff")
NOT_DECODED = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".pgm", ".ppm", ".pbm", ".pnm", ".tga")
ENDINGS = (*DECODED, *NOT_DECODED)
# What systems, file managers and network storage leave in folders, in small letters.
SYSTEM = {
    *("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"),
    *("__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini"),
}
MOST_FILES = 1_000_000
LEADS_OUT = "it is a link that leads out of the folder, or nowhere"


class TooManyError(UserError):
    """A folder holds more images than are looked at."""


@dataclass
class Found:
    """What lies below a path.

    Attributes:
        root: the folder, or that of the one file.
        names: of the images, relative to `root`, in the order of their parts.
        refused: name and reason of what is called like an image, but may not be read.
        hidden: number of files and folders passed over since their names begin with a dot, or are those that a system
            gives (Thumbs.db, __MACOSX).
        others: number of files passed over since they are not called like images.
        endings: how many of `others` end in what, in small letters.
    """

    root: Path
    names: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    hidden: int = 0
    others: int = 0
    endings: Counter[str] = field(default_factory=Counter)

    def pass_over(self, name: str) -> None:
        """Count a file that is not called like an image."""
        self.others += 1
        self.endings[os.path.splitext(name)[1].lower()] += 1


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is passed over: hidden, or made by a system and not by its user."""
    return name.startswith(".") or name.lower() in SYSTEM


def is_image(name: str) -> bool:
    """Return whether a file is called like an image."""
    return os.path.splitext(name)[1].lower() in ENDINGS


def walk(folder: Path, roots: Sequence[Path], found: Found) -> None:
    """Sort everything below a folder into `found`.

    Args:
        folder: where to begin.
        roots: folders, resolved. A symbolic link is followed only to what lies in one of them.
        found: what is filled; names are relative to `folder`.

    Raises:
        OSError: if the folder itself cannot be read.
        TooManyError: if there are more than `MOST_FILES` images.
    """
    waiting = [(folder, "")]
    while waiting:
        here, prefix = waiting.pop()
        try:
            with os.scandir(here) as entries:
                waiting += [sub for entry in entries if (sub := _look_at(entry, prefix + entry.name, roots, found))]
        except OSError as error:
            if not prefix:
                raise
            found.refused.append((prefix, f"the folder cannot be read: {error.strerror}"))
        if len(found.names) > MOST_FILES:
            raise TooManyError(
                f"{printable(str(folder))} holds more than {MOST_FILES:,} images: give a folder below it"
            )
    found.names.sort(key=lambda name: name.split("/"))
    found.refused.sort()


def _look_at(entry: os.DirEntry[str], name: str, roots: Sequence[Path], found: Found) -> tuple[Path, str] | None:
    """Note one entry of a folder; return it if it is a folder to look into."""
    called_so = is_image(name)
    if is_hidden(entry.name):
        found.hidden += 1
    elif entry.is_symlink() and not is_within(entry.path, roots):
        if called_so or entry.is_dir():
            found.refused.append((name, LEADS_OUT))
        else:
            found.pass_over(name)
    elif entry.is_dir(follow_symlinks=False) and not called_so:
        return Path(entry.path), f"{name}/"
    elif called_so:
        found.names.append(name)
    elif not entry.is_dir():
        found.pass_over(name)
    return None


def is_within(path: str | Path, roots: Sequence[Path]) -> bool:
    """Return whether a path leads to something in one of the folders `roots`, which are resolved."""
    try:
        target = Path(path).resolve(strict=True)
    except (OSError, RuntimeError):  # it leads nowhere, or round in a circle
        return False
    return any(target.is_relative_to(root) for root in roots)
