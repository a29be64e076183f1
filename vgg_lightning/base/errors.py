"""Errors that a user can fix: one line that names the option and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_typed = False  # whether the options are those of a command line


class UserError(ValueError):
    """Bad input. Its text is one line; the command line prints it and exits with code 2.

    Attributes:
        everywhere: all processes of a run raise it at once, so that one of them is enough to say it.
    """

    everywhere = False


class LostProcessError(RuntimeError):
    """Another process of the run has ended.

    Args:
        text: what is known of it, in one line; empty if it has said why itself.
        code: with which to exit.
    """

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


class NonFiniteError(ArithmeticError):
    """A loss, a gradient or a weight is infinite or not a number; the command line exits with code 3."""


@contextmanager
def command_line() -> Iterator[None]:
    """Let `option` speak of the command line's options: a reader of these messages typed them."""
    global _typed
    before, _typed = _typed, True
    try:
        yield
    finally:
        _typed = before


def option(name: str) -> str:
    """Return how a message names an option.

    Args:
        name: with its group, such as "data.batch_size".

    Returns:
        "--data.batch_size" below the command line; "batch_size", the argument, for who calls from Python.
    """
    return f"--{name}" if _typed else name.rpartition(".")[2]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean X?)" for the known word closest to `word`, or an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]}?)" if matches else ""
