"""The legal ranges of a Classifier's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from vgg_lightning.base.errors import UserError, option

Range = tuple[Callable[[float], bool], str]

_POSITIVE: Range = (lambda value: value > 0, "a positive number")
_NOT_NEGATIVE: Range = (lambda value: value >= 0, "zero or a positive number")
_BELOW_ONE: Range = (lambda value: 0 <= value < 1, "at least 0 and less than 1")
_SHARE: Range = (lambda value: 0 <= value <= 1, "0 to 1")
_COUNT: Range = (lambda value: value >= 1, "1 or more")

RANGES: dict[str, Range] = {
    "lr": _POSITIVE,
    "weight_decay": _NOT_NEGATIVE,
    "warmup_epochs": _NOT_NEGATIVE,
    "momentum": _BELOW_ONE,
    "dropout": _BELOW_ONE,
    "label_smoothing": _BELOW_ONE,
    "ema_decay": _BELOW_ONE,
    "lookahead_steps": _NOT_NEGATIVE,
    "bias_lr_factor": _POSITIVE,
    "schedule_end": _SHARE,
    "sam_rho": _NOT_NEGATIVE,
    "distill": _SHARE,
    "distill_temperature": _POSITIVE,
    "poolings": _COUNT,
    "ratio": _COUNT,
    "hidden_units": _COUNT,
    "in_channels": _COUNT,
    "num_classes": _COUNT,
    "image_size": _COUNT,
}


def check_ranges(options: Mapping[str, float]) -> None:
    """Raise UserError for the first option that is not finite or out of its range."""
    for name, (fits, remedy) in RANGES.items():
        if not (math.isfinite(options[name]) and fits(options[name])):
            raise UserError(f"{name} {options[name]} is out of range: {option(f'model.{name}')} takes {remedy}")
