"""A checkpoint of a classifier, opened once: found, verified, read, its options checked and held against its weights.

The class of the model is an argument here, so that it can itself load weights and a teacher.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.data.sources.catalogue import CLASSES, MEAN, STD
from vgg_lightning.loading.options import checked_options, fits
from vgg_lightning.loading.safetensors import SUFFIX, read_shared
from vgg_lightning.networks import skeleton
from vgg_lightning.run.checkpoints import read
from vgg_lightning.run.checkpoints.locate import find_checkpoint
from vgg_lightning.run.checkpoints.read import Checkpoint, ReadFile
from vgg_lightning.training.options import check_options, network_arguments

Plain = str | int | float | bool | None


@dataclass
class Opened(ReadFile):
    """A checkpoint of a classifier whose options and weights fit together.

    Attributes:
        model_options: of the model.
        data_options: of the data, empty if it was trained on other data.
        num_classes: how many classes the network tells apart.
    """

    model_options: dict[str, Plain]
    data_options: dict[str, Any]
    num_classes: int

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, or numbers if it has none. Raises UserError unless there is one for each class."""
        return class_names_of(self.checkpoint, self.num_classes)


def open_checkpoint(
    path: str | Path, owner: type[L.LightningModule], prefer: str = "best", hand_on: bool = False
) -> Opened:
    """Find, verify and read a checkpoint, and hold its options against its weights.

    Args:
        path: a run folder, a checkpoint file, or a .safetensors file with its card.
        owner: the class of the model.
        prefer: "best" or "last", which of a run folder's two.
        hand_on: it is the checkpoint that this launch is about: keep it for the Trainer, which loads by path.

    Raises:
        UserError: if there is no such checkpoint, or it is damaged or foreign.
    """
    file = find_checkpoint(path, prefer)
    kept = read.handed_on(file)
    if isinstance(kept, Opened):
        return kept
    checkpoint = read_checkpoint(file)
    check_shapes(checkpoint, file, owner)
    options = model_options(checkpoint, owner)
    num_classes = int(_complete(options, owner)["num_classes"])
    opened = Opened(file, checkpoint, options, data_options(checkpoint), num_classes)
    if hand_on:
        read.hand_on(opened)
    return opened


def read_checkpoint(file: Path) -> Checkpoint:
    """Read a checkpoint of a classifier: every checksum in it verified, tensors and plain values only.

    Args:
        file: a checkpoint, or a .safetensors file that `vgg-lightning export` wrote.

    Raises:
        UserError: if the file is damaged, is no checkpoint, or holds another model.
    """
    return read_shared(file) if file.suffix == SUFFIX else read.read_checkpoint(file)


def model_options(checkpoint: Checkpoint, owner: type[L.LightningModule]) -> dict[str, Plain]:
    """Return the options of the model in a checkpoint. Raises UserError if they are not those of the class `owner`."""
    return checked_options(checkpoint["hyper_parameters"], owner)


def data_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the options of the data in a checkpoint, empty if it was trained on other data."""
    options = checked_options(checkpoint.get("datamodule_hyper_parameters", {}), FashionMNISTDataModule)
    if not options:
        return {}
    names = checkpoint.get("class_names")
    # Checkpoints of the first version do not say by what their pictures were normalised: it was always this.
    old = {"mean": MEAN, "std": STD, **({"classes": names} if fits(names, list[str]) else {})}
    return {**old, **options}


def check_shapes(checkpoint: Checkpoint, file: Path, owner: type[L.LightningModule]) -> None:
    """Raise UserError unless the weights are those of a network with the checkpoint's own options.

    The network is built without memory, so options of absurd sizes cost nothing.
    """
    options = _complete(model_options(checkpoint, owner), owner)
    try:
        check_options(options)
        weights = skeleton(**network_arguments(options)).state_dict()
    except UserError as error:
        raise UserError(f"{file} is refused: {error}") from error
    except Exception as error:
        raise UserError(f"{file} is refused: no network has its options") from error
    weights = {f"network.{name}": value for name, value in weights.items()}
    has = {name: value.shape for name, value in checkpoint["state_dict"].items()}
    for name, value in weights.items():
        if has.get(name) != value.shape:
            found = f"has the shape {tuple(has[name])}" if name in has else "is missing"
            raise UserError(f"{file} is refused: {name} {found}, its options ask for {tuple(value.shape)}")
    if extra := has.keys() - weights.keys():
        raise UserError(f"{file} is refused: its options have no {min(extra)[:80]!r}")


def class_names_of(checkpoint: Checkpoint, num_classes: int) -> list[str]:
    """Return the class names in a checkpoint, one for each class, or numbers if it has none. Raises UserError."""
    names = checkpoint.get("class_names", list(CLASSES))
    if not fits(names, list[str]) or len(names) != num_classes:
        if "class_names" in checkpoint:
            raise UserError("the checkpoint is refused: it does not have one name for each class")
        return [str(i) for i in range(num_classes)]
    return list(names)


def _complete(options: dict[str, Plain], owner: type[L.LightningModule]) -> dict[str, Any]:
    """Return options with the defaults of those that a checkpoint of before does not have."""
    return {name: p.default for name, p in inspect.signature(owner).parameters.items()} | options
