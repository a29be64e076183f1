"""A run is prepared, then run: the same two calls from Python, from the command line, from a sweep and from a finder.

    run = prepare(Classifier(ratio=4), FashionMNISTDataModule(), trainer={"max_epochs": 5}, name="mine")
    results = fit(run)

`prepare` refuses options that no run can use, builds what is not there yet, makes the run folder, and puts into
Lightning's Trainer what saves, guards, shows and resumes a run. `fit`, `validate`, `test` and `predict` do the rest.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

from vgg_lightning.base.errors import LostProcessError, UserError, option
from vgg_lightning.base.files import write_whole
from vgg_lightning.base.machine import ROOM_TO_KEEP, free_memory, keep_freed_memory
from vgg_lightning.base.process import SHARED, Seat, own_environment, seat
from vgg_lightning.base.text import program, say
from vgg_lightning.classifier import Classifier
from vgg_lightning.data.batches import in_order
from vgg_lightning.data.datamodule import FashionMNISTDataModule, Split
from vgg_lightning.data.files import class_names, default_data_dir, training_counts
from vgg_lightning.data.sizes import STEPS, Sizes
from vgg_lightning.data.sources.catalogue import find_dataset
from vgg_lightning.loading.agreement import agree, run_options, saved_config
from vgg_lightning.loading.opened import Opened, open_checkpoint
from vgg_lightning.loading.run_data import data_of
from vgg_lightning.run import collectives
from vgg_lightning.run.checkpoints import read
from vgg_lightning.run.checkpoints.callbacks import Restoring
from vgg_lightning.run.checkpoints.io import VerifiedCheckpointIO
from vgg_lightning.run.checkpoints.locate import check_space, check_writable, find_checkpoint, newest_valid
from vgg_lightning.run.ending import EarlyStopping, Timer
from vgg_lightning.run.folders import discard_run_folder, run_folder_of, shared_run_folder
from vgg_lightning.run.folders import loggers as run_loggers
from vgg_lightning.run.kit import run_callbacks
from vgg_lightning.run.lightning_private import lean
from vgg_lightning.run.lock import FolderLock
from vgg_lightning.run.parallel.devices import SHARDED, check_processes, processes
from vgg_lightning.run.parallel.rendezvous import Meeting, facts, meeting_before_trainer
from vgg_lightning.run.parallel.strategies import choose_strategy
from vgg_lightning.run.precision import DEFAULT, emulates, evaluate_in_float32, evaluated_in, unified, usable
from vgg_lightning.run.progress import progress_bar
from vgg_lightning.run.session import session
from vgg_lightning.run.stop import StopOnSignal
from vgg_lightning.show import show_callbacks, shown_names
from vgg_lightning.show.class_table import ClassTable, print_class_table
from vgg_lightning.show.report import RunReport, in_percent, parts_of, print_next_steps
from vgg_lightning.training.limits import check_batches, check_run, check_sharded, check_trainer, notes
from vgg_lightning.training.memory import check_training_fits, checkpoint_bytes
from vgg_lightning.training.metrics import LearningRates
from vgg_lightning.training.run_options import FIT, all_rows, equal_on_all

Stage = Literal["fit", "validate", "test", "predict"]
Options = dict[str, Any]

TRAINER_DEFAULTS: Options = {
    "max_epochs": None,  # see `size`
    "num_sanity_val_steps": 0,  # validation follows the first epoch anyway
    "enable_model_summary": False,  # `vgg-lightning summary` says more; a run says it in one line
}
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
SHOWN_METRICS = ("train_loss", "train_acc", "val_loss", "val_acc", "val_acc_tta")  # after every epoch


class Asked(NamedTuple):
    """What the command line knows of a run that it prepares.

    Attributes:
        command: the subcommand and its options, with which the other processes of a run are started.
        default_name: of the run, if its options have none.
        save_config: writes config.yaml into a file, given what differs from the options as they were typed.
    """

    command: Sequence[str]
    default_name: str
    save_config: Callable[[Path, Options], None]


@dataclass
class Run:
    """A run that is ready: give it to `fit`, `validate`, `test` or `predict`, the one that it was prepared for.

    Attributes:
        stage: what it was prepared for.
        model: the network and how it is trained.
        data: the images.
        trainer: Lightning's, with all callbacks, loggers and plugins.
        options: of the run, by name as in config.yaml, complete.
        folder: where it writes; None if it leaves no trace.
        step: at which a resumed run goes on, else None.
        problems: what failed without ending the run, such as a checkpoint that could not be written.
    """

    stage: Stage
    options: Options
    asked: Asked | None
    seat: Seat
    model: Classifier = field(init=False)
    data: FashionMNISTDataModule = field(init=False)
    trainer: L.Trainer = field(init=False)
    folder: Path | None = None
    step: int | None = None
    problems: list[str] = field(default_factory=list)
    from_options: bool = True  # whether `prepare` has built the model
    fresh_folder: Path | None = None  # made by `prepare`, and removed again if the options are at fault
    lock: FolderLock | None = None  # of the folder, held from `prepare` to the end of `fit`


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
        early_stopping: validations in a row without a better val_acc after which to stop; 0 never stops early.
        checkpoint_every_n_steps: steps between checkpoints within an epoch; 0 is none.
        checkpoint_minutes: minutes between them; 0 is none.
        show: what to show in TensorBoard beside the curves; see `show`.
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
    own |= {"checkpoint_minutes": checkpoint_minutes, "show": show, "test": test}
    options = {"seed_everything": seed, "trainer": dict(trainer or {}), "model": model, "data": data}
    run = Run(stage, {**options, "name": name, **own, "ckpt_path": file and str(file)}, asked, seat())
    with _session_of(run):
        complete(stage, run.options)
        asked, usable_here = (trainer or {}).get("precision"), run.options["trainer"]["precision"]
        if unified(asked) != usable_here and not run.seat.rank:
            say(f"note: {option('trainer.precision')} {asked}: a CPU computes in {usable_here}", sys.stderr)
        owner = type(model) if isinstance(model, Classifier) else Classifier
        opened = open_checkpoint(file, owner, hand_on=True) if file else None
        size(stage, run.options, opened.data_options if opened else {})
        if file:
            run.step = agree(stage, run.options, owner)
        _settle(run, opened)
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
            _hold_folder(run, meeting)
        _ready_data(run, record)
        if stage == "fit":
            _check_batches(run)
        if writes and not run.folder:
            _make_folder(run, meeting)
        run.trainer = _trainer(run, callbacks, meeting)
    return run


def fit(run: Run) -> dict[str, Any]:
    """Train, test the best checkpoint, and return what is in results.json: `test_acc`, `val_acc`, `epochs` and so on.

    The run ends as it does on the command line: with signals obeyed, results written and next steps printed.

    Raises:
        UserError: if an option cannot be used, which is found out only now.
        NonFiniteError: if a loss, a gradient or a weight is NaN or Inf.
        Interrupted: if a signal has come; the newest checkpoint is written.
    """
    with _session_of(run, "fit"), run.lock.at_work() if run.lock else contextlib.nullcontext():
        if run.folder and not run.seat.rank:
            try:
                _save_config(run, run.folder / "config.yaml")
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
    with _session_of(run, "predict"):
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


def complete(stage: Stage, options: Options) -> None:
    """Fill in the options of a run, and refuse those that no run can use, before anything is built or written.

    Args:
        stage: what is to run.
        options: as in config.yaml: "trainer", "model" and "data" hold the options that were given, or the model and the
            data module themselves. All tables are complete afterwards.

    Raises:
        UserError: if an option is unknown or out of its range.
    """
    options["trainer"] = _filled("trainer", options["trainer"], {**_defaults(L.Trainer), **TRAINER_DEFAULTS})
    options["data"] = _data_options(options["data"], options["model"])
    options["model"] = _model_options(options["model"], options["data"])
    check_run(options)
    _check_own_images(stage, options)
    if stage == "fit":
        shown_names(options["show"])
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = options["trainer"]["accelerator"] == "cpu" or not has_gpu
    options["trainer"]["precision"] = usable(options["trainer"]["precision"], on_cpu)
    check_trainer(options["trainer"])


def size(stage: Stage, options: Options, saved: Mapping[str, Any]) -> None:
    """Fill in `val_size`, `batch_size` and `max_epochs` where nobody said them; say those that follow own data.

    Args:
        stage: what is to run.
        options: as `complete` leaves them.
        saved: options of the data in the checkpoint that is opened, which count before the number of images.

    Raises:
        UserError: if the images cannot be counted.
    """
    data, trainer = options["data"], options["trainer"]
    places = {"val_size": data, "batch_size": data, "max_epochs": trainer}
    data.update({name: saved[name] for name in saved.keys() & places.keys() if data[name] is None})
    if stage != "fit" and trainer["max_epochs"] is None:
        trainer["max_epochs"] = Sizes().max_epochs  # the Trainer wants one, though nothing is trained
    unsaid = [name for name, group in places.items() if group[name] is None]
    if not unsaid:
        return
    sizes, images = sizes_of(data, trainer)
    for name in unsaid:
        places[name][name] = getattr(sizes, name)
    if images and stage == "fit":
        groups = {"val_size": "data", "batch_size": "data", "max_epochs": "trainer"}
        said = ", ".join(f"{option(f'{groups[name]}.{name}')} {getattr(sizes, name)}" for name in unsaid)
        say(f"for {images:,} training images: {said}")


def sizes_of(data: Mapping[str, Any], trainer: Mapping[str, Any]) -> tuple[Sizes, int]:
    """Return the sizes of a run where nobody says them, and the number of own training images that they follow or 0.

    Args:
        data: the options of the data.
        trainer: those of the Trainer.

    Raises:
        UserError: if the images cannot be counted.
    """
    if not find_dataset(data["dataset"], data["classes"]).own:
        return Sizes(), 0
    counts = training_counts(data["data_dir"], data["dataset"], data["classes"])
    steps = STEPS if trainer["max_steps"] in (None, -1) else trainer["max_steps"]
    return Sizes.of(counts, data["val_size"], data["batch_size"], steps), sum(counts)


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
        early_stopping: validations in a row without a better val_acc after which to stop; 0 never stops early.
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


# What `prepare` is made of, in the order in which it happens.


@contextlib.contextmanager
def _session_of(run: Run, stage: Stage | None = None) -> Iterator[None]:
    """Hold a session; on bad input, remove the folder that was made for the run, and speak of arguments in Python."""
    if stage not in (None, run.stage):
        raise UserError(f"this run is prepared to {run.stage}: prepare another one with stage={stage!r}")
    done = False
    try:
        with session(), own_environment():
            if run.folder:
                os.environ[SHARED] = str(run.folder)  # for the processes that the Trainer starts
            yield
            done = True
    except (UserError, LostProcessError) as error:
        if run.fresh_folder and getattr(error, "code", 2) == 2:  # bad input, here or in another process
            discard_run_folder(run.fresh_folder)
        raise
    finally:
        if run.lock and not done:
            run.lock.release()


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


def _defaults(owner: type) -> Options:
    return {name: parameter.default for name, parameter in inspect.signature(owner).parameters.items()}


def _filled(group: str, given: Mapping[str, Any], defaults: Options) -> Options:
    for name in given:
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1)
            meant = f" (did you mean {option(f'{group}.{near[0]}')}?)" if near else ""
            raise UserError(f"option {option(f'{group}.{name}')} is unknown{meant}")
    return {**defaults, **given}


def _settle(run: Run, opened: Opened | None) -> None:
    """Fix what nobody has said, seed and precision, and say what of the options does nothing here."""
    options, trainer = run.options, run.options["trainer"]
    if run.stage == "validate" and not (options["data"]["val_size"] and trainer["limit_val_batches"] != 0):
        none = "data.val_size" if not options["data"]["val_size"] else "trainer.limit_val_batches"
        raise UserError(f"there is nothing to validate on: {option(none)} is 0; test takes the test images")
    if run.stage == "fit" and not run.seat.rank:
        for line in notes(options):
            say(f"note: {line}", sys.stderr)
    seed = 0 if options["seed_everything"] is None else options["seed_everything"]
    if seed is not False:
        seed = L.seed_everything(None if seed is True else seed, workers=True)
    options["seed_everything"] = seed
    if options["data"]["seed"] is None:
        options["data"]["seed"] = int(seed)
    if trainer["precision"] is None and not trainer["plugins"]:
        trained = run_options(opened.checkpoint) if opened and run.stage != "fit" else {}
        trainer["precision"] = evaluated_in(trained.get("precision", DEFAULT))


def _data_options(data: Any, model: Any) -> Options:
    if isinstance(data, FashionMNISTDataModule):
        place = data.data_dir if data.data_dir != default_data_dir() else None
        paths = {"data_dir": place and str(place), "predict_path": data.predict_path}
        return {**_defaults(FashionMNISTDataModule), **data.hparams, **paths}
    model = model.hparams if isinstance(model, Classifier) else model
    linked = {name: model[name] for name in ("image_size", "in_channels") if name in model}
    return _filled("data", data or {}, {**_defaults(FashionMNISTDataModule), **linked})


def _model_options(model: Any, data: Options) -> Options:
    """Return the options of a model, of which sizes and number of classes follow the data unless they are given."""
    if isinstance(model, Classifier):
        return {**_defaults(Classifier), **model.hparams, "teacher": model.teacher and model.teacher.path}
    linked = {name: data[name] for name in ("image_size", "in_channels")}
    found = _filled("model", model, {**_defaults(Classifier), **linked, "num_classes": None})
    if found["num_classes"] is None:
        found["num_classes"] = len(class_names(data["dataset"], data["classes"], data["data_dir"]))
    return found


def _check_own_images(stage: Stage, options: Options) -> None:
    """Let the user's own images be classified by one process. Raises UserError if others are asked for."""
    if options["data"]["predict_path"] is None:
        return
    if stage != "predict":
        raise UserError(f"{option('data.predict_path')} goes with predict: leave it out of {stage}")
    devices = options["trainer"]["devices"]
    if devices in ("auto", -1, "-1"):
        options["trainer"]["devices"] = 1
        return
    parts = devices if isinstance(devices, list) else str(devices).strip(",").split(",")
    lists_one = len(parts) == 1 and (isinstance(devices, list) or "," in str(devices))
    if str(devices) != "1" and not lists_one:
        raise UserError(
            f"{option('trainer.devices')}: own images are classified by one process; give 1, or leave it out"
        )


