"""Which curves stood together in TensorBoard's tab CUSTOM SCALARS; since then one chart has them without it."""

from __future__ import annotations

from typing import Any

from vgg_lightning.show.base import Show

CHARTS: dict[str, Any] = {}


class Layout(Show):
    """Shows nothing: scripts of before may name it."""
