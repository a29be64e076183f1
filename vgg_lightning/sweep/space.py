"""The space of a search: a YAML file that gives options of `fit` a range or a list to choose from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.base.options_file import read_options

LARGEST = 100_000  # bytes
DEEPEST = 5  # lists and tables within each other
RANGE = ("low", "high", "log", "step")
EXAMPLE = "write a range {low: 0.01, high: 1.0, log: true} or a list [64, 128]"

Space = dict[str, BaseDistribution]


def read_space(file: Path, hints: Mapping[str, tuple[type, ...]]) -> Space:
    """Return option -> distribution.

    Args:
        file: YAML, such as `model.lr: {low: 0.01, high: 1.0, log: true}` and `data.batch_size: [64, 128]`.
        hints: option of `fit` -> the kinds of number (int, float) that it takes, none for words and lists.

    Raises:
        UserError: if the file or an entry is none, or an option is unknown.
    """
    space: Space = {}
    for option, entry in _read(file).items():
        if option not in hints:
            raise UserError(f"{file}: fit has no option {option!r}{nearest(str(option), hints)}")
        try:
            if option.startswith("trainer."):
                _check_no_class(entry)
            space[option] = _distribution(entry, hints[option])
        except (UserError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{file}: {option}: {' '.join(str(error).split())[:200]}") from error
    return space


def describe(space: Space) -> dict[str, Any]:
    """Return the space as plain values, to compare it with that of an earlier launch."""
    from optuna.distributions import distribution_to_json

    return {name: json.loads(distribution_to_json(space[name])) for name in sorted(space)}


def extremes(distribution: BaseDistribution) -> list[Any]:
    """Return the values of a distribution at which a mistake would show: both ends, or all choices."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return list(dict.fromkeys((distribution.low, distribution.high)))


def argument(value: object) -> str:
    """Return a value as one types it on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _read(file: Path) -> dict[Any, Any]:
    found = read_options(file, f"the space {file}", LARGEST, DEEPEST, aliases=False)
    if not isinstance(found, dict) or not found:
        raise UserError(
            f"{file} is not a search space: for each option to search {EXAMPLE}, such as `model.lr: [0.1, 0.2]`"
        )
    return found


def _check_no_class(entry: object) -> None:
    """Refuse what the Trainer would take for the name of a class, which it imports: any word with a dot, any table."""
    values = entry if isinstance(entry, list) else []
    parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
    for part in parts:
        number = part is None or isinstance(part, bool | int | float)
        if not (number or (isinstance(part, str) and re.fullmatch(r"[\w:, -]{1,100}", part))):
            raise UserError(f"{part!r} may import a class, which a space cannot: name it on the command line")


def _distribution(entry: object, kinds: tuple[type, ...]) -> BaseDistribution:
    if isinstance(entry, list):
        return CategoricalDistribution(_choices(entry))
    if isinstance(entry, dict):
        return _range(entry, kinds)
    raise UserError(f"{entry!r} is not a range: {EXAMPLE}; give fixed options on the command line")


def _choices(entry: list[Any]) -> list[Any]:
    if not entry:
        raise UserError("the list is empty: give it values to choose from")
    choices = [json.dumps(value) if isinstance(value, list) else value for value in entry]
    for value in choices:
        if not (value is None or isinstance(value, bool | int | float | str)):
            raise UserError(f"{value!r} is not a plain value")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{value} is NaN or Inf")
    if len({(type(value), value) for value in choices}) < len(choices):
        raise UserError("a value stands twice in the list")
    return choices


def _range(entry: dict[Any, Any], kinds: tuple[type, ...]) -> BaseDistribution:
    for key in entry:
        if key not in RANGE:
            raise UserError(f"{key!r} is unknown{nearest(str(key), RANGE)}: a range has {', '.join(RANGE)}")
    if missing := [key for key in ("low", "high") if key not in entry]:
        raise UserError(f"the range has no {' and no '.join(missing)}")
    if not kinds:
        raise UserError("it takes no number: give a list of words to choose from")
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"log takes true or false, got {log!r}")
    bounds = {key: _number(key, entry[key]) for key in ("low", "high", "step") if key in entry}
    _check_bounds(bounds, log)
    whole = all(float(value).is_integer() for value in bounds.values())
    if float not in kinds or (int in kinds and all(isinstance(value, int) for value in bounds.values())):
        if not whole:
            raise UserError("it takes whole numbers")
        return IntDistribution(**{key: int(value) for key, value in bounds.items()}, log=log)
    return FloatDistribution(**{key: float(value) for key, value in bounds.items()}, log=log)


def _check_bounds(bounds: dict[str, int | float], log: bool) -> None:
    low, high, step = bounds["low"], bounds["high"], bounds.get("step")
    if low > high:
        raise UserError(f"low {low} is above high {high}")
    if log and low <= 0:
        raise UserError(f"low {low}: with log it must be positive")
    if log and step is not None:
        raise UserError("log and step do not go together: leave one out")
    if step is not None and step <= 0:
        raise UserError(f"step {step} must be positive")


def _number(key: str, value: object) -> int | float:
    """Return a number, also one such as 1e-3, which YAML takes for a word."""
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise UserError(f"{key} takes a finite number, got {value!r}")
    return number
