"""Models and weights out of checkpoints. The class of the model is an argument, so that it can itself load weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.loading.opened import (
    Opened,
    Plain,
    check_shapes,
    class_names_of,
    data_options,
    model_options,
    open_checkpoint,
    read_checkpoint,
)
from vgg_lightning.run.checkpoints.locate import find_checkpoint
from vgg_lightning.run.checkpoints.read import Checkpoint

__all__ = [
    "Checkpoint",
    "Opened",
    "Plain",
    "check_shapes",
    "class_names_of",
    "data_options",
    "load_model",
    "load_weights",
    "model_of",
    "model_options",
    "open_checkpoint",
    "read_checkpoint",
    "reopen",
]

Model = TypeVar("Model", bound=L.LightningModule)


def load_model(
    owner: type[Model],
    path: str | Path,
    map_location: str | torch.device = "cpu",
    strict: bool = True,
    **options: Any,
) -> Model:
    """Open a run folder, a checkpoint or a .safetensors file as a model in evaluation mode.

    Nothing that the file names is imported or run, and its options are held against its weights before
    anything is built from them.

    Args:
        owner: the class of the model; `Classifier`, or one with its attributes.
        path: a run folder (its best checkpoint is taken), a checkpoint file, or a .safetensors file with its card.
        map_location: the device to put it on.
        strict: the weights must be those of the network.
        options: to use in place of those in the checkpoint.

    Raises:
        UserError: if there is no such checkpoint, or it is damaged or foreign.
    """
    return model_of(open_checkpoint(path, owner), owner, strict, **options).to(map_location)


def model_of(opened: Opened, owner: type[Model], strict: bool = True, **options: Any) -> Model:
    """Build the model of a checkpoint that has been opened. Arguments and errors as those of `load_model`."""
    file, checkpoint = opened.file, opened.checkpoint
    try:
        model: Any = owner(**{**opened.model_options, **options})
    except UserError as error:
        raise error if options else UserError(f"{file} is refused: {error}") from error
    try:
        model.load_state_dict(checkpoint["state_dict"], strict)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is refused: its weights do not fit its own options") from error
    model.on_load_checkpoint(checkpoint)
    loaded: Model = model.eval()
    return loaded


def reopen(
    owner: type[Model],
    lightning: Callable[..., Model],
    checkpoint_path: Any,
    map_location: Any = None,
    hparams_file: Any = None,
    strict: bool | None = None,
    weights_only: bool | None = True,
    **options: Any,
) -> Model:
    """Open a checkpoint as `load_model` does, for `load_from_checkpoint` of a LightningModule; in training mode.

    Args:
        owner: the class of the model.
        lightning: Lightning's own `load_from_checkpoint`, for an open file and for `hparams_file`.
        checkpoint_path: run folder or file, or an open file. Nothing is fetched from an address.
        map_location: the device to put the model on.
        hparams_file: options to use instead of those in the checkpoint; goes to Lightning.
        strict: the weights must be those of the network; True unless given.
        weights_only: always true: nothing in a checkpoint is run.
        options: to use instead of those in the checkpoint.

    Raises:
        UserError: as `load_model`.
    """
    opened = hasattr(checkpoint_path, "read")
    if opened or hparams_file is not None:
        file = checkpoint_path if opened else find_checkpoint(checkpoint_path)
        return lightning(file, map_location, hparams_file, strict, True, **options)
    return load_model(owner, checkpoint_path, map_location or "cpu", strict is not False, **options).train()


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
