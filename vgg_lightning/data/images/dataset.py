"""The data set "folder": one's own images, in a subfolder for each class.

    DIR/train/CLASS/*.png and DIR/test/CLASS/*.png, or
    DIR/CLASS/*.png, of which one image in five of every class goes to the test split.

Nothing is cached on disk: every file is read once in every run, when its checksum is computed.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.machine import free_memory
from vgg_lightning.base.progress import items_bar, say
from vgg_lightning.base.text import printable
from vgg_lightning.data.images.decode import UnreadablePictureError, bytes_of, look_at, reading, tell
from vgg_lightning.data.images.listing import ENDINGS, Found, is_hidden, is_image, walk
from vgg_lightning.data.images.prepare_image import NATIVE_SIZE
from vgg_lightning.data.sources.catalogue import MOST_CLASSES, SPLITS, Split

if TYPE_CHECKING:  # torch is loaded by `read_pictures`, which alone needs it
    from torch import Tensor

__all__ = ["ENDINGS", "Listing", "check_folder", "folder_classes", "list_folder", "read_pictures"]

TEST_SHARE = 5  # one image in so many is for the test where there is no folder test
NAMED = 5  # of the images that cannot be read
NAMED_ENDINGS = 4  # of the files that are not called like images
T = TypeVar("T")
# What folders of splits are called, in small letters.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}


@dataclass
class Listing:
    """The files of a folder of images.

    Attributes:
        root: The folder.
        classes: The names of the classes.
        files: The images of each split with their labels, by class and name.
        refused: Of each split, what may not be read, with the reason.
        hidden: Number of files and folders passed over since they are hidden or made by a system.
        others: Files that are not called like images, by their endings.
        loose: Number of images that lie outside of the folders of the classes.
        sizes: Widths and heights of the images, as a phrase for people; empty until they are read.
    """

    root: Path
    classes: tuple[str, ...]
    files: dict[Split, list[tuple[Path, int]]] = field(default_factory=dict)
    refused: dict[Split, list[tuple[Path, str]]] = field(default_factory=dict)
    hidden: int = 0
    others: Counter[str] = field(default_factory=Counter)
    loose: int = 0
    sizes: str = ""

    def counts(self, split: Split) -> list[int]:
        """Return how many images of each class a split has."""
        numbers = Counter(label for _, label in self.files[split])
        return [numbers[label] for label in range(len(self.classes))]

    @property
    def left_out(self) -> str:
        """What is no part of the data, counted, as a phrase for people; empty if nothing is."""
        parts = []
        if self.hidden:
            parts.append(f"{self.hidden:,} hidden or made by a system")
        if self.others:
            usual = sorted(self.others, key=lambda ending: (-self.others[ending], ending))[:NAMED_ENDINGS]
            named = ", ".join(printable(ending) or "no ending" for ending in usual)
            parts.append(f"{self.others.total():,} not called like images ({named})")
        if self.loose:
            parts.append(f"{self.loose:,} images outside of the folders of classes")
        return ", ".join(parts)

    def add(self, split: Split, label: int, paths: Sequence[Path], refused: Sequence[tuple[Path, str]]) -> None:
        """Take up files of a class."""
        self.files.setdefault(split, []).extend((path, label) for path in paths)
        self.refused.setdefault(split, []).extend(refused)

    def pass_over(self, found: Found) -> None:
        """Count what was passed over in a folder."""
        self.hidden += found.hidden
        self.others += found.endings


class Read(NamedTuple):
    """What a file holds.

    Attributes:
        stamp: What the file system said of the file when it was read.
        digest: The SHA-256 of its content.
        pixels: The image in the data set's form, uint8 (28, 28).
        empty: Whether it shows nothing.
        size: Width and height of the image.
        colour: Whether the image has colours, which are dropped.
    """

    stamp: tuple[int, ...]
    digest: str
    pixels: NDArray[np.uint8]
    empty: bool
    size: tuple[int, int]
    colour: bool


_kept: dict[Path, Read] = {}  # by `check_folder` for `read_pictures`, so that a run reads every file once


def _layout() -> str:
    where = f"and give {option('data.data_dir')} DIR"
    return f"put images into DIR/train/CLASS and DIR/test/CLASS, or into DIR/CLASS, {where}"


def folder_classes(root: Path) -> tuple[str, ...]:
    """Return the names of the classes in a folder, sorted: its subfolders, or those of its subfolder train.

    Raises:
        UserError: There are fewer than two, or too many, or it is not clear what is train and test.
    """
    top = _split_folders(root).get("train", root)
    names = [path.name for path in _subfolders(top)]
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UserError(
            f"{top} has {len(names)} subfolders, one is needed for each of 2 to {MOST_CLASSES} classes: {_layout()}"
        )
    return tuple(names)


def list_folder(root: Path, classes: Sequence[str] | None = None) -> Listing:
    """Return which files belong to which split and class.

    Symbolic links in the folder of a class are followed to what lies in that folder or in `root`; what leads elsewhere
    is refused. The folder of a class may be a link itself.

    Args:
        root: The folder of the data.
        classes: The names of the classes; by default those of `folder_classes`.

    Raises:
        UserError: A class has no image in a split, or there is a folder that is no class.
    """
    listing = Listing(root, tuple(classes or folder_classes(root)))
    tops = _split_folders(root)
    for folder in {root, *(tops[split] for split in SPLITS if split in tops)}:
        _count_beside(folder, listing)
    if "val" in tops:
        size = option("data.val_size")
        tell(f"note: {tops['val']} is not read: validation images come out of train, {size} says how many")
    _require_known([tops.get(split, root / split) for split in SPLITS] if tops else [root], listing.classes, bool(tops))
    for label, name in enumerate(listing.classes):
        if tops:
            for split in SPLITS:
                listing.add(split, label, *_images(tops.get(split, root / split) / name, root, listing))
        else:
            paths, refused = _images(root / name, root, listing)
            listing.add("train", label, _share(paths, "train", root), refused)
            listing.add("test", label, _share(paths, "test", root), [])
    _require_images(listing, tops)
    return listing


def check_folder(root: Path, classes: Sequence[str] | None = None) -> tuple[Listing, dict[str, str]]:
    """Read every image, and say what is left out, what is empty, and what is both in train and test.

    What was read is kept for `read_pictures`, 784 bytes for each image, until this is called again.

    Returns:
        The files, and the SHA-256 of each split, by its name.

    Raises:
        UserError: An image cannot be read: all are tried, the first few named.
    """
    listing = list_folder(root, classes)
    if listing.left_out:
        tell(f"left out of {root}: {listing.left_out}")
    _kept.clear()
    found = {split: _read_split(listing, split) for split in SPLITS}
    for split, reads in found.items():
        _kept.update(zip([path for path, _ in listing.files[split]], reads, strict=True))
        _tell_of_empty(listing, split, reads)
    _tell_of_copies(listing, found["train"], found["test"])
    reads = [*found["train"], *found["test"]]
    if colourful := sum(read.colour for read in reads):
        number = f"{colourful:,} of {len(reads):,} images"
        tell(f"note: {number} are in colour, which is dropped: the network sees grey levels")
    wide, high = zip(*(read.size for read in reads), strict=True)
    listing.sizes = f"{_span(wide)} pixels wide, {_span(high)} high"
    return listing, {split: _checksum(root, listing.files[split], reads) for split, reads in found.items()}


def _span(numbers: Sequence[int]) -> str:
    return f"{min(numbers):,}" if min(numbers) == max(numbers) else f"{min(numbers):,} to {max(numbers):,}"


def some_pixels(root: Path, classes: Sequence[str], each: int) -> list[list[NDArray[np.uint8]]]:
    """Return up to `each` training images of each class, uint8 (28, 28), from all of its files."""
    files = list_folder(root, classes).files["train"]
    paths: list[list[Path]] = [[path for path, label in files if label == own] for own in range(len(classes))]
    return [[(_still(path) or _read(path)).pixels for path in spread(own, each)] for own in paths]


def spread(items: Sequence[T], number: int) -> list[T]:
    """Return so many items from all parts of a list, or all if they are fewer."""
    number = min(number, len(items))
    return [items[i * len(items) // number] for i in range(number)]


def folder_files(root: Path, split: Split, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Return the images of a split with their labels, by class and name. Raises UserError as `list_folder` does."""
    return list_folder(root, classes).files[split]


