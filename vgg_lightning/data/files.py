"""The files of a data set: downloaded and verified by `prepare`, read by `load`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.progress import say
from vgg_lightning.data.images.dataset import check_folder, folder_classes, list_folder, read_pictures, spread
from vgg_lightning.data.images.dataset import some_pixels as folder_pixels
from vgg_lightning.data.options import CLASSES
from vgg_lightning.data.own_class import checksum, read_items
from vgg_lightning.data.sources import obtain
from vgg_lightning.data.sources.catalogue import DATASETS, SPLITS, Dataset, Split, find_dataset
from vgg_lightning.data.sources.idx import Fault, read, read_shape, verify
from vgg_lightning.data.sources.store import ELSEWHERE, Job, leftovers, sweep

if TYPE_CHECKING:  # torch is loaded by `load`, which alone needs it
    from torch import Tensor

__all__ = ["CLASSES", "DATASETS", "Prepared", "Split", "class_names", "default_data_dir", "load", "prepare"]

LOCK_SECONDS = 3600.0
OWN_FILES = "your own files in the data folder"
OWN_CLASS = "your own class"
ALREADY_THERE = "verified files in the data folder"


@dataclass(frozen=True)
class Prepared:
    """The verified files of a data set.

    Attributes:
        folder: Where they lie.
        source: Where they came from, as a phrase for people.
        checksums: The SHA-256 of each raw file by its name, or of each split of a folder of images.
        classes: Of the user's own data: the names of its classes.
        counts: How many images of each class each split has, of the user's own data.
        left_out: What in a folder of images is no part of the data, counted, as a phrase for people.
        sizes: Of the images in a folder, as a phrase for people.
    """

    folder: Path
    source: str
    checksums: dict[str, str]
    classes: tuple[str, ...] = ()
    counts: dict[str, list[int]] = field(default_factory=dict)
    left_out: str = ""
    sizes: str = ""


def default_data_dir() -> Path:
    """Return $VGG_LIGHTNING_DATA, else $XDG_CACHE_HOME/vgg_lightning, else ~/.cache/vgg_lightning."""
    if own := os.environ.get("VGG_LIGHTNING_DATA"):
        return _absolute(own)
    return own_cache()


def own_cache() -> Path:
    """Return this user's own folder: $XDG_CACHE_HOME/vgg_lightning, else ~/.cache/vgg_lightning."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # which the XDG specification says to ignore
        cache = "~/.cache"
    return _absolute(cache) / "vgg_lightning"


def class_names(
    dataset: str = "fashion_mnist", classes: Sequence[str] | None = None, data_dir: str | Path | None = None
) -> tuple[str, ...]:
    """Return the names of the classes of a data set, from label 0 on.

    Args:
        dataset: A name out of `DATASETS`.
        classes: Names instead of its own, for data of the user's own.
        data_dir: The data folder; looked into only for the data set "folder" without `classes`.

    Raises:
        UserError: No such data set, or these are not its classes.
    """
    known = find_dataset(dataset, classes)
    return known.classes or folder_classes(_own_folder(data_dir))


