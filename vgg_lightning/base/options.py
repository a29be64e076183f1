"""Metadata of options: one row for each, in addition to the signature of the class or the parser."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from vgg_lightning.base.errors import UserError, nearest, option


class Range(NamedTuple):
    """The values that fit, and a phrase that says which these are; it may end with the name of another option."""

    fits: Callable[[Any], bool]
    text: str
    other: str = ""

    @property
    def phrase(self) -> str:
        """The whole phrase, with the other option as its reader knows it."""
        return f"{self.text} {option(self.other)}" if self.other else self.text


Resumed = Literal["obeyed", "kept", "refused", "ignored"]
# What a resumed run does with an option, in the words of the docs.
RESUMED: dict[Resumed, str] = {
    "obeyed": "the new value is used from here on",
    "kept": "the checkpoint decides, for `validate`, `test` and `predict` too; another value is refused",
    "refused": "the run decides; another value is refused",
    "ignored": "applied only when the run began; a message says that another value changes nothing",
}


@dataclass(frozen=True)
class Option:
    """A row. Name, type, default and meaning of the option stand in the signature.

    Attributes:
        takes: the range of its numbers.
        choices: its words.
        resumed: what a resumed run does with it; "kept" is what the weights, or what they see, depend on.
        place: a path on this machine, which no checkpoint holds and which is never taken from a file from elsewhere.
        local: differs from machine to machine, or says nothing about the training: a preset leaves it out.
        launch: belongs to one launch of a run, not to the run.
        apart: may differ between the processes of a run.
        follows: the option that sets it on the command line.
        fsdp: the values with which the weights can be shared among processes, and what is said of the others.
        idle: why another value than the default changes nothing here.
    """

    takes: Range | None = None
    choices: Collection[str] = ()
    resumed: Resumed = "obeyed"
    place: bool = False
    local: bool = False
    launch: bool = False
    apart: bool = False
    follows: str = ""
    fsdp: Range | None = None
    idle: str = ""


Rows = Mapping[str, Option]


COUNT = Range(lambda value: value >= 1, "1 or more")
POSITIVE = Range(lambda value: value > 0, "a positive number")
NOT_NEGATIVE = Range(lambda value: value >= 0, "zero or a positive number")
BELOW_ONE = Range(lambda value: 0 <= value < 1, "at least 0 and less than 1")
SHARE = Range(lambda value: 0 <= value <= 1, "0 to 1")
SEED = Range(lambda value: 0 <= value < 2**32, f"0 to {2**32 - 1}")  # what NumPy takes


def in_range(value: float, takes: Range) -> bool:
    """Return whether a number is finite and in a range."""
    return (isinstance(value, int) or math.isfinite(value)) and takes.fits(value)


def check(group: str, rows: Rows, options: Mapping[str, Any]) -> None:
    """Raise UserError for the first option that is not finite, out of its range or no choice.

    Args:
        group: of the options, such as "model".
        rows: of the options.
        options: their values by name.
    """
    for name, row in rows.items():
        if row.takes and options[name] is not None and not in_range(options[name], row.takes):
            named = option(f"{group}.{name}")
            raise UserError(f"{name} {options[name]} is out of range: {named} takes {row.takes.phrase}")
    for name, row in rows.items():
        if row.choices and options[name] not in row.choices:
            near, named = nearest(str(options[name]), row.choices), option(f"{group}.{name}")
            raise UserError(f"{name} {options[name]!r} is unknown{near}: {named} takes {', '.join(row.choices)}")


def without_group(group: str, args: Sequence[str]) -> list[str]:
    """Return arguments with --NAME for --GROUP.NAME, for a subcommand that has options of one group alone."""
    return [f"--{arg.removeprefix(f'--{group}.')}" if arg.startswith(f"--{group}.") else arg for arg in args]


LONGEST = 1000  # characters of a string or parts of a list or table: more is no option of ours


def fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value is of the type that an option declares; no subclass passes for one."""
    if get_origin(hint) in (Union, UnionType):
        return any(fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return type(value) is str and value in get_args(hint)
    if get_origin(hint) is list:
        return type(value) is list and len(value) <= LONGEST and all(fits(v, get_args(hint)[0]) for v in value)
    if get_origin(hint) is dict:
        if type(value) is not dict or len(value) > LONGEST:
            return False
        key, kind = get_args(hint)
        return all(fits(k, key) and fits(v, kind) for k, v in value.items())
    if hint is float:
        return type(value) in (int, float)
    if hint is str:
        return type(value) is str and len(value) <= LONGEST
    return type(value) is hint