def _ready_data(run: Run, record: bool) -> None:
    """Have the data before anything is written: without data there is no run. Raises UserError if memory is short."""
    trainer = run.options["trainer"]
    if run.stage != "fit":
        if processes(trainer, run.seat) > 1:
            run.data.prepare_data()  # now, to compare the data before anything runs
        return
    run.data.prepare_data()
    run.data.setup("fit")
    if not record:
        return
    batch_size = min(run.data.hparams["batch_size"], len(run.data.pictures("train")[1]))
    needed = check_training_fits(run.model.hparams, batch_size, str(trainer["precision"]))
    if 0 < ROOM_TO_KEEP * needed < free_memory():
        keep_freed_memory()


def _check_batches(run: Run) -> None:
    """Raise UserError for limits that leave no batch, before the training that would end with them."""
    trainer, size = run.options["trainer"], run.data.hparams["batch_size"]
    if trainer["fast_dev_run"] or trainer["overfit_batches"]:
        return
    splits: list[Split] = ["train", "val"]
    if run.options["test"] and isinstance(trainer["limit_test_batches"], float) and trainer["limit_test_batches"] < 1:
        run.data.setup("test")
        splits.append("test")
    check_batches(trainer, {split: math.ceil(len(run.data.pictures(split)[1]) / size) for split in splits})