def prepare(
    data_dir: str | Path | None = None, dataset: str = "fashion_mnist", classes: Sequence[str] | None = None
) -> Prepared:
    """Make sure that the four raw files of a data set are there and sound.

    Files that are missing or damaged are had from the first source that works; any number of processes may do
    this at once. The checksums are computed at every call: it takes 0.04 s for the 55 MB of Fashion-MNIST.

    Args:
        data_dir: The data folder; None means `default_data_dir()`.
        dataset: A name out of `DATASETS`; "idx" is four files of the user's own in the data folder, "folder"
            images of the user's own, which are read once for their checksums and for `load`.
        classes: Names of the classes instead of the data set's own.

    Raises:
        UserError: No source works, the folder cannot be written to, or one's own files are not sound.
    """
    known = find_dataset(dataset, classes)
    if known.kind:
        found = {split: read_items(known, _root(data_dir), split) for split in SPLITS}
        counts: dict[str, list[int]] = {split: _counts(known, labels) for split, (_, labels) in found.items()}
        sums: dict[str, str] = {split: checksum(arrays) for split, arrays in found.items()}
        return Prepared(_root(data_dir), OWN_CLASS, sums, known.classes, counts)
    if not known.files:
        root = _own_folder(data_dir)
        listing, checksums = check_folder(root, known.classes or None)
        counts = {split: listing.counts(split) for split in SPLITS}
        return Prepared(root, OWN_FILES, checksums, listing.classes, counts, listing.left_out, listing.sizes)
    root = _root(data_dir)
    folder = root / known.folder
    checksums, faults = _inspect(folder, known)
    if known.own:
        return _own(folder, known, checksums, faults)
    if not faults:
        _sweep_if_free(folder)
        return Prepared(folder, ALREADY_THERE, checksums)
    with _locked(folder):
        return _fetch(Job(known, root, folder, faults))


def faults_of(data_dir: str | Path | None = None, dataset: str = "fashion_mnist") -> tuple[Path, dict[str, str]]:
    """Return the folder of a data set's raw files, and what is wrong with each that is not sound; fetch nothing."""
    known = find_dataset(dataset)
    folder = _root(data_dir) / known.folder
    return folder, _inspect(folder, known)[1]


