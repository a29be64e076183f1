"""VGG on Fashion-MNIST with PyTorch Lightning.

The names below are loaded when they are first used, so that the command line answers before torch is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vgg_lightning import moved
from vgg_lightning.version import __version__

if TYPE_CHECKING:
    from vgg_lightning.classifier import Classifier, load_classifier
    from vgg_lightning.data.datamodule import FashionMNISTDataModule
    from vgg_lightning.networks import build_network

__all__ = ["Classifier", "FashionMNISTDataModule", "__version__", "build_network", "load_classifier"]

_HOMES = {
    "Classifier": "vgg_lightning.classifier",
    "FashionMNISTDataModule": "vgg_lightning.data.datamodule",
    "build_network": "vgg_lightning.networks",
    "load_classifier": "vgg_lightning.classifier",
}

moved.install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
