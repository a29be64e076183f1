"""A run is prepared, then run: the same two calls from Python, from the command line, from a sweep and from a finder.

    run = prepare(Classifier(ratio=4), FashionMNISTDataModule(), trainer={"max_epochs": 5}, name="mine")
    results = fit(run)

`prepare` refuses options that no run can use, builds what is not there yet, makes the run folder, and puts into
Lightning's Trainer what saves, guards, shows and resumes a run. `fit`, `validate`, `test` and `predict` do the rest.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.callbacks import Callback

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.process import seat
from vgg_lightning.base.text import say
from vgg_lightning.classifier import Classifier
from vgg_lightning.data.batches import in_order
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.loading.agreement import agree
from vgg_lightning.loading.opened import open_checkpoint
from vgg_lightning.loading.run_data import data_of
from vgg_lightning.prepare.data import check_limits, ready_data
from vgg_lightning.prepare.folder import hold_folder, make_folder
from vgg_lightning.prepare.options import TRAINER_DEFAULTS, complete, settle, size, sizes_of
from vgg_lightning.prepare.recipe import save_config
from vgg_lightning.prepare.run import Asked, Options, Run, Stage, session_of
from vgg_lightning.prepare.trainer import build_trainer, fit_callbacks
from vgg_lightning.run import collectives
from vgg_lightning.run.checkpoints.locate import find_checkpoint, newest_valid
from vgg_lightning.run.folders import run_folder_of
from vgg_lightning.run.lightning_private import batches_of_begun_epoch
from vgg_lightning.run.parallel.devices import check_processes
from vgg_lightning.run.parallel.rendezvous import meeting_before_trainer
from vgg_lightning.run.precision import AUTO, unified
from vgg_lightning.show.class_table import print_class_table
from vgg_lightning.show.report import RunReport, in_percent, parts_of, print_next_steps
from vgg_lightning.training.limits import check_sharded

__all__ = [
    "TRAINER_DEFAULTS",
    "Asked",
    "Run",
    "complete",
    "fit",
    "fit_callbacks",
    "predict",
    "prepare",
    "size",
    "sizes_of",
    "test",
    "validate",
]


def prepare(
    model: Classifier | Mapping[str, Any] | None = None,
    data: FashionMNISTDataModule | Mapping[str, Any] | None = None,
    *,
    stage: Stage = "fit",
    trainer: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    name: str | None = None,
    seed: int | bool | None = None,
    ckpt_path: str | Path | None = None,
    early_stopping: int = 0,
    checkpoint_every_n_steps: int = 0,
    checkpoint_minutes: float = 5.0,
    show: str | Sequence[str] | None = "default",
    logger: str | Sequence[str] | None = None,
    test: bool = True,
    record: bool = True,
    asked: Asked | None = None,
) -> Run:
    """Return a run that is ready to begin. Nothing is trained yet; of a new run, the folder is there.

    Args:
        model: a classifier, or its options; by default that of the checkpoint. Options are built after `seed` is set,
            so that they give the weights that the command line gives. For a classifier, call `L.seed_everything`.
        data: a data module, or its options; by default those of the checkpoint, or what fits the model.
        stage: what to run: "fit", "validate", "test" or "predict".
        trainer: options of Lightning's Trainer.
        callbacks: more callbacks of the Trainer.
        name: of the run: its folder is `lightning_logs/NAME/version_N`. By default that of the network.
        seed: of initial weights, order and augmentation; by default 0, or that of the run that is resumed.
        ckpt_path: a checkpoint or run folder: what fit resumes, or whose weights are validated or tested.
        early_stopping: stop after N validations in a row without a better val_acc; 0 disables it.
        checkpoint_every_n_steps: steps between checkpoints within an epoch; 0 disables them.
        checkpoint_minutes: minutes between them; 0 disables them.
        show: additional output in TensorBoard; see `show`.
        logger: "tensorboard" (by default), "wandb", "mlflow", or several of them; any other logger of Lightning's goes
            into `trainer`. metrics.csv is written beside each.
        test: test the best checkpoint at the end.
        record: False leaves no trace: no run folder, no checkpoints, no loggers, no report.
        asked: what the command line knows of the run.

    Raises:
        UserError: if an option cannot be used, or another process writes into the folder of a resumed run. A folder
            that was made for the run is gone again.
        RunFinished: if a resumed run has nothing left to do.
    """
    file = _checkpoint(ckpt_path, stage)
    if model is None:
        model, data = _of_checkpoint(file, stage, data)
    own: Options = {"early_stopping": early_stopping, "checkpoint_every_n_steps": checkpoint_every_n_steps}
    own |= {"checkpoint_minutes": checkpoint_minutes, "show": show, "logger": logger, "test": test}
    options = {"seed_everything": seed, "trainer": dict(trainer or {}), "model": model, "data": data}
    run = Run(stage, {**options, "name": name, **own, "ckpt_path": file and str(file)}, asked, seat())
    with session_of(run):
        complete(stage, run.options)
        asked, usable_here = (trainer or {}).get("precision"), run.options["trainer"]["precision"]
        if unified(asked) not in (usable_here, AUTO) and not run.seat.rank:
            say(f"note: {option('trainer.precision')} {asked}: a CPU computes in {usable_here}", sys.stderr)
        owner = type(model) if isinstance(model, Classifier) else Classifier
        opened = open_checkpoint(file, owner, hand_on=True) if file else None
        size(stage, run.options, opened.data_options if opened else {})
        if file:
            run.step = agree(stage, run.options, owner)
        settle(run, opened)
        check_processes(run.options["trainer"], run.options["data"]["batch_size"], run.seat)
        check_sharded(run.options["trainer"]["strategy"], run.options["model"])
        meeting = meeting_before_trainer(run.seat)
        build = FashionMNISTDataModule
        run.from_options = not isinstance(model, Classifier)
        run.model = model if isinstance(model, Classifier) else Classifier(**run.options["model"])
        run.data = data if isinstance(data, FashionMNISTDataModule) else build(**run.options["data"])
        run.data.hparams.update({name: run.options["data"][name] for name in ("seed", "val_size", "batch_size")})
        run.model.meet(run.data, stage == "fit")
        followed = {name: run.data.hparams[name] for name in ("normalize", "mean", "std")}
        run.options["data"] |= {name: value for name, value in followed.items() if value is not None}
        writes = stage == "fit" and record and not run.options["trainer"]["fast_dev_run"]
        if writes and file:
            run.folder = run_folder_of(file)
            hold_folder(run, meeting)
        ready_data(run, record)
        check_limits(run, batches_of_begun_epoch(opened.checkpoint) if opened and stage == "fit" else 0)
        if writes and not run.folder:
            make_folder(run, meeting)
        run.trainer = build_trainer(run, callbacks, meeting)
    return run


def fit(run: Run) -> dict[str, Any]:
    """Train, test the best checkpoint, and return what is in results.json: `test_acc`, `val_acc`, `epochs` and so on.

    The run ends as it does on the command line: with signals obeyed, results written and next steps printed.

    Raises:
        UserError: if an option cannot be used, which is found out only now.
        NonFiniteError: if a loss, a gradient or a weight is NaN or Inf.
        Interrupted: if a signal has come; the newest checkpoint is written.
    """
    with session_of(run, "fit"), run.lock.at_work() if run.lock else contextlib.nullcontext():
        if run.folder and not run.seat.rank:
            try:
                save_config(run, run.folder / "config.yaml")
            except OSError as error:
                run.problems.append(f"config.yaml is not written: {error.strerror}")
            say(f"run folder: {run.folder}")
        run.trainer.fit(
            model=run.model, datamodule=run.data, ckpt_path=run.options["ckpt_path"], weights_only=True
        )  # a checkpoint is data: nothing in it may run
        report = next((c for c in _callbacks(run) if isinstance(c, RunReport)), None)
        if report is None or run.folder is None:
            return _metrics(run)
        if run.options["test"]:
            report.test(run.trainer, run.model, run.data)
        if not run.trainer.is_global_zero:
            return dict(report.metrics)
        try:
            report.write(run.trainer, run.data)
        except OSError as error:
            run.problems.append(f"results.json is not written: {error.strerror}")
        print_class_table(run.trainer, _part_tested(run))
        for profile in sorted(run.folder.glob("*-profile*.txt")) if run.options["trainer"]["profiler"] else ():
            say(f"profile        {profile}")
        print_next_steps(report, run.trainer, run.data)
        if any(getattr(callback, "failed", False) for callback in _callbacks(run)):
            run.problems.append("the newest checkpoint could not be written: make room and resume the run")
        run.problems += [f"{unsaved} could not be written" for unsaved in _unsaved(run)]
        for problem in run.problems:
            say(problem, sys.stderr)
        file = run.folder / "results.json"
        return json.loads(file.read_text(encoding="utf-8")) if not run.problems else dict(report.metrics)


def validate(run: Run) -> dict[str, float]:
    """Return `val_acc` and `val_loss` of a checkpoint or of the model as it is, and print them."""
    return _evaluate(run, "validate")


def test(run: Run) -> dict[str, float]:
    """Return `test_acc` and `test_loss` of a checkpoint or of the model as it is, and print them with all classes'."""
    return _evaluate(run, "test")


