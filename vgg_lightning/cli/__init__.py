"""The command line: parser, messages, and one file for each subcommand that needs no room of its own.

Imports everything below: `prepare`, the project, the run kit and the ground; and `presets`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgg_lightning.cli.lightning import TRAINER_DEFAULTS, VGGLightningCLI, main, quiet, silence

__all__ = ["TRAINER_DEFAULTS", "VGGLightningCLI", "main", "quiet", "silence"]


def __getattr__(name: str) -> Any:  # when first used, so that the command line answers before torch is imported
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("vgg_lightning.cli.lightning"), name)