def folder_checksums(root: Path, classes: Sequence[str]) -> dict[str, str]:
    """Return the checksum of each split, by its name."""
    return check_folder(root, classes)[1]


def folder_checksum(root: Path, files: Sequence[tuple[Path, int]]) -> str:
    """Return a SHA-256 over names and contents of images, which are read for it."""
    return _checksum(root, files, [_read(path) for path, _ in files])


def _checksum(root: Path, files: Sequence[tuple[Path, int]], reads: Sequence[Read]) -> str:
    total = hashlib.sha256()
    for (path, _), read in zip(files, reads, strict=True):
        total.update(f"{read.digest}  {path.relative_to(root).as_posix()}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def read_pictures(root: Path, split: Split, classes: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
    """Return the images of a split, uint8 (N, 1, 28, 28), and their labels, int64 (N,).

    Images are made as `predict` makes them: grey, square, light on black.

    Raises:
        UserError: An image cannot be read: all are tried, the first few named.
    """
    import torch

    listing = list_folder(root, classes)
    reads = _read_split(listing, split)
    for path, _ in listing.files[split]:
        _kept.pop(path, None)
    images = torch.from_numpy(np.stack([read.pixels for read in reads]))
    return images[:, None], torch.tensor([label for _, label in listing.files[split]])


def _read_split(listing: Listing, split: Split) -> list[Read]:
    """Return what the files of a split hold, as far as it is known already from memory."""
    files, refused = listing.files[split], listing.refused[split]
    _require_memory(len(files))
    faults = [f"{printable(str(path))}: {reason}" for path, reason in refused]
    reads = [_still(path) for path, _ in files]
    if missing := reads.count(None):
        with items_bar(f"reading the {split} images", missing) as bar:
            for i, (path, _) in enumerate(files):
                if reads[i] is None:
                    try:
                        reads[i] = _read(path)
                    except UnreadablePictureError as error:
                        faults.append(str(error))
                    bar.update()
    if faults:
        for fault in faults[1:NAMED]:
            say(fault)
        number = len(files) + len(refused)
        raise UserError(
            f"{len(faults)} of {number} images in {listing.root} cannot be read, mend or remove them: {faults[0]}"
        )
    return [read for read in reads if read is not None]


def _read(path: Path) -> Read:
    with reading(path):
        stamp, content = _stamp(path), bytes_of(path)
    digest = hashlib.sha256(content).hexdigest()
    try:
        look = look_at(content)
    except UnreadablePictureError as error:
        raise UnreadablePictureError(path, error.reason) from error
    return Read(stamp, digest, look.pixels, not look.shows, look.size, look.colour)


def _still(path: Path) -> Read | None:
    """Return what was read of a file, unless it has changed."""
    kept = _kept.get(path)
    try:
        return kept if kept and kept.stamp == _stamp(path) else None
    except OSError:
        return None


def _stamp(path: Path) -> tuple[int, ...]:
    info = os.stat(path)
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _tell_of_empty(listing: Listing, split: Split, reads: Sequence[Read]) -> None:
    empty = [path for (path, _), read in zip(listing.files[split], reads, strict=True) if read.empty]
    if empty:
        first = printable(str(empty[0].relative_to(listing.root)))
        tell(f"note: {len(empty):,} of {len(reads):,} {split} images show nothing but background; the first: {first}")


def _tell_of_copies(listing: Listing, train: Sequence[Read], test: Sequence[Read]) -> None:
    """Say how many files of the test split are in the training split as well."""
    known = {read.digest: path for (path, _), read in zip(listing.files["train"], train, strict=True)}
    pairs = [
        (path, known[read.digest])
        for (path, _), read in zip(listing.files["test"], test, strict=True)
        if read.digest in known
    ]
    if pairs:
        one, other = (printable(str(path.relative_to(listing.root))) for path in pairs[0])
        tell(
            f"note: {len(pairs):,} of {len(test):,} test images are copies of training images, so the test accuracy "
            f"says less of new ones; the first: {one} is {other}"
        )


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name, without those that are passed over."""
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name) and path.is_dir())
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        remedy = f"give {option('data.data_dir')} the folder of the images" if gone else _layout()
        raise UserError(f"cannot read the folder {folder} ({error.strerror or error}): {remedy}") from error


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of the splits, "train" among them, and "val" if there is one; nothing if classes are all.

    A folder is divided into splits if it holds a folder train with folders in it, or if everything in it is called like
    a split: so that a class may be called "Train" beside "Car".

    Raises:
        UserError: It is not clear what is meant.
    """
    folders = _subfolders(root)
    named: dict[str, list[Path]] = {}
    for path in folders:
        if kind := SPLIT_NAMES.get(path.name.lower()):
            named.setdefault(kind, []).append(path)
    others = [path.name for path in folders if path.name.lower() not in SPLIT_NAMES]
    plain = any(path.name == "train" and _subfolders(path) for path in named.get("train", []))
    if not named or (others and not plain and not {"train", "test"} <= named.keys()):
        return {}
    found = ", ".join(path.name for kind in ("train", "test", "val") for path in named.get(kind, []))
    if others and not plain:
        raise UserError(f"{root} holds {found} and {others[0]}, splits and something else: {_layout()}")
    if any(len(paths) > 1 for paths in named.values()):
        raise UserError(f"{root} holds {found}: one folder is needed for each split; {_layout()}")
    if "train" not in named:
        raise UserError(f"{root} holds {found} and no train: {_layout()}")
    if "val" in named and "test" not in named:
        raise UserError(
            f"{root} holds {found} and no test: rename {named['val'][0].name} to test; validation images come out of "
            f"train, {option('data.val_size')} says how many"
        )
    if others:
        tell(f"note: not read in {root}, which holds {found}: {', '.join(others)}")
    return {kind: paths[0] for kind, paths in named.items()}


def _count_beside(folder: Path, listing: Listing) -> None:
    """Count what lies in a folder beside the folders of splits or classes."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_hidden(path.name):
            listing.hidden += 1
        elif path.is_dir():
            continue
        elif is_image(path.name):
            listing.loose += 1
        else:
            listing.others[path.suffix.lower()] += 1


def _images(folder: Path, root: Path, listing: Listing) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the images in the folder of a class and below it, and what may not be read; count what is passed over."""
    if not folder.is_dir():
        return [], []
    found = Found(folder)
    try:
        walk(folder, [root.resolve(), folder.resolve()], found)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    listing.pass_over(found)
    return [folder / name for name in found.names], [(folder / name, reason) for name, reason in found.refused]


def _share(paths: Sequence[Path], split: Split, root: Path) -> list[Path]:
    """Return the part of one class that belongs to a split, the same whatever the other classes hold."""

    def place(path: Path) -> bytes:
        return hashlib.sha256(path.relative_to(root).as_posix().encode("utf-8", "surrogateescape")).digest()

    test = set(sorted(paths, key=place)[: len(paths) // TEST_SHARE])
    return [path for path in paths if (path in test) == (split == "test")]


def _require_known(tops: Sequence[Path], classes: Sequence[str], divided: bool) -> None:
    """Refuse a split with a folder that is none of the classes, as after a slip of the pen."""
    for top in tops:
        found = {path.name for path in _subfolders(top)} if top.is_dir() else set()
        strange = sorted(found - set(classes))
        if strange and (divided or found & set(classes)):
            raise UserError(f"{top / strange[0]} is none of the classes ({', '.join(classes)}): rename or remove it")


def _require_images(listing: Listing, tops: dict[str, Path]) -> None:
    """Refuse a class without an image in a split."""
    root = listing.root
    for split in SPLITS:
        for name, number in zip(listing.classes, listing.counts(split), strict=True):
            if not number:
                place = (tops.get(split, root / split) if tops else root) / name
                raise UserError(f"class {name!r} has no image in the {split} split of {root}: add some to {place}")


def _require_memory(count: int) -> None:
    needed, free = count * NATIVE_SIZE * NATIVE_SIZE, free_memory()
    if needed > free:
        raise UserError(f"{count:,} images take {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free: use fewer")
