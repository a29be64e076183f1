"""What one sees on stderr while data is fetched: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import TypeAlias

from tqdm import tqdm  # type: ignore[import-untyped]

Bar: TypeAlias = tqdm


def say(text: str) -> None:
    """Print a line on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def bar(text: str, total: float | None, unit: str = "B") -> Bar:
    """Return a progress bar; where stderr is no terminal, print `text` and return a silent one."""
    progress = tqdm(total=total, desc=text, unit=unit, unit_scale=True, leave=False, disable=None)
    if progress.disable:
        say(text)
    return progress
