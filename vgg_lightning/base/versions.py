"""Versions of the libraries that a run uses."""

from __future__ import annotations

import platform

from vgg_lightning.version import __version__


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import lightning
    import torch
    import torchvision

    return {
        "vgg_lightning": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "lightning": lightning.__version__,
    }
