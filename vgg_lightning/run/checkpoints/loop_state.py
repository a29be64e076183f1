"""Where in a run a checkpoint stands, in the words in which Lightning's loops read it.

Lightning 2.6 resumes exactly from a checkpoint that is saved in `on_train_batch_end` of any but the last batch of an
epoch, or at the end of an epoch. The functions here describe other places in these terms. They change the
dictionary that is about to be saved, not the loops.
"""

from __future__ import annotations

from typing import Any

Checkpoint = dict[str, Any]


def before_batch(checkpoint: Checkpoint, data: str = "", loaders: list[dict[str, Any]] | None = None) -> None:
    """Describe `on_train_batch_start` as the end of the batch before: the batch at hand is not begun.

    Args:
        checkpoint: is changed.
        data: the key under which Lightning saves the state of the data module.
        loaders: the states of the loaders before the batch at hand was read; by default a `position` in those of now
            goes back by one.
    """
    loop = checkpoint["loops"]["fit_loop"]
    progress = loop["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts["ready"] -= 1
        counts["completed"] -= 1  # Lightning counts a batch as completed only after on_train_batch_end
    progress["is_last_batch"] = False
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # likewise
    if loaders is not None:
        loop["state_dict"]["combined_loader"] = loaders
        return
    for state in (checkpoint.get(data, {}), *loop["state_dict"].get("combined_loader", [])):
        if "position" in state:
            state["position"] -= 1


def before_validation(checkpoint: Checkpoint) -> None:
    """Describe a place in a validation as one in its first batch, from which Lightning starts it anew."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts.update(ready=1, started=1, processed=0, completed=0)
    progress["is_last_batch"] = False


def exchange_weights(checkpoint: Checkpoint) -> None:
    """Put the averaged weights and those in training in their places while the model holds the averaged ones."""
    weights, averaged = checkpoint["state_dict"], checkpoint["current_model_state"]
    checkpoint["state_dict"], checkpoint["current_model_state"] = averaged, weights


def epochs_done(checkpoint: Checkpoint) -> int:
    """Return the number of finished epochs."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
