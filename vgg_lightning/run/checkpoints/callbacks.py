"""best.ckpt and last.ckpt: the best epoch, and the newest state from which a run resumes exactly."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn

from vgg_lightning.base.errors import NonFiniteError, UserError, option
from vgg_lightning.base.process import seat
from vgg_lightning.base.progress import say
from vgg_lightning.run import collectives, lightning_private, signals
from vgg_lightning.run.checkpoints.io import CheckpointNotWrittenError, go_back_to, previous_of
from vgg_lightning.run.checkpoints.loaders import Restores, loader_states, restores, unrestorable
from vgg_lightning.run.checkpoints.loop_state import before_batch, before_validation, exchange_weights, within_epoch
from vgg_lightning.run.checkpoints.read import damage

LIKE_WEIGHTS = {"momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg", "acc_delta"}
COST = 0.01  # share of the time that saves by the clock may take


class Restoring(Callback):
    """Refuses a checkpoint whose state cannot be restored, in one line; what the state must fit is the run itself."""

    def __init__(self) -> None:
        self._saved: dict[str, int | None] = {}  # how many states there are

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Be there when the checkpoint is used."""
        lightning_private.guard_restoring(trainer, lambda: _refusing(trainer))

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what the optimizers will be restored from."""
        for key in ("optimizer_states", "lr_schedulers"):
            states = checkpoint.get(key, [])
            self._saved[key] = len(states) if isinstance(states, list) else None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse what Lightning would leave out without a word: fewer states than there are optimizers or schedules."""
        for key, there in (("optimizer_states", trainer.optimizers), ("lr_schedulers", trainer.lr_scheduler_configs)):
            if self._saved and self._saved[key] != len(there):
                raise _refused(trainer, f"it does not have {len(there)} {key}")
        self._saved = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse states of torch's own optimizers that have another shape than their weights."""
        for optimizer in trainer.optimizers if trainer.ckpt_path else []:
            for weight, state in optimizer.state.items():
                for name in LIKE_WEIGHTS & state.keys():
                    if type(optimizer).__module__.startswith("torch.optim") and state[name].shape != weight.shape:
                        raise _refused(trainer, f"{name} of its optimizer has the shape {tuple(state[name].shape)}")


@contextlib.contextmanager
def _refusing(trainer: L.Trainer) -> Iterator[None]:
    try:
        yield
    except (UserError, NonFiniteError, OSError, torch.OutOfMemoryError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, RuntimeError) as error:
        if trainer.ckpt_path is None or collectives.is_loss(error):
            raise
        what = " ".join(str(error).split())[:200]
        raise _refused(trainer, f"its state cannot be restored ({type(error).__name__}: {what})") from error


def _refused(trainer: L.Trainer, why: str) -> UserError:
    error = UserError(f"{trainer.ckpt_path} is refused: {why}")
    error.everywhere = True
    return error


