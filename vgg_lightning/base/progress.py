"""Progress bars on a terminal, plain lines elsewhere; in colour unless NO_COLOR is set (https://no-color.org)."""

from __future__ import annotations

import os
import sys
from typing import TextIO, TypeAlias

from tqdm import tqdm

from vgg_lightning.base import text as render

Bar: TypeAlias = tqdm


def bar_colour(stream: TextIO) -> str | None:
    """Return the colour of a bar on `stream`, None for no colour."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return None if plain else "green"


def say(text: str) -> None:
    """Print a line on stderr, at once, whatever names it holds."""
    render.say(text, sys.stderr)


def bytes_bar(name: str, source: str, total: int | None) -> Bar:
    """Return a bar that counts the bytes of a download; where stderr is no terminal, print a line instead."""
    colour = bar_colour(sys.stderr)
    progress = tqdm(total=total, desc=name, unit="B", unit_scale=True, leave=False, disable=None, colour=colour)
    if progress.disable:
        size = f" ({tqdm.format_sizeof(total, 'B')})" if total else ""
        say(f"downloading {source}{size}")
    return progress


def items_bar(text: str, total: int) -> Bar:
    """Return a bar that counts items, with the time left; where stderr is no terminal, print `text` instead."""
    progress = tqdm(total=total, desc=text, leave=False, disable=None)
    if progress.disable:
        say(f"{text} ({total:,})")
    return progress


def percent_bar(text: str) -> Bar:
    """Return a bar from 0 to 100; where stderr is no terminal, print `text` instead."""
    form = "{l_bar}{bar}| {elapsed}<{remaining}"
    progress = tqdm(total=100, desc=text, bar_format=form, leave=False, disable=None, colour=bar_colour(sys.stderr))
    if progress.disable:
        say(text)
    return progress


def counting_bar(text: str, total: int) -> Bar:
    """Return a bar that counts things done; where stderr is no terminal there is none."""
    return tqdm(total=total, desc=text, leave=False, disable=None, colour=bar_colour(sys.stderr))
