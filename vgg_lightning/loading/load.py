"""What is in a checkpoint of a classifier: its options, held against its weights before anything is built from them.

The class of the model is an argument here, so that it can itself load weights and a teacher.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.data.sources.catalogue import MEAN, STD
from vgg_lightning.data.transforms import Preprocess
from vgg_lightning.loading.options import checked_options, fits
from vgg_lightning.loading.safetensors import SUFFIX, read_shared
from vgg_lightning.run.checkpoints import read
from vgg_lightning.run.checkpoints.locate import find_checkpoint
from vgg_lightning.run.checkpoints.read import Checkpoint
from vgg_lightning.training.trained import Trained

Plain = str | int | float | bool | None
Model = TypeVar("Model", bound=L.LightningModule)


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


def load_model(owner: type[Model], path: str | Path, map_location: str | torch.device = "cpu") -> Model:
    """Open a run folder, a checkpoint or a .safetensors file as a model in evaluation mode.

    Nothing that the file names is imported or run, and its options are held against its weights before
    anything is built from them.

    Args:
        owner: the class of the model; it has the attributes of a `Trained` one.
        path: a run folder (its best checkpoint is taken), a checkpoint file, or a .safetensors file with its card.
        map_location: the device to put it on.

    Raises:
        UserError: if there is no such checkpoint, or it is damaged or foreign.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    check_shapes(checkpoint, file, owner)
    model: Any = owner(**model_options(checkpoint, owner))
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is refused: its weights do not fit its own options") from error
    model.class_names = class_names_of(checkpoint, model)
    data = data_options(checkpoint)
    if data:
        size, channels = model.hparams["image_size"], model.hparams["in_channels"]
        if (data.get("image_size", size), data.get("in_channels", channels)) != (size, channels):
            raise UserError(f"{file} is refused: its pictures have another size than its network takes")
        mean, std = (data.get(name) for name in ("mean", "std"))
        model.preprocess = Preprocess(
            size, data.get("normalize", True), channels, MEAN if mean is None else mean, STD if std is None else std
        )
    loaded: Model = model.to(map_location).eval()
    return loaded


def check_shapes(checkpoint: Checkpoint, file: Path, owner: type[L.LightningModule]) -> None:
    """Raise UserError unless the weights are those of a network with the checkpoint's own options.

    The network is built without memory, so options of absurd sizes cost nothing.
    """
    options = model_options(checkpoint, owner)
    try:
        with torch.device("meta"):
            skeleton = owner(**options).state_dict()
    except UserError as error:
        raise UserError(f"{file} is refused: {error}") from error
    except Exception as error:
        raise UserError(f"{file} is refused: no network has its options") from error
    has = {name: value.shape for name, value in checkpoint["state_dict"].items()}
    for name, value in skeleton.items():
        if has.get(name) != value.shape:
            found = f"has the shape {tuple(has[name])}" if name in has else "is missing"
            raise UserError(f"{file} is refused: {name} {found}, its options ask for {tuple(value.shape)}")
    if extra := has.keys() - skeleton.keys():
        raise UserError(f"{file} is refused: its options have no {min(extra)[:80]!r}")


def class_names_of(checkpoint: Checkpoint, classifier: Trained) -> list[str]:
    """Return the class names in a checkpoint, one for each class, or numbers if it has none. Raises UserError."""
    names = checkpoint.get("class_names", list(classifier.class_names))
    if not fits(names, list[str]) or len(names) != classifier.hparams["num_classes"]:
        if "class_names" in checkpoint:
            raise UserError("the checkpoint is refused: it does not have one name for each class")
        return [str(i) for i in range(classifier.hparams["num_classes"])]
    return list(names)


def load_weights(classifier: L.LightningModule, path: str | Path) -> list[str]:
    """Start `classifier` from the weights of another run, all that have the same name and shape.

    So a network can be fine-tuned with other options or another number of classes.

    Args:
        classifier: the one to fill.
        path: a run folder (its best checkpoint is taken) or a checkpoint file.

    Returns:
        The names of the parameters that keep their initial values.

    Raises:
        UserError: if the checkpoint cannot be opened, or nothing fits.
    """
    file = find_checkpoint(path)
    source = read_checkpoint(file)["state_dict"]
    target = classifier.state_dict()
    fitting = {k: v for k, v in source.items() if k in target and v.shape == target[k].shape}
    left = [name for name in target if name not in fitting]
    if not any(value.ndim > 1 for value in fitting.values()):
        raise UserError(f"{option('model.weights')} {path}: no layer of it fits {classifier.hparams['network']}")
    classifier.load_state_dict(fitting, strict=False)
    note = f"; {', '.join(left)} start anew" if left else ""
    print(f"weights: {file}, {len(fitting)} of {len(target)} tensors{note}")
    return left
