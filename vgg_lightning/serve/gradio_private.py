"""All that this package uses of Gradio beyond its public interface, as seen to work in Gradio 6.31.

tests/test_private.py holds it against the installed version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def take_as_sent(component: Any, read: Callable[[Any], Any]) -> None:
    """Let `read` make of what the browser sends to a component what the page's function gets, and nobody else.

    Gradio would decode images itself; before that it would fetch an address, and copy a file from anywhere, if a
    call asks for it. No option of a component turns either off.
    """
    component.preprocess = read
    component.async_move_resource_to_block_cache = _as_it_came


async def _as_it_came(path: Any) -> Any:
    return path
