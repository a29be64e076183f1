"""The report of a run: results.json, and the lines at the end of fit."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
import time
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from vgg_lightning.base.files import write_whole
from vgg_lightning.base.machine import peak_memory
from vgg_lightning.base.text import count, minutes, program, say
from vgg_lightning.base.versions import versions
from vgg_lightning.data.batches import Batch
from vgg_lightning.data.splits import Part
from vgg_lightning.run.checkpoints.callbacks import BestCheckpoint
from vgg_lightning.run.ending import Ending, ending
from vgg_lightning.run.lightning_private import epochs_finished
from vgg_lightning.run.loggers.tensorboard import RunTensorBoard
from vgg_lightning.show.class_table import class_accuracies
from vgg_lightning.training.losses import loss_in_words

if TYPE_CHECKING:
    from vgg_lightning.data.datamodule import FashionMNISTDataModule, Split

NOTEBOOK = Path("notebooks/01_reuse_a_checkpoint.ipynb")  # is in a clone


class RunReport(Callback):
    """Times a run, tests its best checkpoint, and writes results.json.

    Args:
        run_folder: where results.json goes.
        options: of the run, which its checkpoints hold beside the precision: the seed.
    """

    def __init__(self, run_folder: Path, options: Mapping[str, Any] | None = None) -> None:
        self.run_folder = run_folder
        self.options = dict(options or {})
        self.checkpoint: Path | None = None
        self.data: dict[str, str] = {}  # checksums, of `data.files.Prepared`
        self.metrics: dict[str, float] = {}  # of the last epoch in training, of the tested checkpoint else
        self.val_batches = 0.0  # of the last validation, which may have been in a launch before
        self._validation: dict[str, float] = {}  # the newest, of the weights at the step `_validated_at`
        self._validated_at = -1
        self.ended = Ending("", "")
        self.seconds = 0.0  # of fit, validation included, over all launches of a resumed run
        self.train_seconds = 0.0  # of the training batches alone
        self.examples = 0
        self.peak_memory_mb = 0.0
        self._fit_begin = self._train_begin = time.monotonic()
        self._training = False

    def state_dict(self) -> dict[str, Any]:
        """Return clocks and best metrics, so that a resumed run reports all of its launches."""
        now = time.monotonic()
        return {
            "seconds": self.seconds + now - self._fit_begin,
            "train_seconds": self.train_seconds + (now - self._train_begin if self._training else 0.0),
            "examples": self.examples,
            "metrics": dict(self.metrics),
            "val_batches": self.val_batches,
            "data": dict(self.data),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the previous launch; but once fit is over, what is loaded is the checkpoint that is tested."""
        if self.checkpoint is not None:
            if self.checkpoint.name == "best.ckpt" and (found := state_dict.get("validation")):
                self._take_validation(found)
            return
        self.metrics = dict(state_dict["metrics"])
        self.val_batches = state_dict.get("val_batches", 0.0)
        self.seconds = state_dict["seconds"]
        self.data = dict(state_dict.get("data") or {})
        self.train_seconds = state_dict["train_seconds"]
        self.examples = state_dict["examples"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of fit, say what is about to run, and forget the best epoch if its checkpoint is lost."""
        self._fit_begin = time.monotonic()
        self._compare_data(trainer)
        if trainer.ckpt_path and getattr(trainer.checkpoint_callback, "best_model_path", None) == "":
            self.metrics = {name: value for name, value in self.metrics.items() if not name.startswith("val_")}
        parameters = sum(p.numel() for p in pl_module.parameters())
        hparams = pl_module.hparams
        if trainer.is_global_zero:
            epochs, steps = trainer.max_epochs, trainer.max_steps
            limits = [count(epochs, "epoch")] if epochs is not None and epochs >= 0 else []
            limits += [count(steps, "step")] if steps >= 0 else []
            place = f"{trainer.strategy.root_device} in {trainer.precision}"
            print(
                f"{hparams['network']}: {parameters:,} parameters, images of {hparams['image_size']} x "
                f"{hparams['image_size']}, {' or '.join(limits)} on {place}"
            )
            if (words := loss_in_words(hparams)) and trainer.enable_validation:
                print(words)

    def _compare_data(self, trainer: L.Trainer) -> None:
        """Say if a resumed run finds other images than it began with, and keep the checksums of those at hand."""
        prepared = getattr(getattr(trainer, "datamodule", None), "prepared", None)
        found = dict(prepared.checksums) if prepared else {}
        changed = sorted(name for name in self.data.keys() & found.keys() if self.data[name] != found[name])
        if changed and trainer.is_global_zero:
            say(
                f"note: the data has changed since this run was saved ({', '.join(changed)}): images that it was "
                "trained on may now be among those that it is validated on",
                sys.stderr,
            )
        self.data = found

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of training."""
        self._train_begin, self._training = time.monotonic(), True

    on_train_epoch_start = on_train_start  # which is left out if a run resumes within an epoch

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the examples; stop the clock of training after the last batch, before validation."""
        self.examples += Batch.of(batch).share.total
        if trainer.is_last_batch:
            self.train_seconds += time.monotonic() - self._train_begin
            self._training = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the validation metrics of the best epoch, by the rule of the best checkpoint."""
        self.val_batches = float(sum(trainer.num_val_batches))
        found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")}
        self._validation, self._validated_at = found, trainer.global_step
        if found.get("val_acc", 0.0) > self.metrics.get("val_acc", -1.0):
            self.metrics |= found

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the training means of the epoch, which are known only now, and the validation of these weights."""
        means = {k: trainer.callback_metrics[k] for k in ("train_loss", "train_acc") if k in trainer.callback_metrics}
        self.metrics |= {name: float(mean) for name, mean in means.items()}
        state = checkpoint["callbacks"][self.state_key]
        state["metrics"] = dict(self.metrics)
        state["validation"] = dict(self._validation) if self._validated_at == trainer.global_step else {}
        checkpoint["run_options"] = {**self.options, "precision": trainer.precision}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock of training if the epoch was cut short."""
        if self._training:
            self.train_seconds += time.monotonic() - self._train_begin
            self._training = False

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the training means of the last epoch."""
        self.metrics |= {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train_")}

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock of fit, note the checkpoint, and say why the run ended if not after all of its epochs."""
        self.seconds += time.monotonic() - self._fit_begin
        best = [c.best_model_path for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)]
        files = [*(Path(file) for file in best if file), self.run_folder / "checkpoints" / "last.ckpt"]
        self.checkpoint = next((file for file in files if file.is_file()), None)
        validated = any(name.startswith("val_") for name in self.metrics)
        if self.checkpoint is None or self.checkpoint.name != "best.ckpt":
            self._take_validation(self._validation if self._validated_at == trainer.global_step else {})
        self.ended = ending(trainer)
        if self.ended.text and trainer.is_global_zero:
            say(self.ended.text)
        if best and not validated and trainer.is_global_zero:
            tested = self.checkpoint.name if self.checkpoint else "the last state"
            say(f"no validation was run, so there is no best.ckpt: {tested} counts")

    def test(self, trainer: L.Trainer, model: L.LightningModule, data: FashionMNISTDataModule) -> None:
        """Test the best checkpoint, or the weights at hand if none was saved."""
        path = str(self.checkpoint) if self.checkpoint else None
        trainer.test(model, data, ckpt_path=path, weights_only=True, verbose=False)
        self.metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}

    def _take_validation(self, found: Mapping[str, float]) -> None:
        """Let the metrics be those of the validation that goes with the weights that are tested."""
        others = {name: value for name, value in self.metrics.items() if not name.startswith("val_")}
        self.metrics = {**others, **found}

    def write(self, trainer: L.Trainer, data: FashionMNISTDataModule) -> None:
        """Write results.json."""
        self.peak_memory_mb = peak_memory_mb(trainer.strategy.root_device.type)
        results = {
            **{name: self.metrics.get(name) for name in ("test_acc", "test_loss", "val_acc", "val_loss")},
            **{name: value for name, value in self.metrics.items() if name.endswith("_tta")},
            "train_acc": self.metrics.get("train_acc"),
            "train_loss": self.metrics.get("train_loss"),
            **{name: part.text for name, part in parts_of(trainer, data, self.val_batches).items()},
            "test_acc_per_class": class_accuracies(trainer),
            "epochs": epochs_finished(trainer),
            "steps": trainer.global_step,
            "ended_by": self.ended.option.rpartition(".")[2] or "max_epochs",
            "seconds": round(self.seconds, 1),
            "examples_per_second": round(self.examples / max(self.train_seconds, 1e-9), 1),
            "peak_memory_mb": round(self.peak_memory_mb) or None,
            "checkpoint": _below(self.run_folder, self.checkpoint),
            "device": trainer.strategy.root_device.type,
            "precision": trainer.precision,
            "processes": trainer.world_size,
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "data_checksums": data.prepared.checksums if data.prepared else {},
        }
        write_whole(self.run_folder / "results.json", json.dumps(results, indent=2) + "\n")


