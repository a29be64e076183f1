"""The options in a file from elsewhere: plain values of the declared types, and nothing but them."""

from __future__ import annotations

import inspect
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vgg_lightning.base.errors import UserError
from vgg_lightning.data import options as data
from vgg_lightning.training import options as training

# A file that holds a path would make us read or write there.
NEVER_TAKEN = {*training.PLACES, *data.PLACES}
LONGEST = 1000  # characters of a string or parts of a list: more is no option of ours


def checked_options(found: Any, owner: type, where: str = "the checkpoint") -> dict[str, Any]:
    """Return `found` if it is a table of options of `owner`.

    Args:
        found: what a file holds in the place of its options.
        owner: the class whose `__init__` takes them.
        where: what to call the file.

    Raises:
        UserError: for anything else: an unknown name, a value of another type.
    """
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{where} is refused: its options are not a table of names and values")
    hints = get_type_hints(owner.__init__)  # type: ignore[misc]
    known = inspect.signature(owner).parameters.keys() - NEVER_TAKEN
    for name, value in found.items():
        if name not in known:
            raise UserError(f"{where} is refused: {owner.__name__} has no option {name[:80]!r}")
        if not fits(value, hints[name]):
            raise UserError(f"{where} is refused: its option {name!r} is not of the type {_name(hints[name])}")
    return dict(found)


def fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value is of the type that an option declares; no subclass passes for one."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return type(value) is str and value in get_args(hint)
    if get_origin(hint) is list:
        return type(value) is list and len(value) <= LONGEST and all(fits(v, get_args(hint)[0]) for v in value)
    if hint is float:
        return type(value) in (int, float)
    if hint is str:
        return type(value) is str and len(value) <= LONGEST
    return type(value) is hint


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
