"""What a finished run says: results.json, and the lines at the end of fit."""

from __future__ import annotations

import importlib.util
import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from vgg_lightning.base.files import write_whole
from vgg_lightning.base.machine import peak_memory
from vgg_lightning.base.text import program, say
from vgg_lightning.base.versions import versions
from vgg_lightning.data.batches import Batch
from vgg_lightning.data.splits import Part
from vgg_lightning.run.loggers.tensorboard import RunTensorBoard
from vgg_lightning.show.class_table import class_accuracies

if TYPE_CHECKING:
    from vgg_lightning.data.datamodule import FashionMNISTDataModule, Split

NOTEBOOK = Path("notebooks/01_reuse_a_checkpoint.ipynb")  # is in a clone


class RunReport(Callback):
    """Times a run, tests its best checkpoint, and writes results.json.

    Args:
        run_folder: where results.json goes.
    """

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.checkpoint: Path | None = None
        self.metrics: dict[str, float] = {}  # of the last epoch in training, of the best one in validation
        self.val_batches = 0.0  # of the last validation, which may have been in a launch before
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
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the launch before; but once fit is over, what is loaded is the best checkpoint, to test it."""
        if self.checkpoint is not None:
            return
        self.metrics = dict(state_dict["metrics"])
        self.val_batches = state_dict.get("val_batches", 0.0)
        self.seconds = state_dict["seconds"]
        self.train_seconds = state_dict["train_seconds"]
        self.examples = state_dict["examples"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of fit, say what is about to run, and forget the best epoch if its checkpoint is lost."""
        self._fit_begin = time.monotonic()
        if trainer.ckpt_path and getattr(trainer.checkpoint_callback, "best_model_path", None) == "":
            self.metrics = {name: value for name, value in self.metrics.items() if not name.startswith("val_")}
        parameters = sum(p.numel() for p in pl_module.parameters())
        hparams = pl_module.hparams
        if trainer.is_global_zero:
            print(
                f"{hparams['network']}: {parameters:,} parameters, pictures of {hparams['image_size']} x "
                f"{hparams['image_size']}, {trainer.max_epochs} epochs on {trainer.strategy.root_device}"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of training."""
        self._train_begin, self._training = time.monotonic(), True

    on_train_epoch_start = on_train_start  # which is left out where a run goes on within an epoch

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
        found = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
        if found.get("val_acc", 0.0) > self.metrics.get("val_acc", -1.0):
            self.metrics |= found

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the training means of the epoch, which are known only now."""
        means = {k: trainer.callback_metrics[k] for k in ("train_loss", "train_acc") if k in trainer.callback_metrics}
        self.metrics |= {name: float(mean) for name, mean in means.items()}
        checkpoint["callbacks"][self.state_key]["metrics"] = dict(self.metrics)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the training means of the last epoch."""
        self.metrics |= {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train_")}

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock of fit, and note the checkpoint."""
        self.seconds += time.monotonic() - self._fit_begin
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        candidates = [Path(best)] if best else []
        candidates.append(self.run_folder / "checkpoints" / "last.ckpt")
        self.checkpoint = next((file for file in candidates if file.is_file()), None)

    def test(self, trainer: L.Trainer, model: L.LightningModule, data: FashionMNISTDataModule) -> None:
        """Test the best checkpoint, or the weights at hand if none was saved."""
        path = str(self.checkpoint) if self.checkpoint else None
        trainer.test(model, data, ckpt_path=path, weights_only=True, verbose=False)
        self.metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}

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
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
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
    return file.resolve().relative_to(folder.resolve()).as_posix() if file else None


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
    print(f"time           {report.seconds / 60:.1f} min" + (f", peak memory {peak:.0f} MB" if peak else ""))
    say(f"run folder     {report.run_folder}")
    if commands := _next_commands(report, trainer):
        say("\n".join(["\nnext:", *(f"  {command}" for command in commands)]))


def _next_commands(report: RunReport, trainer: L.Trainer) -> list[str]:
    run = shlex.quote(str(report.run_folder))
    boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    all_runs = report.run_folder.parent.parent
    folders = {str(all_runs) if isinstance(board, RunTensorBoard) else board.root_dir for board in boards}
    commands = [f"{program('tensorboard')} --logdir {shlex.quote(folder)}" for folder in sorted(folders)]
    if report.checkpoint:
        commands.append(f"{program('vgg-lightning')} predict --ckpt_path {run}")
        if importlib.util.find_spec("gradio"):
            commands.append(f"{program('vgg-lightning')} serve --ckpt_path {run}")
    if NOTEBOOK.is_file() and importlib.util.find_spec("notebook"):
        commands.append(f"{program('jupyter')} notebook {NOTEBOOK.as_posix()}")
    return commands
