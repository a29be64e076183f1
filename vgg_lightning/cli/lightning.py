"""fit, validate, test and predict: LightningCLI with one fixed model and one fixed data class, so options stay flat."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from vgg_lightning.base import progress
from vgg_lightning.base.errors import LostProcessError, UserError
from vgg_lightning.base.files import write_whole
from vgg_lightning.base.machine import ROOM_TO_KEEP, free_memory, keep_freed_memory
from vgg_lightning.base.process import seat
from vgg_lightning.base.text import say
from vgg_lightning.classifier import Classifier
from vgg_lightning.cli import predict
from vgg_lightning.cli.agreement import agree
from vgg_lightning.cli.defaults import follow_data, run_name, with_defaults
from vgg_lightning.cli.fit_options import add_fit_options
from vgg_lightning.cli.limits import check_run, check_sharded, check_trainer
from vgg_lightning.cli.options import LINKED, equal_on_all
from vgg_lightning.cli.parser import Parser, prefer_whole_numbers
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.prepare import fit_callbacks
from vgg_lightning.run.checkpoints.io import VerifiedCheckpointIO
from vgg_lightning.run.checkpoints.locate import RunFinished, check_space, check_writable
from vgg_lightning.run.folders import discard_run_folder, run_folder_of, shared_run_folder
from vgg_lightning.run.folders import loggers as run_loggers
from vgg_lightning.run.parallel.devices import check_processes, processes
from vgg_lightning.run.parallel.launcher import together
from vgg_lightning.run.parallel.rendezvous import Meeting, facts, meeting_before_trainer
from vgg_lightning.run.parallel.strategies import choose_strategy
from vgg_lightning.run.progress import progress_bar
from vgg_lightning.run.stop import StopOnSignal
from vgg_lightning.show import shown_names
from vgg_lightning.show.class_table import ClassTable, print_class_table
from vgg_lightning.show.report import RunReport, in_percent, print_next_steps
from vgg_lightning.training.memory import check_training_fits

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 10,  # the book's
    "num_sanity_val_steps": 0,  # validation follows the first epoch anyway
    "enable_model_summary": False,  # `vgg-lightning summary` says more; a run says it in one line
}


def main(args: list[str], launch: Callable[[str, list[str]], VGGLightningCLI] | None = None) -> int:
    """Run one of Trainer's verbs: `args` is the verb and its options. `launch` makes the CLI, to change how it runs."""
    verb, *options = args
    quiet()
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # for what Lightning's own callbacks load, such as finders
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    speaks: contextlib.AbstractContextManager[Any] = contextlib.nullcontext() if seat().rank == 0 else silence()
    try:
        with speaks, together():
            return (launch or VGGLightningCLI)(verb, with_defaults(verb, options)).exit_code
    except RunFinished as finished:
        print(finished)
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error
    return 0


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what a process prints off the screen. Its standard output is still one that can be asked and flushed."""
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        yield


def quiet() -> None:
    """Keep Lightning's notes that ask nothing of the user off the screen."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for note in (
        r".*directory .* exists and is not empty",  # config.yaml is in it
        r".*WeightAveraging state cannot be restored",  # nor need it be, to test
        r".*isinstance\(treespec, LeafSpec\)",
        r".*smaller than the logging interval",
        r".*requested to overfit but enabled",  # the loader reads a fixed order then
        r".*callbacks used to create the checkpoint need to be provided",  # to fit; this is test or predict
        r".*sync_dist=True.*",  # the metrics have been added up over the processes already
        r".*torch.jit.trace.*",  # how TensorBoard draws the graph
    ):
        warnings.filterwarnings("ignore", note)