def _make_folder(run: Run, meeting: Meeting | None) -> None:
    default_name = run.asked.default_name if run.asked else str(run.options["model"]["network"])
    name = run.options["name"] or default_name
    run.folder = shared_run_folder(run.options["trainer"]["default_root_dir"], str(name), meeting)
    if run.seat.rank == 0:
        run.fresh_folder = run.folder
    _hold_folder(run, meeting)


def _hold_folder(run: Run, meeting: Meeting | None) -> None:
    """Let this run alone write into its folder, if it has one already. Raises UserError, in all processes at once."""
    folder = run.folder
    if folder is None:
        return
    run.lock = FolderLock(folder)
    refusal = _refusal(run, folder) if meeting is None else meeting.share("hold", lambda: _refusal(run, folder))
    if refusal:
        error = UserError(refusal)
        error.everywhere = meeting is not None
        raise error


def _refusal(run: Run, folder: Path) -> str:
    """Take the folder, and see that there is room. Return why that cannot be, or nothing."""
    if run.seat.rank:
        return ""
    assert run.lock is not None
    file = run.options["ckpt_path"]
    try:
        check_writable(folder)
        run.lock.acquire()
        if file and read.handed_on(Path(file)) is None:
            return f"run {folder} has gone on in another process since its checkpoint was read: resume it again"
        if run.options["trainer"]["enable_checkpointing"] is not False:
            check_space(folder, checkpoint_bytes(run.model))
    except UserError as error:
        return str(error)
    return ""