def load(
    data_dir: str | Path | None,
    split: Split,
    dataset: str = "fashion_mnist",
    classes: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the images, uint8 (N, 1, 28, 28), and the labels, int64 (N,), of a split.

    Checks the structure of the files, but not their checksums: that is `prepare`'s.

    Raises:
        UserError: A file is missing or not sound.
    """
    import torch

    known = find_dataset(dataset, classes)
    if known.kind:
        pixels, numbers = read_items(known, _root(data_dir), split)
        return torch.from_numpy(pixels)[:, None], torch.from_numpy(numbers)
    if not known.files:
        root = _own_folder(data_dir)
        return read_pictures(root, split, known.classes or None)
    root, arrays = _root(data_dir), []
    for file in known.pair(split):
        path = root / known.folder / file.name
        try:
            arrays.append(torch.from_numpy(read(path, file)))
        except Fault as fault:
            raise UserError(f"{path} {fault}{_whose(dataset)}") from fault
    images, labels = arrays
    _require_pairs(path.parent, split, len(images), len(labels))
    if known.transposed:
        images = images.transpose(1, 2).contiguous()
    return images.unsqueeze(1), labels.long() - known.pair(split)[1].labels[0]


def training_counts(data_dir: str | Path | None, dataset: str, classes: Sequence[str] | None = None) -> list[int]:
    """Return how many training images of each class there are, without reading the images.

    Raises:
        UserError: A file is missing or not sound.
    """
    known = find_dataset(dataset, classes)
    if known.kind:
        return _counts(known, read_items(known, _root(data_dir), "train")[1])
    if not known.files:
        return list_folder(_own_folder(data_dir), known.classes or None).counts("train")
    file = known.pair("train")[1]
    path = _root(data_dir) / known.folder / file.name
    try:
        return _counts(known, read(path, file))
    except Fault as fault:
        raise UserError(f"{path} {fault}{_whose(dataset)}") from fault


def some_pixels(prepared: Prepared, dataset: str, each: int) -> list[list[NDArray[np.uint8]]]:
    """Return up to `each` training images of each class of the user's own data, uint8 (28, 28).

    Args:
        prepared: The data.
        dataset: Its name out of `DATASETS`.
        each: How many.
    """
    known = find_dataset(dataset, prepared.classes)
    if not known.files and not known.kind:
        return folder_pixels(prepared.folder, prepared.classes, each)
    images: NDArray[np.uint8]
    labels: NDArray[np.integer[Any]]
    if known.kind:
        images, labels = read_items(known, prepared.folder, "train")
    else:
        images, labels = (read(prepared.folder / file.name, file) for file in known.pair("train"))
    own = (np.flatnonzero(labels == label).tolist() for label in range(len(prepared.classes)))
    return [[images[i] for i in spread(places, each)] for places in own]


def _counts(known: Dataset, labels: NDArray[np.integer[Any]]) -> list[int]:
    """Return how many labels there are of each class."""
    counts: list[int] = np.bincount(labels, minlength=len(known.classes)).tolist()
    return counts


def _own_folder(data_dir: str | Path | None) -> Path:
    """Return the folder of the user's own images, which has no default."""
    if not data_dir:
        place = option("data.data_dir")
        raise UserError(f"dataset folder reads images of your own: give {place} the folder that holds them")
    return _absolute(data_dir)


def _whose(dataset: str) -> str:
    """Return the remedy for a file that is not sound."""
    if not DATASETS[dataset].own:
        return f": run `vgg-lightning data --dataset {dataset}`"
    return f": dataset {dataset} reads four IDX files of your own, give {option('data.data_dir')} their folder"


def _root(data_dir: str | Path | None) -> Path:
    """Return the data folder as an absolute path."""
    return _absolute(data_dir) if data_dir else default_data_dir()


def _absolute(path: str | Path) -> Path:
    """Return `path` without a leading "~" and independent of the working folder."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:  # there is no such home
        raise UserError(f"{path} has no home folder on this machine: set data_dir or VGG_LIGHTNING_DATA") from error


def _inspect(folder: Path, dataset: Dataset) -> tuple[dict[str, str], dict[str, str]]:
    """Return the checksums of the sound files and the faults of the others, by name."""
    checksums, faults = {}, {}
    for file in dataset.files:
        try:
            checksums[file.name] = verify(folder / file.name, file)
        except Fault as fault:
            faults[file.name] = str(fault)
    return checksums, faults


def _own(folder: Path, dataset: Dataset, checksums: dict[str, str], faults: dict[str, str]) -> Prepared:
    """Accept the user's own files, or say what is wrong with the first that is not sound."""
    for name, fault in faults.items():
        raise UserError(f"{folder / name} {fault}{_whose('idx')}")
    for split in SPLITS:
        images, labels = (read_shape(folder / file.name, file)[0] for file in dataset.pair(split))
        _require_pairs(folder, split, images, labels)
    counts: dict[str, list[int]] = {}
    for split in SPLITS:
        file = dataset.pair(split)[1]
        counts[split] = _counts(dataset, read(folder / file.name, file))
    return Prepared(folder, OWN_FILES, checksums, dataset.classes, counts)


def _require_pairs(folder: Path, split: Split, images: int, labels: int) -> None:
    """Refuse a split with more images than labels, or fewer."""
    if images != labels:
        raise UserError(f"{folder} holds {images} images and {labels} labels of the {split} split: they must agree")


def _fetch(job: Job) -> Prepared:
    """Bring in what is missing, with the lock held: another process may have done it meanwhile."""
    sweep(job.folder)
    checksums, job.faults = _inspect(job.folder, job.dataset)
    if checksums:
        job.origins.append(ALREADY_THERE)
    for name, fault in job.faults.items():
        if fault != "is missing":
            say(f"{job.folder / name} {fault}: looking for a sound one")
    obtain(job)
    checksums, _ = _inspect(job.folder, job.dataset)
    return Prepared(job.folder, " and ".join(job.origins), checksums)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of raw files, which is made if need be."""
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process that prepares {folder}")
            lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise UserError(f"{folder} has been locked for {LOCK_SECONDS:.0f} s by another process") from error
    except (OSError, ValueError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to {folder} ({reason}): {ELSEWHERE}") from error
    try:
        yield
    finally:
        lock.release()


def _sweep_if_free(folder: Path) -> None:
    """Remove what a process has left that was killed right after its work, unless another is at work."""
    if leftovers(folder):
        with suppress(OSError, NotImplementedError), FileLock(folder / ".lock", timeout=0):
            sweep(folder)
