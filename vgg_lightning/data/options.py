"""The options of the data module, and what is known of Fashion-MNIST before it is read.

Nothing here needs the data, so a Classifier knows it without the modules that fetch and read files.
"""

from __future__ import annotations

from typing import TypedDict

from vgg_lightning.base.options import COUNT, SEED, SHARE, Option, Range

MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images of Fashion-MNIST, scaled to 0..1
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

DIVISOR = Range(lambda value: value >= 1e-4, "0.0001 or more")  # the least that images are found to have
OPTIONS: dict[str, Option] = {
    "image_size": Option(resumed="kept"),
    "batch_size": Option(COUNT, resumed="refused"),
    "val_size": Option(resumed="refused"),
    "augment": Option(),
    "normalize": Option(resumed="kept"),
    "in_channels": Option(resumed="kept", follows="model.in_channels"),
    "data_dir": Option(place=True, local=True, apart=True),
    "dataset": Option(resumed="refused"),
    "on_device": Option(),
    "seed": Option(SEED, local=True),
    "classes": Option(resumed="kept"),
    "mean": Option(SHARE, resumed="kept"),
    "std": Option(DIVISOR, resumed="kept"),
    "predict_path": Option(place=True),
}
PLACES = [name for name, row in OPTIONS.items() if row.place]


class DataOptions(TypedDict, total=False):
    """The types of the options of a data module that a checkpoint may hold."""

    image_size: int
    batch_size: int | None
    val_size: int | None
    augment: list[str] | None
    normalize: bool
    in_channels: int
    dataset: str
    on_device: bool
    seed: int | None
    classes: list[str] | None
    mean: float | None
    std: float | None