class VGGLightningCLI(LightningCLI):
    """LightningCLI for one verb: builds that verb's parser only, and decides where a run goes."""

    def __init__(self, verb: str, args: list[str]) -> None:
        self.verb = verb
        self.run_folder: Path | None = None
        self.resume_step: int | None = None
        self.exit_code = 0
        self.fresh_folder: Path | None = None  # made by this launch, and gone again if its options are at fault
        self.command = [verb, *args]
        self.seat = seat()
        self.meeting: Meeting | None = None
        try:
            self._launch(verb, args)
        except (UserError, MisconfigurationException, LostProcessError) as error:
            if getattr(error, "code", 2) == 2:  # bad input, here or in another process
                self._discard_folder()
            raise

    def _discard_folder(self) -> None:
        if self.fresh_folder:
            discard_run_folder(self.fresh_folder)

    def _launch(self, verb: str, args: list[str]) -> None:
        prefer_whole_numbers()
        super().__init__(
            Classifier,
            FashionMNISTDataModule,
            save_config_callback=None,  # written in before_fit, once the run folder is there
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={"allow_abbrev": False},  # of the parent, whose word goes for the verb's parser
            parser_class=Parser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # keeps hyperparameters plain values
            args=[verb, *args],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the one verb, with the arguments of Trainer's method that are not options."""
        skip = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "weights_only"}
        return {self.verb: {*skip, "return_predictions"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a run, and link what model and data must agree on."""
        for target, source in LINKED.items():
            parser.link_arguments(source, target)
        parser.set_defaults({"model.num_classes": None})  # it follows the data, see parse_arguments
        if self.verb == "predict":
            predict.add_options(parser)
        if self.verb == "fit":
            add_fit_options(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args` without Lightning's warning that sys.argv is there too."""
        self.config = parser.parse_args(args)
        config = self.config[self.verb]
        follow_data(config)
        check_run(config)
        predict.check_options(self.verb, config)
        if self.verb == "fit":
            shown_names(config.show)
        if config.data.seed is None:
            config.data.seed = int(config.seed_everything)

    def _parse_ckpt_path(self) -> None:
        """Refuse options that contradict the checkpoint, where LightningCLI would override them without a word."""
        if self.config[self.verb].ckpt_path:
            self.resume_step = agree(self.verb, self.config[self.verb])

    def before_instantiate_classes(self) -> None:
        """Refuse what no Trainer can use, before anything is written."""
        config = self.config[self.verb]
        check_trainer(config.trainer)
        check_processes(config.trainer, config.data.batch_size, self.seat)
        check_sharded(config.trainer["strategy"], config.model)
        self.meeting = meeting_before_trainer(self.seat)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the Trainer, with loggers and callbacks of a run folder if the verb is fit."""
        self.model.check_data(self.datamodule)
        config = self.config_init[self.verb]
        if self.verb != "fit":
            if processes(config.trainer, self.seat) > 1:
                self.datamodule.prepare_data()  # now, to compare the data before anything runs
            return super().instantiate_trainer(**{"logger": False, "enable_checkpointing": False, **kwargs})
        self.datamodule.prepare_data()  # before the run folder is made: without data there is no run
        self.datamodule.setup("fit")
        batch_size = min(self.datamodule.hparams["batch_size"], len(self.datamodule.pictures("train")[1]))
        needed = check_training_fits(self.model, batch_size, str(config.trainer.precision))
        if 0 < ROOM_TO_KEEP * needed < free_memory():
            keep_freed_memory()
        if config.trainer.fast_dev_run:
            return super().instantiate_trainer(**kwargs)
        resumed = run_folder_of(Path(config.ckpt_path)) if config.ckpt_path else None
        self.run_folder = resumed or shared_run_folder(config.trainer.default_root_dir, self._run_name(), self.meeting)
        if self.seat.rank == 0:
            self.fresh_folder = None if resumed else self.run_folder
            check_writable(self.run_folder)
            if config.trainer.enable_checkpointing is not False:
                check_space(self.run_folder, self.model, dict(self.model.hparams))
        return super().instantiate_trainer(**kwargs)

    def _facts(self) -> dict[str, str]:
        """Return what must be equal on all processes."""
        checksums = self.datamodule.prepared.checksums if self.datamodule.prepared else {}
        return facts(checksums, equal_on_all(self.config[self.verb].as_dict()))

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> L.Trainer:
        plugins = config["plugins"] or []
        config["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), VerifiedCheckpointIO()]
        if self.verb != "fit":
            interval = 1 if self.verb == "predict" else 10
            bar = [progress_bar(interval)] if config["enable_progress_bar"] is not False else []
            callbacks = [*callbacks, StopOnSignal(), ClassTable(), *bar]
        if self.run_folder:
            options = self.config_init[self.verb]
            callbacks = [
                *callbacks,
                *fit_callbacks(
                    self.run_folder,
                    self.datamodule,
                    config,
                    options.early_stopping,
                    options.checkpoint_every_n_steps,
                    options.checkpoint_minutes,
                    options.show,
                ),
            ]
            if config["logger"] in (None, True):
                config["logger"] = run_loggers(self.run_folder, self.resume_step if options.ckpt_path else None)
        choose_strategy(config, self.seat, self.command, self._facts, self.meeting)
        try:
            return super()._instantiate_trainer(config, callbacks)
        except (TypeError, ValueError) as error:  # the Trainer looks at its options itself
            raise UserError(f"the Trainer refuses its options: {' '.join(str(error).split())[:300]}") from error

    def _run_name(self) -> str:
        config = self.config[self.verb]
        if config.name:
            return str(config.name)
        files = [Path(str(path)) for path in config.config or [] if path]
        return run_name(files) if files else str(config.model.network)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand in ("validate", "test"):
            kwargs["verbose"] = False  # Lightning's table is in colour, whatever it is written to; ours follows
        return {**kwargs, "weights_only": True}  # a checkpoint is data: nothing in it may run

    def before_fit(self) -> None:
        """Save the configuration beside the run, and say where that is."""
        if self.run_folder is None or self.seat.rank:
            return
        file = self.run_folder / "config.yaml"
        write_whole(file, self._parser(self.verb).dump(self.config[self.verb], skip_none=False))
        say(f"run folder: {self.run_folder}")

    def after_fit(self) -> None:
        """Test the best checkpoint, write results.json and print what to do next."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        report = next((c for c in callbacks if isinstance(c, RunReport)), None)
        if report is None or self.run_folder is None:
            return
        if self.config[self.verb].test:
            report.test(self.trainer, self.model, self.datamodule)
        if not self.trainer.is_global_zero:
            return
        try:
            report.write(self.trainer, self.datamodule)
        except OSError as error:
            print(f"results.json is not written: {error.strerror}", file=sys.stderr)
            self.exit_code = 1
        print_class_table(self.trainer)
        print_next_steps(report)
        for logger in self.trainer.loggers:
            if unsaved := getattr(logger, "unsaved", ""):
                progress.say(f"{unsaved} could not be written")
                self.exit_code = 1
        if any(getattr(c, "failed", False) for c in callbacks):
            print("the newest checkpoint could not be written: make room and resume the run", file=sys.stderr)
            self.exit_code = 1

    def before_validate(self) -> None:
        """Say which weights are used."""
        print(f"weights: {self.config[self.verb].ckpt_path}")

    before_test = before_predict = before_validate

    def after_validate(self) -> None:
        """Print the accuracy as fit does, and the loss."""
        metrics = self.trainer.callback_metrics
        for split, accuracy, loss in (("val", "validation    ", "val loss"), ("test", "test accuracy ", "test loss")):
            if f"{split}_acc" in metrics:
                print(f"{accuracy} {in_percent(metrics, f'{split}_acc')}")
            if f"{split}_loss" in metrics:
                print(f"{loss:14} {float(metrics[f'{split}_loss']):.4f}")
        print_class_table(self.trainer)

    after_test = after_validate

    def predict(self, **kwargs: Any) -> None:
        """Classify the test pictures or your own, and write predictions.csv."""
        self.exit_code = predict.predict(self.trainer, self.model, self.datamodule, self.config[self.verb], kwargs)
