"""The precision of a run: one name for it, what `auto` stands for, and whether a device should compute in it.

Nothing here needs Lightning, which subcommands without a Trainer do not load.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch

from vgg_lightning.base.errors import option
from vgg_lightning.base.process import seat
from vgg_lightning.base.text import say
from vgg_lightning.run import bfloat16

DEFAULT = "32-true"
AUTO = "auto"  # bf16-mixed where the processor has instructions for it, else DEFAULT: what presets ask for
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true")
SHORT = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}  # as Lightning reads them


def unified(precision: Any) -> Any:
    """Return the one name of a precision, of which Lightning knows short forms: 16, "bf16"."""
    return None if precision is None else SHORT.get(str(precision), precision)


def usable(precision: Any, on_cpu: bool) -> Any:
    """Return the precision that a device computes in when it is asked for this one: no CPU has mixed float16."""
    precision = unified(precision)
    return "bf16-mixed" if on_cpu and precision == "16-mixed" else precision


@functools.cache
def chosen(on_cpu: bool) -> str:
    """Return what `AUTO` stands for here: bf16-mixed on a CPU with instructions for it, unless they err; else DEFAULT.

    An error of theirs is said, once.
    """
    why = bfloat16.fault() if on_cpu else bfloat16.EMULATED
    if why not in ("", bfloat16.EMULATED) and not seat().rank:
        say(f"note: {option('trainer.precision')} {AUTO} is {DEFAULT}, not bf16-mixed: {why}", sys.stderr)
    return DEFAULT if why else "bf16-mixed"


def evaluated_in(precision: str) -> str:
    """Return the precision in which a model that was trained in `precision` is evaluated: never less than float32."""
    return "64-true" if precision == "64-true" else DEFAULT


def fault(precision: str, device: torch.device) -> str:
    """Return why a device should not compute in a precision: it emulates bfloat16, or errs; nothing if it may."""
    if not precision.startswith("bf16"):
        return ""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "" if native else "this cuda only emulates it, and is faster with 32-true"
    return bfloat16.fault() if device.type == "cpu" else ""
