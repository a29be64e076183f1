"""The options of the data module: one row for each argument of its `__init__`."""

from __future__ import annotations

from vgg_lightning.base.options import COUNT, SEED, Option

OPTIONS: dict[str, Option] = {
    "image_size": Option(structure=True),
    "batch_size": Option(COUNT, fixed=True),
    "val_size": Option(fixed=True),
    "augment": Option(),
    "normalize": Option(structure=True),
    "in_channels": Option(structure=True, follows="model.in_channels"),
    "data_dir": Option(place=True, local=True, apart=True),
    "dataset": Option(fixed=True),
    "on_device": Option(),
    "seed": Option(SEED, local=True),
    "classes": Option(structure=True),
    "mean": Option(structure=True),
    "std": Option(structure=True),
    "predict_path": Option(place=True),
}
PLACES = [name for name, row in OPTIONS.items() if row.place]
