"""The data sets: their files, checksums, classes and sources."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vgg_lightning.base.errors import UserError, nearest, option
from vgg_lightning.data.options import CLASSES, MEAN, STD
from vgg_lightning.data.sources.idx import IdxFile, Kind

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

MOST_CLASSES = 256  # labels of one byte
DIGITS = tuple(string.digits)
_BOTH_CASES_ALIKE = set("cijklmopsuvwxyz")  # letters whose small and capital forms EMNIST may merge
_CHARACTERS = tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase)
_MERGED = tuple(c for c in _CHARACTERS if c not in _BOTH_CASES_ALIKE)

_NAMES: dict[tuple[Split, Kind], str] = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}
FASHION_COUNTS = (60_000, 60_000, 10_000, 10_000)


@dataclass(frozen=True)
class Archive:
    """A zip file that holds the .gz files of several data sets.

    Attributes:
        name: Its name at the mirrors.
        md5: Its checksum.
    """

    name: str
    md5: str


@dataclass(frozen=True)
class Dataset:
    """Where the images of a data set come from, and what they show.

    Attributes:
        title: Its name in sentences.
        folder: Where the raw files lie, below the data folder.
        files: Train images, train labels, test images, test labels; none for a folder of images.
        classes: The names of the labels, from 0 on; none where they are not known before the data is seen.
        package: The Debian package that holds the files.
        torchvision: The class in `torchvision.datasets` that knows the mirrors; None for files that are
            the user's own, which have no source but the user.
        archive: The zip file in which the mirrors keep the .gz files; None if each lies there by itself.
        transposed: Whether the files hold columns where others hold rows.
        mirrors_well: Whether an image and its mirror image are of the same class; None if only the user knows.
        mean: Of the pixels of the training images, scaled to 0..1; None to have it computed.
        std: Their standard deviation.
        kind: A class of the user's own, called with `root` and `train`, whose items are pairs (image, label).
    """

    title: str
    folder: str
    files: tuple[IdxFile, ...]
    classes: tuple[str, ...]
    package: str | None = None
    torchvision: str | None = None
    archive: Archive | None = None
    transposed: bool = False
    mirrors_well: bool | None = True
    mean: float | None = None
    std: float | None = None
    kind: Callable[..., Any] | None = None

    @property
    def own(self) -> bool:
        """Whether the data is the user's, so that its classes are as well."""
        return self.torchvision is None

    def pair(self, split: Split) -> tuple[IdxFile, IdxFile]:
        """Return the files of the images and of the labels of a split."""
        first = {"train": 0, "test": 2}[split]
        return self.files[first], self.files[first + 1]


def mnist_like_files(
    counts: tuple[int | None, ...] = (None,) * 4,
    checksums: tuple[str | None, ...] = (None,) * 4,
    md5s: tuple[str | None, ...] = (None,) * 4,
) -> tuple[IdxFile, ...]:
    """Return the four files of a data set in MNIST's form, with the counts and checksums asked for."""
    return tuple(
        IdxFile(name, kind, count, checksum, md5)
        for ((_, kind), name), count, checksum, md5 in zip(_NAMES.items(), counts, checksums, md5s, strict=True)
    )


def find_dataset(name: str, classes: Sequence[str] | None = None) -> Dataset:
    """Return the data set of that name.

    Args:
        name: A key of `DATASETS`.
        classes: Names of its classes instead of its own, for data of the user's own.

    Raises:
        UserError: There is none of that name, or it has other classes.
    """
    if name not in DATASETS:
        own = f"or {option('import')} the module that adds it"
        near = nearest(name, DATASETS)
        raise UserError(f"dataset {name!r} is unknown{near}: use one of {', '.join(DATASETS)}, {own}")
    dataset = DATASETS[name]
    if classes is None or tuple(classes) == dataset.classes:
        return dataset
    if not dataset.own:
        wrong = next((c for c in classes if c not in dataset.classes), f"{len(classes)} names")
        raise UserError(
            f"{dataset.title} has other classes than asked for ({wrong!r} is none of its {len(dataset.classes)}): "
            f"leave {option('data.classes')} out, "
            f"or give the {option('data.dataset')} that the checkpoint was trained on"
        )
    if len(set(classes)) < max(len(classes), 2) or len(classes) > MOST_CLASSES:
        raise UserError(f"{option('data.classes')} takes 2 to {MOST_CLASSES} different names")
    files = tuple(replace(file, labels=range(len(classes))) for file in dataset.files)
    return replace(dataset, classes=tuple(classes), files=files)


def mirror_note(dataset: Dataset, augment: Sequence[str], tta: str) -> str | None:
    """Return what to say before training on mirror images that may be of another class than the images.

    Args:
        dataset: The data set.
        augment: What is done to the training images.
        tta: The views at test time; all but "none" have mirror images among them.
    """
    flips = [name for name in augment if name.partition(":")[0] in ("flip", "alternating_flip")]
    uses = ["augment flips"] * bool(flips) + ["tta mirrors"] * (tta != "none")
    if dataset.mirrors_well or not uses:
        return None
    remedies = [f"leave {' and '.join(flips)} out of {option('data.augment')}"] if flips else []
    remedies += [f"give {option('model.tta')} none"] if tta != "none" else []
    what, remedy = f"note: {' and '.join(uses)} images", " and ".join(remedies)
    if dataset.own:
        return f"{what} left to right; if a mirror image is of another class in your data, {remedy}"
    return f"{what} of {dataset.title}, whose mirror images mean something else: {remedy}"


