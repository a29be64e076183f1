"""The networks: one table from a name to a builder. Every builder returns a plain `nn.Module`.

To add one: write a class that takes `in_channels`, `num_classes` and `image_size` (and options of its own, all with
plain values as defaults), and give it a row: `NETWORKS["mine"] = Mine`. In this package it has a file here, named after
its paper; in a module of your own, `--import` lets the command line know it.

Imports `base` and torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from vgg_lightning.base import errors
from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.base.options import BELOW_ONE, fits, in_range
from vgg_lightning.networks.alexnet import AlexNet
from vgg_lightning.networks.batch_norm import BatchNorm
from vgg_lightning.networks.densenet import DenseNet
from vgg_lightning.networks.googlenet import GoogLeNet
from vgg_lightning.networks.init import INIT_SCHEMES, InitScheme, initialize
from vgg_lightning.networks.lenet import LeNet
from vgg_lightning.networks.nin import NiN
from vgg_lightning.networks.resnet import ResNet18
from vgg_lightning.networks.torchvision_weights import (
    fitting_torchvision_weights,
    is_of_torchvision,
    load_torchvision_weights,
)
from vgg_lightning.networks.vgg import OWN_BLOCKS, VGG, VGG_BLOCKS, Head
from vgg_lightning.networks.whitened_vgg import DeepWhitenedVGG, WhitenedVGG, WhiteningConv

__all__ = [
    "DROPOUT",
    "GIVEN",
    "INIT_SCHEMES",
    "NETWORKS",
    "Head",
    "InitScheme",
    "build_network",
    "fitting_torchvision_weights",
    "initialize",
    "is_of_torchvision",
    "is_own",
    "is_whitened",
    "load_torchvision_weights",
    "network_options",
    "option_type",
    "skeleton",
]

DROPOUT = BELOW_ONE  # of every network; at 1 nothing would be left
GIVEN = ("in_channels", "num_classes", "image_size")  # to every network
PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
Builder = Callable[..., nn.Module]


class Networks(dict[str, Builder]):
    """A table of networks. A row that is added to it is checked, and replaces none of those that it began with."""

    def __init__(self, rows: dict[str, Builder]) -> None:
        super().__init__(rows)
        self.shipped = frozenset(rows)

    def __setitem__(self, name: str, builder: Builder) -> None:
        """Add a network.

        Raises:
            UserError: if the name is taken, or the network cannot be built from plain values.
        """
        if name in self.shipped:
            raise UserError(f"the name {name!r} is taken by a network of vgg_lightning: choose another")
        parameters = inspect.signature(builder).parameters
        for given in GIVEN:
            if given not in parameters:
                raise UserError(f"network {name!r} does not take {given}: it is given {', '.join(GIVEN)}")
        for parameter in parameters.values():
            if (parameter.name not in GIVEN and type(parameter.default) not in PLAIN) or parameter.name == "name":
                takes = "each option takes a number, a word, true or false, and has one as its default"
                raise UserError(f"network {name!r}: its option {str(parameter)!r} cannot be given: {takes}")
        super().__setitem__(name, builder)


NETWORKS = Networks(
    {
        **{name: partial(VGG, arch) for name, arch in {**VGG_BLOCKS, **OWN_BLOCKS}.items()},
        "whitened_vgg": WhitenedVGG,
        "deep_whitened_vgg": DeepWhitenedVGG,
        "alexnet": AlexNet,
        "nin": NiN,
        "googlenet": GoogLeNet,
        "lenet": partial(LeNet, (nn.BatchNorm2d, nn.BatchNorm1d)),
        "lenet_scratch": partial(LeNet, (BatchNorm, BatchNorm)),
        "resnet18": ResNet18,
        "densenet": DenseNet,
    }
)


def network_options(name: str) -> dict[str, bool | int | float | str]:
    """Return the options of the network `name` with their defaults, `in_channels` and the like included.

    Raises:
        UserError: if the name is unknown.
    """
    if name not in NETWORKS:
        own = f"or {errors.option('import')} the module that adds it"
        near = nearest(name, NETWORKS)
        raise UserError(f"network {name!r} is unknown{near}: use one of {', '.join(NETWORKS)}, {own}")
    return {option: p.default for option, p in inspect.signature(NETWORKS[name]).parameters.items()}


def is_own(name: str) -> bool:
    """Return whether a network is the user's own: none of this package."""
    return name not in NETWORKS.shipped


def build_network(
    name: str,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: int = 224,
    **options: object,
) -> nn.Module:
    """Return the network `name`, which maps images to logits (N, num_classes).

    The images have the shape (N, in_channels, image_size, image_size).

    Args:
        name: a key of `NETWORKS`, such as "vgg11".
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels.
        options: what else the network's class takes, such as `ratio` and `batch_norm` of a VGG.

    Raises:
        UserError: if the name or an option is unknown, or if the options do not fit together.
    """
    known = network_options(name)
    options = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size, **options}
    for option, value in options.items():
        if option not in known:
            raise UserError(f"{name} has no option {option!r}{nearest(option, known)}: it has {', '.join(known)}")
        _check_kind(name, option, value)
        if not is_own(name):
            _check_range(option, value)
    try:
        return NETWORKS[name](**options)
    except Exception as error:
        if is_own(name) and not isinstance(error, UserError):
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UserError(f"network {name!r} cannot be built with these options: {said}") from error
        raise


def is_whitened(name: str) -> bool:
    """Return whether the first filters of a network are computed from images, all of them at once."""
    return any(isinstance(layer, WhiteningConv) for layer in skeleton(name).modules())


def skeleton(name: str, **options: object) -> nn.Module:
    """Return the network that `build_network` makes of the same arguments, without memory: shapes and no content.

    The last one is kept for who asks again. It is shared: copy it to change it.
    """
    key = repr((name, sorted(options.items())))
    if key not in _skeletons:
        with torch.device("meta"):
            made = build_network(name, **options)  # type: ignore[arg-type]  # plain values, checked there
        _skeletons.clear()
        _skeletons[key] = made
    return _skeletons[key]


_skeletons: dict[str, nn.Module] = {}


def option_type(name: str, option: str) -> Any:
    """Return the type of an option of the network `name`: that of its default, or of the user's own a Literal."""
    builder = getattr(NETWORKS[name], "func", NETWORKS[name])
    default = network_options(name)[option]
    if option in GIVEN:
        return int
    if is_own(name):
        try:
            function = inspect.unwrap(getattr(builder, "__init__", builder)) if isinstance(builder, type) else builder
            hint = get_type_hints(function).get(option)
        except Exception:  # names that only a type checker knows
            hint = None
        if get_origin(hint) is Literal:
            return hint
    return type(default)


def _check_kind(name: str, option: str, value: object) -> None:
    hint = option_type(name, option)
    if not fits(value, hint):
        takes = PLAIN.get(hint) or f"one of {', '.join(get_args(hint))}"
        raise UserError(f"{option} {value!r} is not possible: {name} takes {takes}")


def _check_range(option: str, value: object) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and option != "dropout" and value < 1:
        raise UserError(f"{option} {value} is too small: use 1 or more")
    if option == "dropout" and not (isinstance(value, int | float) and in_range(value, DROPOUT)):
        raise UserError(f"dropout {value} is not a probability below 1: it takes {DROPOUT.text}")