def _below(folder: Path, file: Path | None) -> str | None:
    if file is None:
        return None
    inside = file.resolve().is_relative_to(folder.resolve())
    return (file.resolve().relative_to(folder.resolve()) if inside else file).as_posix()


def peak_memory_mb(device: str = "") -> float:
    """Return the most memory that this process has held, in MB.

    Args:
        device: "cuda" for the GPU, "cpu" for what is resident; by default the GPU, if there is one. 0 if untold.
    """
    return peak_memory(device or ("cuda" if torch.cuda.is_available() else "cpu")) / 1e6


def in_percent(metrics: Mapping[str, Any], name: str) -> str:
    """Return an accuracy in words, and beside it that with test-time augmentation if there is one."""
    tta = (
        f", {100 * float(metrics[f'{name}_tta']):.2f} % with test-time augmentation" if f"{name}_tta" in metrics else ""
    )
    return f"{100 * float(metrics[name]):.2f} %{tta}"


def parts_of(trainer: L.Trainer, data: FashionMNISTDataModule, val_batches: float) -> dict[str, Part]:
    """Return what a test and a validation were on, if there was one: "tested_on" and "validated_on".

    Args:
        trainer: that made the test.
        data: on which.
        val_batches: of the validation; 0 if there was none.
    """
    test_batches = sum(trainer.num_test_batches) if "test_acc" in trainer.callback_metrics else 0
    read: dict[str, tuple[Split, float]] = {
        "tested_on": ("test", test_batches),
        "validated_on": ("val", val_batches),
    }
    return {name: data.part(split, batches) for name, (split, batches) in read.items() if batches}