class BestCheckpoint(lightning_private.BestModelCheckpoint):
    """Keeps the best epoch. A save that fails is said and tried again with the next better epoch.

    Args:
        folder: where best.ckpt goes.
        monitor: the logged metric that decides.
        mode: "max" if more of it is better, else "min".
    """

    def __init__(self, folder: Path, monitor: str = "val_acc", mode: Literal["max", "min"] = "max") -> None:
        super().__init__(folder, filename="best", monitor=monitor, mode=mode, enable_version_counter=False)
        self.failed = False
        self._validated = False  # since the epoch before

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that there is a value to go by."""
        self._validated = self._validated or not trainer.sanity_checking
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, unless the epoch ended before its validation: the value at hand is that of other weights."""
        if self._validated or not sum(trainer.num_val_batches):  # of one kind of loader it is a list
            super().on_train_epoch_end(trainer, pl_module)
        self._validated = False

    def save_best(self, trainer: L.Trainer, metrics: dict[str, Any]) -> None:
        """Save the epoch if it is the best so far."""
        before = {**self.state_dict(), "best_k_models": dict(self.best_k_models)}
        try:
            _check_run_folder(Path(str(self.dirpath)) / "best.ckpt")
            super().save_best(trainer, metrics)
            self.failed = False
        except CheckpointNotWrittenError as error:
            self.failed = True
            self._take(before)  # best.ckpt is still the epoch that it was
            _say(trainer, f"{error}; training continues")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best epoch so far, also where the run folder has been moved, unless its file is lost.

        A process that was killed between writing best.ckpt and last.ckpt leaves one of an epoch that the run, as it
        resumes from last.ckpt, has not had: then the best one is that before it.
        """
        file = Path(str(self.dirpath)) / "best.ckpt"
        if state_dict["best_model_path"]:
            score = state_dict["best_model_score"]
            found = next((f for f in (file, previous_of(file)) if self._belongs(f, score)), None)
            if found is None:
                say(f"{file} is lost, damaged or of another epoch: the best epoch from here on takes its place")
                return
            if found != file and seat().rank == 0:
                say(f"{file} is not of the best epoch so far: {found.name} is, and takes its place")
                go_back_to(found, file)
        self._take(state_dict)

    def _belongs(self, file: Path, score: Any) -> bool:
        """Return whether a file is a sound checkpoint of an epoch with this score."""
        try:
            if damage(file):
                return False
            states = torch.load(file, map_location="cpu", mmap=True, weights_only=True)["callbacks"]
            own = states[self.state_key]["best_model_score"]
        except Exception:  # whatever is in a file from elsewhere
            return False
        return score is None or (own is not None and float(own) == float(score))

    def _take(self, state_dict: dict[str, Any]) -> None:
        self.current_score = state_dict["current_score"]
        folder = Path(str(self.dirpath))

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else ""

        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_k_models": {here(path): score for path, score in state_dict["best_k_models"].items()},
                **{k: here(state_dict[k]) for k in ("best_model_path", "kth_best_model_path", "last_model_path")},
            }
        )


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt: after every epoch, by the clock, every so many steps if asked, and when a signal comes.

    A state is saved between two batches, once all that belongs to the first is logged, and never between a last
    batch and its validation, unless so that the resumed run makes up for the validation (see `loop_state`).

    Where the training loader cannot be restored, a run does not go on exactly from within an epoch. That is said at
    the start; last.ckpt is then written at the ends of epochs alone.

    Args:
        folder: where last.ckpt goes.
        every_n_steps: save whenever the number of steps is a multiple of this; 0 does not.
        minutes: save when the newest checkpoint is older; 0 does not. Where saving is slow it is done less often,
            so that it takes at most a hundredth of the time.
        note: what to say when a signal stops the run: how to resume it.

    Raises:
        UserError: if an interval is negative.
    """

    def __init__(self, folder: Path, every_n_steps: int = 0, minutes: float = 0.0, note: str = "") -> None:
        for name, value in (("every_n_steps", every_n_steps), ("minutes", minutes)):
            if not value >= 0:
                raise UserError(f"{option(f'checkpoint_{name}')} {value} is out of range: it takes 0 or more")
        self.note = note
        self.file = folder / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.seconds = 60 * minutes if minutes else float("inf")
        self.failed = False
        self._due_at = float("inf")
        self._saved_step = 0
        self._max_steps = -1
        self._where = ""  # "batch" before a batch, "validation" before or in one; else where Lightning saves itself
        self._swapped = False  # the model holds the averaged weights
        self._restores: Restores = "position"
        self._loaders: list[dict[str, Any]] | None = None  # their states after the batch before, if a save is due

    # Start or resume a run.

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the run resume from last.ckpt. Hide max_steps, or Lightning would count the last epoch twice."""
        self._max_steps = trainer.max_steps
        lightning_private.set_max_steps(trainer, -1)
        source = Path(trainer.ckpt_path).resolve() if trainer.ckpt_path else None
        beside = source and source.parent == self.file.parent.resolve() and source.name != self.file.name
        if source and beside and trainer.is_global_zero:
            go_back_to(source, self.file)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, restore the loaders, and name those that cannot be."""
        if not 0 <= self._max_steps <= trainer.global_step:
            lightning_private.set_max_steps(trainer, self._max_steps)
            _tell_of_cut_epoch(trainer)
        elif not lightning_private.resumes_before_validation(trainer):  # which comes first, see `on_validation_start`
            lightning_private.set_max_steps(trainer, self._max_steps)
            lightning_private.end_epoch_at_hand(trainer)
        self._saved_step = trainer.global_step
        self._due_at = time.monotonic() + self.seconds
        lightning_private.restore_loaders(trainer)
        self._restores = restores(trainer)
        if self._restores == "nothing":
            _say(
                trainer,
                f"the training loader ({', '.join(unrestorable(trainer))}) cannot be restored within an epoch, "
                "having no state_dict: last.ckpt is written at the ends of epochs alone, and a resumed run begins "
                "the interrupted epoch anew",
            )
        if self._restores != "state":
            setattr(self, "on_train_batch_end", None)  # noqa: B010 - Lightning leaves it out then, see `hooks.lean`

    # Where to save.

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Note where a loader stands whose state cannot be set back by a batch, if it is time to save."""
        ends = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        due = any(collectives.agree(signals.pending(), self._is_due(trainer), ends))
        self._loaders = loader_states(trainer) if due else None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save what came before this batch, if it is time to. Not half way through an accumulated gradient."""
        if batch_idx % trainer.accumulate_grad_batches:
            return
        signum, due = collectives.agree(signals.pending(), self._is_due(trainer))
        if not (signum or due):
            return
        if self._restores == "nothing" or (self._restores == "state" and self._loaders is None):
            if signum and self._restores == "nothing":
                self._stop(trainer, signum)
            return
        if batch_idx and self._saved_step != trainer.global_step:
            self._save(trainer, "batch")
        if signum and self._saved_step == trainer.global_step > 0:
            self._stop(trainer, signum)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save before a validation, which may be long, if it is time to."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        lightning_private.set_max_steps(trainer, self._max_steps)
        lightning_private.count_validation_batches_anew(trainer)
        self._where = "validation"
        self._save_and_stop_in_validation(trainer, clock=True)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that the averaged weights are in the model now; their callback has come first."""
        averaging = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        self._swapped = averaging and self._where == "validation"

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Obey a signal."""
        self._save_and_stop_in_validation(trainer)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that the weights in training are back."""
        self._where, self._swapped = "", False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end of the epoch."""
        self._save(trainer)
        (signum,) = collectives.agree(signals.pending())
        if signum:
            self._stop(trainer, signum)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Describe in `checkpoint` the place between two batches at which the run stands."""
        if not self._where and self._restores != "nothing" and lightning_private.ends_epoch_early(trainer):
            within_epoch(checkpoint, self._loaders)
        if self._where == "batch":
            before_batch(checkpoint, type(getattr(trainer, "datamodule", None)).__qualname__, self._loaders)
        if self._where == "validation":
            before_validation(checkpoint)
        if self._swapped:
            exchange_weights(checkpoint)

    def _save_and_stop_in_validation(self, trainer: L.Trainer, clock: bool = False) -> None:
        if self._where != "validation":
            return
        signum, due = collectives.agree(signals.pending(), clock and time.monotonic() >= self._due_at)
        exact = self._restores != "nothing" or trainer.is_last_batch
        if exact and (signum or due) and not lightning_private.accumulates(trainer):
            self._save(trainer, "validation")
        if signum:
            self._stop(trainer, signum)

    def _is_due(self, trainer: L.Trainer) -> bool:
        steps = self.every_n_steps
        return bool(steps and trainer.global_step % steps == 0) or time.monotonic() >= self._due_at

    def _save(self, trainer: L.Trainer, where: str = "") -> None:
        begin = time.monotonic()
        before, self._where = self._where, where
        try:
            _check_run_folder(self.file)
            trainer.save_checkpoint(self.file, weights_only=False)
            self.failed = False
        except CheckpointNotWrittenError as error:
            self.failed = True
            _say(trainer, f"{error}; training continues")
        self._where = before
        self._saved_step = trainer.global_step
        end = time.monotonic()
        self._due_at = end + max(self.seconds, (end - begin) / COST)

    def _stop(self, trainer: L.Trainer, signum: int) -> None:
        saved = f"saved after step {trainer.global_step}"
        if self.failed or self._saved_step != trainer.global_step:
            saved = "the newest checkpoint is older" if self.file.exists() else "nothing is saved yet"
        signals.obey(signum, f"{saved}; {self.note}" if self.note else saved)


def _check_run_folder(file: Path) -> None:
    """Raise CheckpointNotWrittenError if the run folder was removed: one made anew would be half of a run."""
    if not file.parent.parent.is_dir():
        raise CheckpointNotWrittenError(file, FileNotFoundError(errno.ENOENT, "the run folder is gone"))


def _tell_of_cut_epoch(trainer: L.Trainer) -> None:
    """Say that a run goes on after an epoch that is counted and was cut short: runs of before did not go on within."""
    if trainer.ckpt_path and (batches := lightning_private.batches_of_cut_epoch(trainer)):
        _say(
            trainer,
            f"note: epoch {trainer.current_epoch} of this run ended after {batches} of "
            f"{trainer.num_training_batches} batches and counts as an epoch: its other batches are left out",
        )


def _say(trainer: L.Trainer, line: str) -> None:
    if trainer.is_global_zero:
        say(line)