def _trainer(run: Run, more: Sequence[Callback], meeting: Meeting | None) -> L.Trainer:
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
        if config["logger"] in (None, True):
            config["logger"] = run_loggers(run.folder, run.step if options["ckpt_path"] else None)
    if run.stage == "fit" and config["max_time"] is not None:
        callbacks.append(Timer(config["max_time"]))
        config["max_time"] = None
    if run.folder and config["profiler"] in PROFILERS:
        config["profiler"] = PROFILERS[config["profiler"]](dirpath=run.folder, filename="profile")
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
    if emulates(trainer.precision, trainer.strategy.root_device) and not run.seat.rank:
        slow = f"this {trainer.strategy.root_device.type} only emulates it, and is faster with 32-true"
        say(f"note: {option('trainer.precision')} {trainer.precision}: {slow}", sys.stderr)
    if run.stage == "fit":
        evaluate_in_float32(trainer)
    return trainer


def _command(run: Run, more: Sequence[Callback]) -> Sequence[str]:
    """Return the options with which the other processes of a run are started."""
    if run.asked or run.seat.launcher:
        return run.asked.command if run.asked else ()
    recipe, left_out = _recipe(run.options)
    if run.stage != "fit" and not run.options["ckpt_path"]:
        raise UserError(f"{option('trainer.devices')}: other processes have no weights: give {option('ckpt_path')}")
    if str(run.options["trainer"]["strategy"]).lower() in SHARDED and not run.from_options:
        raise UserError(f"{option('trainer.strategy')} fsdp: give the options of the model, so that all build the same")
    if more or left_out or type(run.model) is not Classifier:
        what = ", ".join(left_out) or "callbacks or a model of your own"
        raise UserError(
            f"{option('trainer.devices')}: other processes cannot be given {what}; start the script with torchrun"
        )
    if run.stage != "fit":
        recipe = {name: value for name, value in recipe.items() if name not in FIT or name == "seed_everything"}
    place = ["--ckpt_path", run.options["ckpt_path"]] if run.options["ckpt_path"] else []
    return [run.stage, "--config", json.dumps(recipe), *place]


