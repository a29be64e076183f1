"""What the output is shown on: colour for a terminal, unless NO_COLOR asks for none (https://no-color.org)."""

from __future__ import annotations

import os
from typing import TextIO


def bar_colour(stream: TextIO) -> str | None:
    """Return the colour of a bar on `stream`, None for no colour."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return None if plain else "green"