def predict(run: Run) -> list[Any]:
    """Return what `predict_step` gives for every batch, in order: probabilities (N, num_classes) and labels (N,).

    With a `predict_path` of the data these are the user's own images, else the official test images.
    """
    with session_of(run, "predict"):
        _say_weights(run)
        found = run.trainer.predict(
            model=run.model,
            datamodule=run.data,
            ckpt_path=run.options["ckpt_path"],
            weights_only=True,
            return_predictions=True,
        )
        if run.data.predict_path is not None:
            return list(found or [])
        return list(in_order(collectives.gather(found)))


def _checkpoint(path: str | Path | None, stage: Stage) -> Path | None:
    if path is None:
        return None
    newest = newest_valid(Path(path)) if stage == "fit" else None
    return newest or find_checkpoint(path, prefer="last" if stage == "fit" else "best")


def _of_checkpoint(file: Path | None, stage: Stage, data: Any) -> tuple[Options, Any]:
    """Return the options of the model in a checkpoint, and those of its data unless there are others."""
    if file is None or stage == "fit":
        raise UserError(f"{stage} needs a model: give a Classifier{'' if stage == 'fit' else ', or a ckpt_path'}")
    opened = open_checkpoint(file, Classifier, hand_on=True)
    return dict(opened.model_options), data_of(opened) if data is None else data


