"""The data sets: their files, checksums, classes and where they can be had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vgg_lightning.data.idx import IdxFile, Kind

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

CLASSES: tuple[str, ...] = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

_NAMES: dict[tuple[Split, Kind], str] = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


@dataclass(frozen=True)
class Dataset:
    """Four IDX files and their sources.

    Attributes:
        title: Its name in sentences.
        folder: Where the raw files lie, below the data folder.
        files: Train images, train labels, test images, test labels.
        classes: The names of the labels 0 to 9.
        package: The Debian package that holds the files.
        torchvision: The class in `torchvision.datasets` that knows the mirrors; None for files that are
            the user's own, which have no source but the user.
    """

    title: str
    folder: str
    files: tuple[IdxFile, ...]
    classes: tuple[str, ...]
    package: str | None = None
    torchvision: str | None = None

    def pair(self, split: Split) -> tuple[IdxFile, IdxFile]:
        """Return the files of the images and of the labels of a split."""
        first = {"train": 0, "test": 2}[split]
        return self.files[first], self.files[first + 1]


def mnist_like_files(
    counts: tuple[int | None, ...] = (None,) * 4, checksums: tuple[str | None, ...] = (None,) * 4
) -> tuple[IdxFile, ...]:
    """Return the four files of a data set in MNIST's form, with the counts and checksums asked for."""
    return tuple(
        IdxFile(name, kind, count, checksum)
        for ((_, kind), name), count, checksum in zip(_NAMES.items(), counts, checksums, strict=True)
    )


DATASETS: dict[str, Dataset] = {
    "fashion_mnist": Dataset(
        title="Fashion-MNIST",
        folder="FashionMNIST/raw",  # as torchvision has it, so that both can share the files
        files=mnist_like_files(
            (60_000, 60_000, 10_000, 10_000),
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
    ),
    "idx": Dataset(
        title="The data set idx",
        folder="",
        files=mnist_like_files(),
        classes=tuple(str(label) for label in range(10)),
    ),
}
