"""Edits a checkpoint's loop counters, so that Lightning resumes a run at the exact batch.

Lightning 2.6 resumes exactly from a checkpoint that is saved in `on_train_batch_end` of any but the last batch of an
epoch, or at the end of an epoch. The functions here describe other places in these terms. They change the
dictionary that is about to be saved, not the loops.
"""

from __future__ import annotations

from typing import Any

from vgg_lightning.run.lightning_private import (
    before_validation,
    epochs_done,
    save_loader_states,
    saved_loader_states,
    take_back_batch,
    take_back_end_of_epoch,
)

__all__ = ["before_batch", "before_validation", "epochs_done", "exchange_weights", "within_epoch"]

Checkpoint = dict[str, Any]


def before_batch(checkpoint: Checkpoint, data: str = "", loaders: list[dict[str, Any]] | None = None) -> None:
    """Describe `on_train_batch_start` as the end of the batch before: the batch at hand is not begun.

    Args:
        checkpoint: is changed.
        data: the key under which Lightning saves the state of the data module.
        loaders: the states of the loaders before the batch at hand was read; by default a `position` in those of now
            goes back by one.
    """
    take_back_batch(checkpoint)
    if loaders is not None:
        save_loader_states(checkpoint, loaders)
        return
    for state in (checkpoint.get(data, {}), *saved_loader_states(checkpoint)):
        if "position" in state:
            state["position"] -= 1


def within_epoch(checkpoint: Checkpoint, loaders: list[dict[str, Any]] | None = None) -> None:
    """Describe the end of an epoch that was cut short as a place within it: its other batches are still to come.

    Args:
        checkpoint: is changed.
        loaders: the states of the loaders after its last batch, if they are other ones than now.
    """
    take_back_end_of_epoch(checkpoint)
    if loaders is not None:
        save_loader_states(checkpoint, loaders)


def exchange_weights(checkpoint: Checkpoint) -> None:
    """Put the averaged weights and those in training in their places while the model holds the averaged ones."""
    weights, averaged = checkpoint["state_dict"], checkpoint["current_model_state"]
    checkpoint["state_dict"], checkpoint["current_model_state"] = averaged, weights