def _evaluate(run: Run, stage: Literal["validate", "test"]) -> dict[str, float]:
    with session_of(run, stage):
        _say_weights(run)
        evaluate = run.trainer.validate if stage == "validate" else run.trainer.test
        evaluate(  # without Lightning's table, which is in colour, whatever it is written to
            model=run.model,
            datamodule=run.data,
            ckpt_path=run.options["ckpt_path"],
            weights_only=True,
            verbose=False,
        )
        metrics = _metrics(run)
        read = parts_of(run.trainer, run.data, sum(run.trainer.num_val_batches))
        parts = {name: f" on {part.text}" for name, part in read.items()}
        for split, accuracy, loss in (("val", "validation    ", "val loss"), ("test", "test accuracy ", "test loss")):
            if f"{split}_acc" in metrics:
                on = parts.get("validated_on" if split == "val" else "tested_on", "")
                say(f"{accuracy} {in_percent(metrics, f'{split}_acc')}{on}")
            if f"{split}_loss" in metrics:
                print(f"{loss:14} {metrics[f'{split}_loss']:.4f}")
        print_class_table(run.trainer, _part_tested(run))
        return metrics


def _say_weights(run: Run) -> None:
    if run.options["ckpt_path"]:
        say(f"weights: {run.options['ckpt_path']}")


def _part_tested(run: Run) -> str:
    """Return in words which part of the test images was tested; nothing if it was all of them."""
    part = parts_of(run.trainer, run.data, 0).get("tested_on")
    return part.text if part and not part.is_whole else ""


def _unsaved(run: Run) -> list[str]:
    """Return what the loggers could not write."""
    return [unsaved for logger in run.trainer.loggers if (unsaved := getattr(logger, "unsaved", ""))]


def _metrics(run: Run) -> dict[str, float]:
    return {name: float(value) for name, value in run.trainer.callback_metrics.items()}


def _callbacks(run: Run) -> list[Callback]:
    found: list[Callback] = run.trainer.callbacks  # type: ignore[attr-defined]
    return found