def print_next_steps(report: RunReport, trainer: L.Trainer, data: FashionMNISTDataModule) -> None:
    """Print accuracy, time, place, and the next commands: those that work here, on what is there."""
    metrics, parts = report.metrics, parts_of(trainer, data, report.val_batches)
    on = {name: f" on {part.text}" for name, part in parts.items()}
    if "test_acc" in metrics:
        say(f"\ntest accuracy  {in_percent(metrics, 'test_acc')}{on.get('tested_on', '')}")
    if "val_acc" in metrics:
        say(f"validation     {in_percent(metrics, 'val_acc')}{on.get('validated_on', '')}")
    peak = report.peak_memory_mb
    print(f"time           {minutes(report.seconds)}" + (f", peak memory {peak:.0f} MB" if peak else ""))
    say(f"run folder     {report.run_folder}")
    if commands := _next_commands(report, trainer):
        say("\n".join(["\nnext:", *(f"  {command}" for command in commands)]))


def own_class(model: L.LightningModule) -> str:
    """Return the name of the user's own class of a model that the command line cannot open; nothing if it can."""
    own = takewhile(lambda base: not base.__module__.startswith("vgg_lightning."), type(model).__mro__)
    return type(model).__name__ if any({"__init__", "build"} & vars(base).keys() for base in own) else ""


def _next_commands(report: RunReport, trainer: L.Trainer) -> list[str]:
    run = shlex.quote(str(report.run_folder))
    boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    all_runs = report.run_folder.parent.parent
    folders = {str(all_runs) if isinstance(board, RunTensorBoard) else board.root_dir for board in boards}
    commands = [f"{program('tensorboard')} --logdir {shlex.quote(folder)}" for folder in sorted(folders)]
    commands += [found for logger in trainer.loggers if (found := getattr(logger, "next_command", ""))]
    if report.checkpoint and (own := own_class(trainer.lightning_module)):
        commands.append(f'{own}.load_from_checkpoint("{report.run_folder.as_posix()}")  # in Python')
    elif report.checkpoint:
        commands.append(f"{program('vgg-lightning')} predict --ckpt_path {run}")
        if importlib.util.find_spec("gradio"):
            commands.append(f"{program('vgg-lightning')} serve --ckpt_path {run}")
    if NOTEBOOK.is_file() and importlib.util.find_spec("notebook"):
        commands.append(f"{program('jupyter')} notebook {NOTEBOOK.as_posix()}")
    return commands
