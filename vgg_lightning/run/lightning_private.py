"""All that this package uses of Lightning beyond its public interface, as seen to work in Lightning 2.6.6.

Each function or class says what the public interface lacks. tests/test_private.py holds each of them against the
installed version, so that the name of a failing test says what a new version has changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import lightning as L
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ThroughputMonitor, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.states import RunningStage
from torch.optim.swa_utils import AveragedModel

Saved = dict[str, Any]

# The loops of a Trainer.


def batches_begun(trainer: L.Trainer) -> int:
    """Return how many training batches were begun, in this process and in those from which it resumes.

    `trainer.global_step` counts steps of the optimizer, which are fewer where gradients are accumulated.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def batches_of_epoch(trainer: L.Trainer) -> float:
    """Return the training batches of an epoch, inf if unlimited: `num_training_batches` may not know yet."""
    if math.isinf(trainer.num_training_batches):
        trainer.fit_loop.setup_data()
    return trainer.num_training_batches


def steps_of_epoch(trainer: L.Trainer) -> int:
    """Return the steps of the optimizer in one epoch, of all of the training where batches are not counted."""
    batches = batches_of_epoch(trainer)
    if math.isinf(batches):
        return max(int(trainer.max_steps), 1)
    return math.ceil(batches / trainer.accumulate_grad_batches)


def accumulates(trainer: L.Trainer) -> bool:
    """Return whether the batch at hand leaves its gradients to a later one. Callbacks are not told."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def set_max_steps(trainer: L.Trainer, steps: int) -> None:
    """Let training end after so many steps, -1 for never. `trainer.max_steps` can only be read."""
    trainer.fit_loop.epoch_loop.max_steps = steps


def resumes_before_validation(trainer: L.Trainer) -> bool:
    """Return whether the run goes on from before a validation, which is still to come. Call it in `on_train_start`."""
    return trainer.fit_loop.epoch_loop.val_loop.restarted_mid_evaluation


def end_epoch_at_hand(trainer: L.Trainer) -> None:
    """Count the epoch within which a run goes on as ended: no batch of it is to come. Call it in `on_train_start`.

    Lightning then trains nothing and leaves its counts as if the epoch had not ended: what is logged afterwards, as by
    a test, would have another epoch and step than in the process that had ended it.
    """
    loop = trainer.fit_loop
    if not loop.restarted_mid_epoch:
        return
    loop.epoch_progress.increment_processed()
    loop.epoch_progress.increment_completed()
    if loop.epoch_loop.restarted_on_train_batch_end:
        loop.epoch_loop.batch_progress.increment_completed()
    loop.epoch_loop._batches_that_stepped += 1


def count_validation_batches_anew(trainer: L.Trainer) -> None:
    """Let the batches of a validation that is begun anew, after a resume, count once: Lightning leaves them one off."""
    trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()


def training_loaders(trainer: L.Trainer) -> Sequence[Any]:
    """Return the training loaders one by one: `trainer.train_dataloader` gives them as they were handed in."""
    combined = trainer.fit_loop._combined_loader
    return combined.flattened if combined is not None else []


def restore_loaders(trainer: L.Trainer) -> None:
    """Restore the training loaders where Lightning has not. Call it in `on_train_start`.

    `Trainer.estimated_stepping_batches`, which schedules are made with, builds the loaders before the checkpoint's
    loops are read; their states are then left where they are.
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


def attached_trainer(module: L.LightningModule) -> L.Trainer | None:
    """Return the Trainer of a module, or None where it has none: `module.trainer` raises there."""
    return module._trainer


def leave_signals_alone(trainer: L.Trainer) -> None:
    """Let Lightning handle no signal, and not ask the other processes about SIGTERM at every batch: no option does."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def guard_restoring(trainer: L.Trainer, guard: Callable[[], AbstractContextManager[None]]) -> None:
    """Let the Trainer take over a checkpoint within `guard`: its form, and all the states in it.

    No hook comes right before and after that, so a fault of the file could not be told from one of the program.
    """
    connector = trainer._checkpoint_connector

    def guarded(restore: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any, **options: Any) -> None:
            with guard():
                restore(connector, *args, **options)

        return run

    for name in ("_restore_modules_and_callbacks", "restore_training_state"):
        setattr(connector, name, guarded(getattr(type(connector), name)))


# The state of the loops in a checkpoint, for which Lightning documents no form.


def take_back_batch(checkpoint: Saved) -> None:
    """Let a checkpoint that is saved in `on_train_batch_start` say that the batch at hand has not begun."""
    loop = checkpoint["loops"]["fit_loop"]
    progress = loop["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts["ready"] -= 1
        counts["completed"] -= 1  # Lightning counts a batch as completed only after on_train_batch_end
    progress["is_last_batch"] = False
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # likewise


def saved_loader_states(checkpoint: Saved) -> list[Saved]:
    """Return the states of the training loaders, which those with a `state_dict` have saved."""
    found: list[Saved] = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
    return found


def save_loader_states(checkpoint: Saved, states: list[Saved]) -> None:
    """Put other states of the training loaders into a checkpoint."""
    checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"] = states


def before_validation(checkpoint: Saved) -> None:
    """Describe a place in a validation as one in its first batch, from which Lightning begins it anew."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts.update(ready=1, started=1, processed=0, completed=0)
    progress["is_last_batch"] = False


