"""The training loaders of a run: which can be restored, and from which state."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L

from vgg_lightning.run.lightning_private import training_loaders
from vgg_lightning.run.protocols import Restorable

Restores = Literal["position", "state", "nothing"]


def loader_states(trainer: L.Trainer) -> list[dict[str, Any]]:
    """Return the states of the loaders as a checkpoint has them."""
    return [loader.state_dict() for loader in training_loaders(trainer) if isinstance(loader, Restorable)]


def restores(trainer: L.Trainer) -> Restores:
    """Return what brings the loaders back: a position (which can go back by a batch), a state, or nothing."""
    data: Any = getattr(trainer, "datamodule", None)
    if data is not None and "position" in data.state_dict():
        return "position"
    if unrestorable(trainer):
        return "nothing"
    return "position" if all("position" in state for state in loader_states(trainer)) else "state"


def unrestorable(trainer: L.Trainer) -> list[str]:
    """Return the classes of the loaders that cannot be restored."""
    return [type(loader).__name__ for loader in training_loaders(trainer) if not isinstance(loader, Restorable)]
