"""The options of a run, complete and checked, before anything is built."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

from vgg_lightning.base.errors import UserError, nearest, option
from vgg_lightning.base.text import say
from vgg_lightning.classifier import Classifier
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.data.files import class_names, default_data_dir, training_counts
from vgg_lightning.data.sizes import STEPS, Sizes
from vgg_lightning.data.sources.catalogue import find_dataset
from vgg_lightning.loading.agreement import run_options
from vgg_lightning.loading.opened import Opened
from vgg_lightning.prepare.run import Options, Run, Stage
from vgg_lightning.run.loggers.choice import chosen as chosen_loggers
from vgg_lightning.run.precision import AUTO, DEFAULT, chosen, evaluated_in, usable
from vgg_lightning.show import shown_names
from vgg_lightning.training.limits import check_run, check_trainer, notes
from vgg_lightning.training.options import own_options

TRAINER_DEFAULTS: Options = {
    "max_epochs": None,  # see `size`
    "num_sanity_val_steps": 0,  # validation follows the first epoch anyway
    "enable_model_summary": False,  # `vgg-lightning summary` says more; a run says it in one line
}


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
        chosen_loggers(options["logger"])
        if options["logger"] is not None and options["trainer"]["logger"] not in (None, True):
            raise UserError(f"{option('logger')} and {option('trainer.logger')} are both given: give one of them")
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = options["trainer"]["accelerator"] == "cpu" or not has_gpu
    if options["trainer"]["precision"] == AUTO:
        begins = stage == "fit" and not options.get("ckpt_path") and not options["trainer"]["plugins"]
        options["trainer"]["precision"] = chosen(on_cpu) if begins else None  # else that of the run, or of the plugin
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


def settle(run: Run, opened: Opened | None) -> None:
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


def _defaults(owner: type) -> Options:
    """Return the options that a class takes, with their defaults."""
    return {name: parameter.default for name, parameter in inspect.signature(owner).parameters.items()}


def _filled(group: str, given: Mapping[str, Any], defaults: Options) -> Options:
    for name in given:
        if name not in defaults:
            known = [option(f"{group}.{known}") for known in defaults]
            raise UserError(f"option {option(f'{group}.{name}')} is unknown{nearest(option(f'{group}.{name}'), known)}")
    return {**defaults, **given}


def _data_options(data: Any, model: Any) -> Options:
    """Return the options of the data, of which image size and channels follow the model unless they are given."""
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
    found["options"] = own_options(found) or None
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