def epochs_finished(trainer: L.Trainer) -> int:
    """Return the number of whole epochs. `trainer.current_epoch` also counts one that max_steps or time cut short."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    return int(epochs.processed) - bool(batches_of_cut_epoch(trainer))


def batches_of_cut_epoch(trainer: L.Trainer) -> int:
    """Return the batches of an epoch that ended before its last batch and is counted; 0 if there is no such epoch."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    batches = trainer.fit_loop.epoch_loop.batch_progress
    counted = 0 < epochs.processed == epochs.started
    return int(batches.current.ready) if counted and not batches.is_last_batch else 0


def ends_epoch_early(trainer: L.Trainer) -> bool:
    """Return whether this is the end of an epoch before its last batch. Call it in `on_train_epoch_end`."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    return bool(batches_of_cut_epoch(trainer)) and epochs.completed < epochs.processed


def take_back_end_of_epoch(checkpoint: Saved) -> None:
    """Let a checkpoint that is saved in `on_train_epoch_end` say that the epoch continues with its last batch."""
    loop = checkpoint["loops"]["fit_loop"]
    for epochs in (loop["epoch_progress"]["total"], loop["epoch_progress"]["current"]):
        epochs["processed"] -= 1
    for batches in (loop["epoch_loop.batch_progress"]["total"], loop["epoch_loop.batch_progress"]["current"]):
        batches["completed"] -= 1  # as in on_train_batch_end, where Lightning continues
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # likewise


def batches_of_begun_epoch(checkpoint: Saved) -> int:
    """Return the training batches of the epoch within which a checkpoint was saved; 0 between two epochs."""
    loop = checkpoint["loops"]["fit_loop"]
    epochs = loop["epoch_progress"]["current"]
    begun = epochs["processed"] < epochs["started"]
    return int(loop["epoch_loop.batch_progress"]["current"]["ready"]) if begun else 0


def epochs_done(checkpoint: Saved) -> int:
    """Return the number of finished epochs. `checkpoint["epoch"]` is the same in an epoch and at its end."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


# Callbacks and loggers.


class BestModelCheckpoint(ModelCheckpoint):
    """ModelCheckpoint that looks at every validation, and whose `save_best` a subclass can guard.

    ModelCheckpoint leaves out a validation before the first step, and one at whose step it has saved already. Where
    gradients are accumulated over more batches than lie between two validations, such a validation may still be the
    best: BatchNorm's averages change with every batch.
    """

    def save_best(self, trainer: L.Trainer, metrics: dict[str, Any]) -> None:
        """Save a checkpoint if it is among the best, and forget the one that it takes the place of."""
        super()._save_topk_checkpoint(trainer, metrics)

    def _save_topk_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Any]) -> None:
        self.save_best(trainer, monitor_candidates)

    def _should_skip_saving_checkpoint(self, trainer: L.Trainer) -> bool:
        self._last_global_step_saved = -1
        return super()._should_skip_saving_checkpoint(trainer)


class MeasuringThroughput(ThroughputMonitor):
    """ThroughputMonitor that hands what it measures in training to `show`, instead of logging all of it."""

    def show(self, trainer: L.Trainer, measured: dict[str, Any]) -> None:
        """Take what was measured up to a step that is logged. A subclass says where it goes."""
        raise NotImplementedError

    def expect(self, flops: int | None) -> None:
        """Say how many operations per second the device can do, after `setup` has asked Lightning's table."""
        self.available_flops = flops
        for throughput in self._throughputs.values():
            throughput.available_flops = flops

    def _compute(self, trainer: L.Trainer, iter_num: int | None = None) -> None:
        if trainer.state.stage == RunningStage.TRAINING and trainer._logger_connector.should_update_logs:
            self.show(trainer, self._throughputs[RunningStage.TRAINING].compute())


def use_average(callback: WeightAveraging, average: AveragedModel) -> None:
    """Let a WeightAveraging keep its average in `average`: it makes one of torch's own class, on the CPU."""
    callback._average_model = average


def begin_new_file(logger: TensorBoardLogger) -> None:
    """Let a logger write what comes next into a new file of events: it never leaves one that has failed."""
    logger._experiment = None


# More than one process.


class ScriptLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher of the processes of a machine. Only what is one of them does it end after Ctrl-C."""


def share_cores(processes: int) -> None:
    """Give each process of a machine its share of the cores, unless OMP_NUM_THREADS says how many."""
    _set_num_threads_if_needed(processes)


# Hooks that do nothing: that Lightning leaves out those that are None is documented nowhere.

EVERY_STEP = (
    *("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_train_batch_end"),
)


def lean(callbacks: Iterable[Callback]) -> list[Callback]:
    """Return the callbacks without the hooks of every step that they inherit from `Callback` as they are.

    Lightning names and times each call, also of a hook that does nothing; it leaves out one that is not callable.
    """
    found = list(callbacks)
    for callback in found:
        for name in EVERY_STEP:
            if getattr(type(callback), name) is getattr(Callback, name):
                setattr(callback, name, None)
    return found
