"""The training loaders of a run, as Lightning holds them: what can be restored, and from which state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import lightning as L

from vgg_lightning.run.protocols import Restorable

Restores = Literal["position", "state", "nothing"]


def training_loaders(trainer: L.Trainer) -> Sequence[Any]:
    """Return the training loaders."""
    combined = trainer.fit_loop._combined_loader
    return combined.flattened if combined is not None else []


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


def restore_loaders(trainer: L.Trainer) -> None:
    """Restore what Lightning 2.6 has not.

    `Trainer.estimated_stepping_batches`, which schedules are made with, builds the loaders before the checkpoint's
    loops are read; their states are then left where they are. Call it in `on_train_start`.
    """
    loop = trainer.fit_loop
    if loop._combined_loader_states_to_load and loop.restarting and loop._data_fetcher is not None:
        loop._load_combined_loader_states()
        iter(loop._data_fetcher)  # the iterator at hand began with the first batch


def begin_epoch(trainer: L.Trainer) -> None:
    """Let the loaders begin now with an epoch for which Lightning made their iterators before training began.

    A loader may draw the order when its iterator is made: in `on_train_epoch_start`, once random numbers are seeded,
    the first epoch of a process then has the order that it has amid an unbroken run.
    """
    loop = trainer.fit_loop
    made_by_lightning = trainer.current_epoch > 0 and not loop.is_resuming and not loop.epoch_loop.restarting
    if not made_by_lightning and loop._data_fetcher is not None:
        iter(loop._data_fetcher)