def _emnist(split: str, classes: tuple[str, ...], train: int | None, test: int | None, first: int = 0) -> Dataset:
    """Return one of the six data sets that EMNIST's archive holds."""
    counts = (train, train, test, test)
    labels = range(first, first + len(classes))
    files = [
        replace(file, name=f"emnist-{split}-{file.name.replace('t10k', 'test')}", labels=labels)
        for file in mnist_like_files(counts)
    ]
    return Dataset(
        title=f"EMNIST {split}",
        folder="EMNIST/raw",
        files=tuple(files),
        classes=classes,
        torchvision="EMNIST",
        archive=Archive("gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e"),
        transposed=True,
        mirrors_well=False,
    )


class Datasets(dict[str, Dataset]):
    """A table of data sets. A class of the user's own that is added to it becomes a row."""

    def __init__(self, rows: dict[str, Dataset]) -> None:
        super().__init__(rows)
        self.shipped = frozenset(rows)

    def __setitem__(self, name: str, row: Dataset | Callable[..., Any]) -> None:
        """Add a data set.

        Args:
            name: For the option `dataset`.
            row: A row, or a class with the interface of torchvision's data sets: it is called with `root`, the data
                folder, and `train`, true or false; it has a length, and its items are pairs (image, label). Its
                attribute `classes` names the labels, from 0 on.

        Raises:
            UserError: The name is taken, or the class has another interface.
        """
        if isinstance(row, Dataset):
            super().__setitem__(name, row)
            return
        if name in self.shipped:
            raise UserError(f"the name {name!r} is taken by a data set of vgg_lightning: choose another")
        classes = getattr(row, "classes", None)
        if not isinstance(classes, list | tuple) or not all(isinstance(each, str) for each in classes):
            raise UserError(f"data set {name!r}: its class needs `classes`, a list with the names of its labels")
        if not {"root", "train"} <= inspect.signature(row).parameters.keys():
            raise UserError(f"data set {name!r}: its class is called with root and train, which it does not take")
        title = f"The data set {name}"
        own = Dataset(title=title, folder="", files=(), classes=(), mirrors_well=None, kind=row)
        super().__setitem__(name, own)
        super().__setitem__(name, find_dataset(name, classes))


# Checksums of .gz files and of the archive are those of torchvision.datasets; those of raw files were computed.
DatasetName = Literal[
    "fashion_mnist",
    "mnist",
    "kmnist",
    "emnist_letters",
    "emnist_balanced",
    "emnist_digits",
    "emnist_mnist",
    "emnist_bymerge",
    "emnist_byclass",
    "idx",
    "folder",
]
DATASETS = Datasets(
    {
        "fashion_mnist": Dataset(
            title="Fashion-MNIST",
            folder="FashionMNIST/raw",  # as torchvision has it, so that both can share the files
            files=mnist_like_files(
                FASHION_COUNTS,
                (
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
            ),
            classes=CLASSES,
            package="dataset-fashion-mnist",
            torchvision="FashionMNIST",
            mean=MEAN,
            std=STD,
        ),
        "mnist": Dataset(
            title="MNIST",
            folder="MNIST/raw",
            files=mnist_like_files(
                FASHION_COUNTS,
                md5s=(
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                    "d53e105ee54ea40749a09fcbcd1e9432",
                    "9fb629c4189551a2d022fa330f9573f3",
                    "ec29112dd5afa0611ce80d1b7f02629c",
                ),
            ),
            classes=DIGITS,
            torchvision="MNIST",
            mirrors_well=False,
        ),
        "kmnist": Dataset(
            title="KMNIST",
            folder="KMNIST/raw",
            files=mnist_like_files(
                FASHION_COUNTS,
                md5s=(
                    "bdb82020997e1d708af4cf47b453dcf7",
                    "e144d726b3acfaa3e44228e80efcd344",
                    "5c965bf0a639b31b8f53240b1b52f4d7",
                    "7320c461ea6c1c855c0b718fb2a4b134",
                ),
            ),
            classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
            torchvision="KMNIST",
            mirrors_well=False,
        ),
        # The publications disagree on how many letters there are, so any number is taken.
        "emnist_letters": _emnist("letters", tuple(string.ascii_lowercase), None, None, first=1),
        "emnist_balanced": _emnist("balanced", _MERGED, 112_800, 18_800),
        "emnist_digits": _emnist("digits", DIGITS, 240_000, 40_000),
        "emnist_mnist": _emnist("mnist", DIGITS, 60_000, 10_000),
        "emnist_bymerge": _emnist("bymerge", _MERGED, 697_932, 116_323),
        "emnist_byclass": _emnist("byclass", _CHARACTERS, 697_932, 116_323),
        "idx": Dataset(
            title="The data set idx",
            folder="",
            files=mnist_like_files(),
            classes=DIGITS,
            mirrors_well=None,
        ),
        "folder": Dataset(title="The data set folder", folder="", files=(), classes=(), mirrors_well=None),
    }
)
