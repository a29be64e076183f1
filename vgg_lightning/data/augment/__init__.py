"""Augmentation of whole batches of uint8 images (N, C, H, W) on the device where they lie.

Every augmentation is a function of a batch and a seeded generator, and treats each image by draws of its own.
Torchvision's transforms v2 are not used here: for a batch they draw one set of parameters, from the global generator.
To add one: write a function with `generator`, `place` and its parameters, and give it a row below.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vgg_lightning.base.errors import UserError, nearest, option
from vgg_lightning.base.seeds import derive_seed
from vgg_lightning.data.augment.mixes import cutmix, mixup
from vgg_lightning.data.augment.moves import alternating_flip, crop, flip, shift
from vgg_lightning.data.augment.patches import FILL, cutout, erase
from vgg_lightning.data.augment.photo import photo
from vgg_lightning.data.augment.place import Place
from vgg_lightning.data.augment.warps import affine, randaugment, tone

__all__ = ["AUGMENTATIONS", "MIXES", "Augment", "Place"]

AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "flip": flip,
    "alternating_flip": alternating_flip,
    "shift": shift,
    "crop": crop,
    "erase": erase,
    "cutout": cutout,
    "affine": affine,
    "tone": tone,
    "randaugment": randaugment,
    "photo": photo,
}
MIXES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"mixup": mixup, "cutmix": cutmix}

# The smallest and the largest value of every parameter.
LIMITS: dict[str, tuple[float, float]] = {
    **{"p": (0, 1), "least": (0, 1), "most": (0, 1), "magnitude": (0, 1), "light": (0, 1), "contrast": (0, 1)},
    **{"pixels": (0, 14), "size": (1, 28), "degrees": (0, 180), "shear": (0, 60), "scale": (0, 0.9)},
    **{"ops": (1, 10), "alpha": (0.01, 100)},
}
MIX_STREAM = 2  # of random numbers, apart from the one of the augmentations


class Augment:
    """Applies augmentations, in order, to batches of uint8 images; mixes come last.

    Args:
        names: keys of `AUGMENTATIONS` and `MIXES`, each with the values of its parameters behind colons if not the
            defaults: "flip", "crop:3", "erase:0.5:0.02:0.4".
        num_classes: of the targets that mixes make of the labels.
        fill: grey level, 0 to 255, under which `erase` and `cutout` hide a part: the mean of the training images.

    Raises:
        UserError: if a name is unknown, or a value is no number or out of its range.
    """

    def __init__(self, names: Sequence[str], num_classes: int = 10, fill: int = FILL) -> None:
        known: dict[str, Callable[..., Any]] = {**AUGMENTATIONS, **MIXES}
        self.steps = [_filling(_bound(text, known), fill) for text in names if text.partition(":")[0] not in MIXES]
        self.mixes = [_bound(text, known) for text in names if text.partition(":")[0] in MIXES]
        self.num_classes = num_classes

    def __call__(self, images: Tensor, place: Place) -> Tensor:
        """Return the augmented batch, not yet mixed; the same place gives the same batch."""
        seed = derive_seed(place.seed, place.epoch, place.batch, place.rank)
        generator = torch.Generator(images.device).manual_seed(seed)
        for step in self.steps:
            images = step(images, generator, place)
        return images

    def mix(self, images: Tensor, labels: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Return mixed images and their targets, float32 (N, num_classes); without mixes, what was given."""
        if not self.mixes:
            return images, labels
        seed = derive_seed(place.seed, place.epoch, place.batch, place.rank, MIX_STREAM)
        generator = torch.Generator(images.device).manual_seed(seed)
        targets = F.one_hot(labels, self.num_classes).float()
        for mix in self.mixes:
            images, targets = mix(images, targets, generator)
        return images, targets


def _filling(step: Callable[..., Tensor], fill: int) -> Callable[..., Tensor]:
    return partial(step, fill=fill) if "fill" in inspect.signature(step).parameters else step


def _bound(text: str, known: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Return the augmentation that `text` names, with its parameters."""
    name, *values = text.split(":")
    if name not in known:
        raise UserError(
            f"augmentation {name!r} is unknown{nearest(name, known)}: "
            f"{option('data.augment')} takes a list of {', '.join(known)}"
        )
    parameters = [p for p in inspect.signature(known[name]).parameters.values() if p.name in LIMITS]
    form = ":".join([name, *(p.name.upper() for p in parameters)])
    if len(values) > len(parameters):
        raise UserError(f"augmentation {text!r} has too many values: {option('data.augment')} takes it as {form}")
    bound = {p.name: _value(text, form, p, value) for p, value in zip(parameters, values, strict=False)}
    return partial(known[name], **bound)


def _value(text: str, form: str, parameter: inspect.Parameter, value: str) -> float:
    low, high = LIMITS[parameter.name]
    kind = type(parameter.default)
    try:
        number: float = kind(value)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        whole = "a whole number" if kind is int else "a number"
        raise UserError(
            f"augmentation {text[:60]!r} is out of range: {option('data.augment')} takes it as {form}, "
            f"and {parameter.name.upper()} is {whole} from {low} to {high}"
        )
    return number