def _recipe(options: Options) -> tuple[Options, list[str]]:
    """Return options as `fit --config` takes them, and the names of those that are objects, which no file can hold."""
    recipe = {**options, **{group: dict(options[group]) for group in ("trainer", "model", "data")}}
    for group, name in (("model", "image_size"), ("data", "in_channels")):  # which follow the other group
        del recipe[group][name]
    left_out = [name for name, value in recipe["trainer"].items() if not _is_plain(value)]
    recipe["trainer"] = {name: value for name, value in recipe["trainer"].items() if name not in left_out}
    return {name: value for name, value in recipe.items() if name != "ckpt_path"}, left_out


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str)


def _unsaved(run: Run) -> list[str]:
    """Return what the loggers could not write."""
    return [unsaved for logger in run.trainer.loggers if (unsaved := getattr(logger, "unsaved", ""))]


def _save_config(run: Run, file: Path) -> None:
    kept = _kept_places(file.parent, run.options)
    if run.asked:
        used = {"seed_everything": run.options["seed_everything"], "trainer.precision": run.trainer.precision}
        used["trainer.max_epochs"] = run.options["trainer"]["max_epochs"]
        used |= {f"{group}.{name}": run.options[group][name] for group, name in _PLACES} | kept
        for group, name, row in all_rows():
            settled = row.resumed != "obeyed" and run.options["ckpt_path"] and not row.follows
            if group in ("model", "data") and (settled or name in FILLED) and not row.place:
                used[f"{group}.{name}"] = run.options[group][name]
        run.asked.save_config(file, used)
        return
    recipe, left_out = _recipe(run.options)
    for place, value in kept.items():
        group, _, name = place.partition(".")
        recipe[group][name] = value
    write_whole(file, yaml.safe_dump(recipe, sort_keys=False))
    if left_out:
        say(f"config.yaml leaves out {', '.join(left_out)} of the Trainer: objects are in no file", sys.stderr)


FILLED = ("num_classes", "seed", "val_size", "batch_size")  # by `prepare`, where nobody has said them
_PLACES = [(group, name) for group, name, row in all_rows() if row.place and group != "fit"]


def _kept_places(folder: Path, options: Options) -> Options:
    """Return the paths that the config.yaml of a run has and that this launch was not given: part of its recipe."""
    found = saved_config(folder) if options["ckpt_path"] else {}
    kept: Options = {}
    for group, name in _PLACES:
        there = found.get(group)
        if isinstance(there, dict) and options[group].get(name) is None and isinstance(there.get(name), str):
            kept[f"{group}.{name}"] = there[name]
    return kept


def _say_weights(run: Run) -> None:
    if run.options["ckpt_path"]:
        say(f"weights: {run.options['ckpt_path']}")


def _evaluate(run: Run, stage: Literal["validate", "test"]) -> dict[str, float]:
    with _session_of(run, stage):
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


def _part_tested(run: Run) -> str:
    """Return in words which part of the test images was tested; nothing if it was all of them."""
    part = parts_of(run.trainer, run.data, 0).get("tested_on")
    return part.text if part and not part.is_whole else ""


def _metrics(run: Run) -> dict[str, float]:
    return {name: float(value) for name, value in run.trainer.callback_metrics.items()}


def _callbacks(run: Run) -> list[Callback]:
    found: list[Callback] = run.trainer.callbacks  # type: ignore[attr-defined]
    return found
