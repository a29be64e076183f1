"""Checks whether a network fits into memory without building it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import nn

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.machine import free_memory
from vgg_lightning.networks import is_own, skeleton
from vgg_lightning.training.options import network_arguments


def check_weights_fit(options: Mapping[str, Any]) -> None:
    """Raise UserError if the weights of a network, or two images of its input, are larger than the memory.

    Args:
        options: of the Classifier.
    """
    picture_bytes = 4 * options["in_channels"] * options["image_size"] ** 2
    try:
        needed = 2 * picture_bytes + _bytes(skeleton(**network_arguments(options)))
    except (RuntimeError, OverflowError, TypeError) as error:  # shapes that exceed 64 bits
        raise UserError(
            "the network is too large to be built: "
            f"lower {option('data.image_size')}, {option('model.hidden_units')} or "
            f"{option('model.num_classes')}, or raise {option('model.ratio')}"
        ) from error
    remedy = f"lower {option('data.image_size')} or {option('model.hidden_units')}, or raise {option('model.ratio')}"
    _check(needed, "the network", remedy)


def check_training_fits(options: Mapping[str, Any], batch_size: int, precision: str) -> int:
    """Return the bytes that a training step on a CPU needs at least: weights, gradients, and what is kept for them.

    It counts less than any run needs, so that nothing is refused that could work. A GPU says so itself, and at once.

    Args:
        options: of the Classifier.
        batch_size: images in a batch.
        precision: the Trainer's.

    Returns:
        The bytes, 0 where there is a GPU.

    Raises:
        UserError: if they are not free.
    """
    if torch.cuda.is_available():
        return 0
    network = copy.deepcopy(skeleton(**network_arguments(options))).eval()
    size = options["image_size"]
    picture = torch.empty(1, options["in_channels"], size, size, device="meta")
    kept = _kept(network, picture, options) * (2 if "16" in precision else 4)
    needed = 2 * _bytes(network) + (kept + 3 * 4 * picture.numel()) * batch_size  # 3: to normalise makes two copies
    remedy = f"lower {option('data.batch_size')} or {option('data.image_size')}, or raise {option('model.ratio')}"
    _check(needed, f"training on batches of {batch_size}", remedy)
    return needed


def checkpoint_bytes(model: L.LightningModule) -> int:
    """Return the bytes that a checkpoint of a Classifier takes: weights, their averages, what the optimizer keeps."""
    options = model.hparams
    kept = {"adam": 2, "adamw": 2}.get(options["optimizer"], bool(options["momentum"]))
    return _bytes(model) * (1 + bool(options["ema_decay"]) + kept)


def check_one_image(options: Mapping[str, Any]) -> None:
    """Raise UserError if a network cannot train on one image: where its maps have one pixel, BatchNorm needs two.

    Args:
        options: of the Classifier.
    """
    size = options["image_size"]
    try:
        network = copy.deepcopy(skeleton(**network_arguments(options))).float().train()
        network(torch.empty(1, options["in_channels"], size, size, dtype=torch.float32, device="meta"))
    except ValueError as error:
        normalizes = f"BatchNorm of {options['network']} has nothing to average in a batch of one image"
        raise UserError(f"{normalizes}: give {option('data.batch_size')} 2 or more, and none of one") from error
    except Exception:  # a network of the user's own need not run without memory
        if not is_own(options["network"]):
            raise


def _kept(network: nn.Module, picture: torch.Tensor, options: Mapping[str, Any]) -> int:
    """Return how many numbers the backward pass needs of one image at least; 0 if that cannot be known.

    Raises:
        UserError: if the network does not give a logit for each class.
    """
    kept = 0

    def count(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal kept
        kept += output.numel()

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d | nn.MaxPool2d):
            layer.register_forward_hook(count)
    try:
        logits = network(picture)
    except Exception:
        if is_own(options["network"]):
            return 0
        raise
    if tuple(getattr(logits, "shape", ())) != (1, options["num_classes"]):
        gives = tuple(getattr(logits, "shape", ())) or type(logits).__name__
        wanted = f"(N, {options['num_classes']}), a logit for each class"
        raise UserError(f"network {options['network']} gives {gives} for one image: it has to give {wanted}")
    return kept


def _bytes(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def _check(needed: int, what: str, remedy: str) -> None:
    free = free_memory()
    if needed > free:
        raise UserError(f"{what} would take at least {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free: {remedy}")
