"""The data set "folder": one's own pictures, in a subfolder for each class.

    DIR/train/CLASS/*.png and DIR/test/CLASS/*.png, or
    DIR/CLASS/*.png, of which one picture in five of every class goes to the test split.

Nothing is cached: the pictures are read anew with every run.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.machine import free_memory
from vgg_lightning.base.progress import items_bar, say
from vgg_lightning.data.sources.catalogue import MOST_CLASSES, SPLITS, Split

if TYPE_CHECKING:  # torch is loaded by `read_pictures`, which alone needs it
    from torch import Tensor

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
TEST_SHARE = 5  # one picture in so many is for the test where there is no folder test
NAMED = 5  # of the pictures that cannot be read


def folder_classes(root: Path) -> tuple[str, ...]:
    """Return the names of the classes in a folder, sorted: its subfolders, or those of its subfolder train.

    Raises:
        UserError: There are fewer than two, or too many.
    """
    top = root / "train" if (root / "train").is_dir() else root
    try:
        names = sorted(path.name for path in top.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read the folder {top} ({error.strerror or error}): {_layout()}") from error
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UserError(
            f"{top} has {len(names)} subfolders, one is needed for each of 2 to {MOST_CLASSES} classes: {_layout()}"
        )
    return tuple(names)


def _layout() -> str:
    where = f"and give {option('data.data_dir')} DIR"
    return f"put pictures into DIR/train/CLASS and DIR/test/CLASS, or into DIR/CLASS, {where}"


def folder_files(root: Path, split: Split, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Return the pictures of a split with their labels, by class and name.

    Raises:
        UserError: A class has none, or there is a folder that is no class.
    """
    divided = (root / "train").is_dir()
    top = root / split if divided else root
    _require_known(top, classes)
    files = [_pictures(top / name) for name in classes]
    if not divided:
        files = [_share(paths, split, root) for paths in files]
    for name, paths in zip(classes, files, strict=True):
        if not paths:
            raise UserError(f"class {name!r} has no picture in the {split} split of {root}: add some to {top / name}")
    return [(path, label) for label, paths in enumerate(files) for path in paths]


def folder_checksum(root: Path, files: Sequence[tuple[Path, int]]) -> str:
    """Return a SHA-256 over names and contents of pictures."""
    total = hashlib.sha256()
    for path, _ in files:
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        total.update(f"{digest}  {path.relative_to(root).as_posix()}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def folder_checksums(root: Path, classes: Sequence[str]) -> dict[str, str]:
    """Return the checksum of each split, by its name."""
    return {split: folder_checksum(root, folder_files(root, split, classes)) for split in SPLITS}


def read_pictures(root: Path, split: Split, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the pictures of a split, uint8 (N, 1, 28, 28), and their labels, int64 (N,).

    Pictures are made as `predict` makes them: grey, square, light on black.

    Raises:
        UserError: A picture cannot be read: all are tried, the first few named.
    """
    import torch

    from vgg_lightning.data.images.prepare import NATIVE_SIZE, to_uint8

    files = folder_files(root, split, classes)
    _require_memory(len(files))
    images = torch.empty((len(files), 1, NATIVE_SIZE, NATIVE_SIZE), dtype=torch.uint8)
    faults = []
    with items_bar(f"reading the {split} pictures", len(files)) as bar:
        for i, (path, _) in enumerate(files):
            try:
                images[i] = to_uint8(path)[0]
            except UserError as error:
                faults.append(str(error))
            bar.update()
    if faults:
        _refuse(faults, len(files), root)
    return images, torch.tensor([label for _, label in files])


def _refuse(faults: Sequence[str], count: int, root: Path) -> None:
    for fault in faults[1:NAMED]:
        say(fault)
    raise UserError(f"{len(faults)} of {count} pictures in {root} cannot be read, mend or remove them: {faults[0]}")


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder and below it, sorted; other files are no part of the data."""
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    pictures = [path for path in found if path.suffix.lower() in ENDINGS]
    if len(pictures) < len(found):
        _tell(f"left out, no pictures by their names: {len(found) - len(pictures)} in {folder}")
    return pictures


@functools.cache
def _tell(text: str) -> None:
    """Say it once, however often the folder is looked through."""
    say(text)


def _share(paths: Sequence[Path], split: Split, root: Path) -> list[Path]:
    """Return the part of one class that belongs to a split, the same whatever the other classes hold."""

    def place(path: Path) -> bytes:
        return hashlib.sha256(path.relative_to(root).as_posix().encode("utf-8", "surrogateescape")).digest()

    test = set(sorted(paths, key=place)[: len(paths) // TEST_SHARE])
    return [path for path in paths if (path in test) == (split == "test")]


def _require_known(top: Path, classes: Sequence[str]) -> None:
    """Refuse a split with a folder that is none of the classes, as after a slip of the pen."""
    found = {path.name for path in top.iterdir() if path.is_dir()} if top.is_dir() else set()
    strange = sorted(name for name in found - set(classes) if not name.startswith("."))
    if strange and (top.name in SPLITS or found & set(classes)):
        raise UserError(f"{top / strange[0]} is none of the classes ({', '.join(classes)}): rename or remove it")


def _require_memory(count: int) -> None:
    needed, free = count * 28 * 28, free_memory()
    if needed > free:
        raise UserError(f"{count:,} pictures take {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free: use fewer")
