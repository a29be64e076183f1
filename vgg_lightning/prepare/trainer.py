"""The Trainer of a run, with its callbacks, loggers, plugins and strategy."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.text import program, say
from vgg_lightning.classifier import Classifier
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.data.sources.catalogue import DATASETS
from vgg_lightning.networks import is_own
from vgg_lightning.prepare.recipe import recipe_of
from vgg_lightning.prepare.run import Options, Run
from vgg_lightning.run.checkpoints.callbacks import Restoring
from vgg_lightning.run.checkpoints.io import VerifiedCheckpointIO
from vgg_lightning.run.ending import EarlyStopping, Timer
from vgg_lightning.run.evaluation import evaluate_in_float32
from vgg_lightning.run.kit import run_callbacks
from vgg_lightning.run.lightning_private import lean
from vgg_lightning.run.loggers.choice import missing_in, run_loggers
from vgg_lightning.run.parallel.devices import SHARDED, processes
from vgg_lightning.run.parallel.rendezvous import Meeting, facts
from vgg_lightning.run.parallel.strategies import choose_strategy
from vgg_lightning.run.precision import fault
from vgg_lightning.run.profiler import NoProfiler
from vgg_lightning.run.progress import progress_bar
from vgg_lightning.run.stop import StopOnSignal
from vgg_lightning.show import show_callbacks
from vgg_lightning.show.class_table import ClassTable
from vgg_lightning.show.report import RunReport
from vgg_lightning.training.metrics import LearningRates
from vgg_lightning.training.run_options import FIT, equal_on_all

COMPARED = (  # of the Trainer's options, those in which runs are compared beside model and data
    *("max_epochs", "max_steps", "limit_train_batches", "accumulate_grad_batches", "gradient_clip_val", "precision"),
)
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
SHOWN_METRICS = ("train_loss", "train_acc", "val_loss", "val_acc", "val_acc_tta")  # after every epoch


def resume_command(run_folder: Path) -> str:
    """Return what to type to resume a run."""
    return f"resume with: {program('vgg-lightning')} fit --ckpt_path {shlex.quote(str(run_folder))}"


def fit_callbacks(
    run_folder: Path,
    data: FashionMNISTDataModule,
    trainer: Options,
    early_stopping: int,
    every_n_steps: int,
    minutes: float,
    show: str | Sequence[str] | None = "none",
    options: Options | None = None,
) -> list[Callback]:
    """Return the callbacks with which a run is saved, timed and shown.

    Args:
        run_folder: where the run writes.
        data: decides whether there is a val_acc to watch.
        trainer: the options of the Trainer, which can switch parts off.
        early_stopping: stop after N validations in a row without a better val_acc; 0 disables it.
        every_n_steps: steps between checkpoints within an epoch; 0 is none.
        minutes: minutes between them; 0 is none.
        show: what to show in TensorBoard beside the curves (see `show`).
        options: of the run, which its checkpoints hold beside the precision: the seed.
    """
    validates = bool(data.hparams["val_size"]) and trainer["limit_val_batches"] != 0
    callbacks = run_callbacks(
        run_folder,
        resume_command(run_folder),
        "val_acc" if validates else None,
        "max",
        every_n_steps,
        minutes,
        saves=trainer["enable_checkpointing"] is not False,
        progress=trainer["enable_progress_bar"] is not False,
        metrics=SHOWN_METRICS,
    )
    callbacks += [RunReport(run_folder, options), ClassTable()]
    if trainer["logger"] is not False:
        callbacks += [LearningRates(), *show_callbacks(show)]
    if early_stopping:
        if not validates:
            give = f"give {option('data.val_size')} 1 or more"
            raise UserError(f"{option('early_stopping')} needs validation images: {give}")
        callbacks.append(EarlyStopping("val_acc", "max", early_stopping))
    return lean(callbacks)


def build_trainer(run: Run, more: Sequence[Callback], meeting: Meeting | None) -> L.Trainer:
    """Return the Trainer with its plugs."""
    options, config = run.options, dict(run.options["trainer"])
    plugins, given = config["plugins"] or [], config["callbacks"] or []
    config["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), VerifiedCheckpointIO()]
    callbacks = [*(given if isinstance(given, list) else [given]), *more]
    if run.stage != "fit":
        config |= {"logger": False, "enable_checkpointing": False}
        interval = 1 if run.stage == "predict" else 10
        bar = [progress_bar(interval)] if config["enable_progress_bar"] is not False else []
        callbacks += [StopOnSignal(), Restoring(), ClassTable(), *bar]
    if run.folder:
        callbacks += fit_callbacks(
            run.folder,
            run.data,
            config,
            options["early_stopping"],
            options["checkpoint_every_n_steps"],
            options["checkpoint_minutes"],
            options["show"],
            {"seed_everything": options["seed_everything"]},
        )
        if config["logger"] is not False:
            config["logger"] = _loggers(run)
    if run.stage == "fit" and config["max_time"] is not None:
        callbacks.append(Timer(config["max_time"]))
        config["max_time"] = None
    if run.folder and config["profiler"] in PROFILERS:
        config["profiler"] = PROFILERS[config["profiler"]](dirpath=run.folder, filename="profile")
    config["profiler"] = config["profiler"] or NoProfiler()
    config["callbacks"] = callbacks
    checksums = run.data.prepared.checksums if run.data.prepared else {}
    command = _command(run, more) if processes(config, run.seat) > 1 else ()
    choose_strategy(config, run.seat, command, lambda: facts(checksums, equal_on_all(options)), meeting)
    try:
        trainer = L.Trainer(**config)
    except (TypeError, ValueError, ModuleNotFoundError) as error:  # the Trainer looks at its options itself
        if isinstance(error, UserError | MisconfigurationException):
            raise
        raise UserError(f"the Trainer refuses its options: {' '.join(str(error).split())[:300]}") from error
    if (why := fault(trainer.precision, trainer.strategy.root_device)) and not run.seat.rank:
        say(f"note: {option('trainer.precision')} {trainer.precision}: {why}", sys.stderr)
    if run.stage == "fit":
        evaluate_in_float32(trainer)
    return trainer


def _loggers(run: Run) -> list[Logger]:
    """Return the loggers of a run, and say what none of them shows."""
    assert run.folder is not None
    given = run.options["trainer"]["logger"]
    given = [] if given in (None, True) else given if isinstance(given, list | tuple) else [given]
    step = run.step if run.options["ckpt_path"] else None
    compared = {name: run.options["trainer"][name] for name in COMPARED}
    found = run_loggers(run.folder, step, compared, run.options["logger"], given)
    if (missing := missing_in(found)) and not run.seat.rank:
        say(f"note: {missing}", sys.stderr)
    return found


def _command(run: Run, more: Sequence[Callback]) -> Sequence[str]:
    """Return the options with which the other processes of a run are started."""
    if run.asked or run.seat.launcher:
        return run.asked.command if run.asked else ()
    recipe, left_out = recipe_of(run.options)
    if run.stage != "fit" and not run.options["ckpt_path"]:
        raise UserError(f"{option('trainer.devices')}: other processes have no weights: give {option('ckpt_path')}")
    if str(run.options["trainer"]["strategy"]).lower() in SHARDED and not run.from_options:
        raise UserError(f"{option('trainer.strategy')} fsdp: give the options of the model, so that all build the same")
    own = is_own(run.options["model"]["network"]) or DATASETS[run.options["data"]["dataset"]].kind
    if more or left_out or own or type(run.model) is not Classifier:
        what = ", ".join(left_out) or "callbacks, a model, a network or a data set of your own"
        raise UserError(
            f"{option('trainer.devices')}: other processes cannot be given {what}; start the script with torchrun"
        )
    if run.stage != "fit":
        recipe = {name: value for name, value in recipe.items() if name not in FIT or name == "seed_everything"}
    place = ["--ckpt_path", run.options["ckpt_path"]] if run.options["ckpt_path"] else []
    return [run.stage, "--config", json.dumps(recipe), *place]
