"""Checks the values of the Trainer's options and of a run's own before anything is written."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry

from vgg_lightning.base.errors import UserError, nearest, option
from vgg_lightning.base.options import Rows, in_range
from vgg_lightning.base.process import seat
from vgg_lightning.base.text import count
from vgg_lightning.run.ending import check_duration
from vgg_lightning.run.parallel.devices import SHARDED, processes
from vgg_lightning.training.options import OPTIONS as MODEL
from vgg_lightning.training.run_options import FIT, TRAINER

LONGEST_NAME = 100  # characters


def check_trainer(options: Mapping[str, Any]) -> None:
    """Raise UserError for the first option of the Trainer that no run can use.

    Args:
        options: by name, without the "trainer." in front.
    """
    _check_ranges("trainer.", TRAINER, options)
    for name, row in TRAINER.items():
        if row.choices:
            _check_name(name, options.get(name), row.choices)
    if options.get("max_epochs") == -1 and options.get("max_steps", -1) == -1:
        raise UserError(f"{option('trainer.max_epochs')} -1 never ends: give {option('trainer.max_steps')} as well")
    for what in ("epochs", "steps"):
        least, most = options.get(f"min_{what}"), options.get(f"max_{what}")
        if least and most is not None and 0 < most < least:
            named = f"{option(f'trainer.max_{what}')} {most}"
            raise UserError(f"{option(f'trainer.min_{what}')} {least} contradicts {named}, which ends the run before")
    if (time := options.get("max_time")) is not None and _is_no_time(time):
        raise UserError(f"{option('trainer.max_time')} {time} leaves no time to train: give it as DD:HH:MM:SS")
    _check_name("strategy", options.get("strategy"), ("auto", *StrategyRegistry.available_strategies()))
    _check_accelerator(options.get("accelerator"))
    _check_devices(options.get("devices"), options.get("accelerator"))
    check_duration(options.get("max_time"))
    if re.match(r"\w+://", place := str(options.get("default_root_dir"))):
        named = option("trainer.default_root_dir")
        raise UserError(f"{named} {place}: runs are written to a folder on this machine: name one")


def check_batches(options: Mapping[str, Any], batches: Mapping[str, int]) -> None:
    """Raise UserError for a limit of the Trainer that leaves no batch, or a validation that never comes.

    Args:
        options: of the Trainer, by name.
        batches: of each split that is read, "train", "val", "test" and "predict".
    """
    left = dict(batches)
    for split, number in batches.items():
        limit = options[f"limit_{split}_batches"]
        if isinstance(limit, float):
            left[split] = int(limit * number)
        elif limit is not None:
            left[split] = min(limit, number)
        if number and limit and not left[split]:
            named, least = option(f"trainer.limit_{split}_batches"), math.ceil(1000 / number) / 1000
            raise UserError(f"{named} {limit} of {count(number, 'batch')} is none: give 1, or {least:g} or more")
    every = options["val_check_interval"] if left.get("train") and left.get("val") else None
    if type(every) is int and options["check_val_every_n_epoch"] is not None and every > left["train"]:
        epoch = f"an epoch has {count(left['train'], 'batch')}"
        raise UserError(f"{option('trainer.val_check_interval')} {every} is out of range: {epoch}")


def check_begun_epoch(options: Mapping[str, Any], begun: int, batches: int) -> None:
    """Raise UserError for options of the Trainer with which a run cannot go on within the epoch that it has begun.

    Args:
        options: of the Trainer, by name.
        begun: batches of that epoch which are done; 0 if none is begun.
        batches: of an epoch, before limits.
    """
    limit, accumulated = options["limit_train_batches"], options["accumulate_grad_batches"]
    left = int(limit * batches) if isinstance(limit, float) else min(batches, limit or batches)
    stands = f"the run stands within an epoch, after {count(begun, 'batch')}"
    if begun > left:
        raise UserError(f"{option('trainer.limit_train_batches')} {limit}: {stands}: give {begun} or more")
    if begun < left and begun % accumulated:
        raise UserError(f"{option('trainer.accumulate_grad_batches')} {accumulated}: {stands}: give a divisor of that")


def notes(options: Mapping[str, Any]) -> list[str]:
    """Return what to say before a run of options that change nothing in it.

    Args:
        options: all of a run, the groups "trainer" and "data" as tables.
    """
    trainer, found = options["trainer"], list[str]()
    if tried := int(trainer["fast_dev_run"]):
        found.append(f"{option('trainer.fast_dev_run')}: it tries {count(tried, 'batch')}, and saves and tests nothing")
    found += [f"{option(f'trainer.{name}')} does nothing here: {why}" for name, why in _idle(trainer, options)]
    every, epochs, patience = trainer["check_val_every_n_epoch"], trainer["max_epochs"], options["early_stopping"]
    validates = options["data"]["val_size"] and trainer["limit_val_batches"] != 0 and not trainer["fast_dev_run"]
    if not validates or not every or epochs is None or epochs < 0 or trainer["val_check_interval"] not in (None, 1.0):
        return found
    if not epochs // every:
        named = option("trainer.check_val_every_n_epoch")
        found.append(f"{named} {every} of {count(epochs, 'epoch')}: no validation is run, and there is no best.ckpt")
    if patience and epochs // every <= patience:
        validations = count(epochs // every, "validation")
        found.append(f"{option('early_stopping')} {patience} cannot stop this run, which has {validations}")
    return found


def _idle(trainer: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the options of the Trainer that do nothing beside the others, and why."""
    for name, parameter in inspect.signature(L.Trainer).parameters.items():
        if (idle := TRAINER[name].idle) and trainer[name] != parameter.default:
            yield name, idle
    if trainer["sync_batchnorm"] and processes(trainer, seat()) == 1:
        yield "sync_batchnorm", "there is one process"
    if trainer["gradient_clip_algorithm"] and trainer["gradient_clip_val"] is None:
        yield "gradient_clip_algorithm", f"give {option('trainer.gradient_clip_val')} as well"
    if trainer["benchmark"] and not torch.cuda.is_available():
        yield "benchmark", "it is for GPUs"
    if trainer["limit_predict_batches"] is not None:
        yield "limit_predict_batches", "it is for predict"
    ends_early = options["early_stopping"] or trainer["max_time"] is not None or trainer["callbacks"]
    for name in ("min_epochs", "min_steps"):
        if trainer[name] and not ends_early:
            yield name, f"neither {option('early_stopping')} nor {option('trainer.max_time')} ends the run before"


def check_run(options: Mapping[str, Any]) -> None:
    """Raise UserError for a name, a seed or a patience that cannot be used."""
    _check_ranges("", FIT, options)
    name = options.get("name")
    if name is not None and not re.fullmatch(rf"\w[\w.+-]{{0,{LONGEST_NAME - 1}}}", name):
        if len(name) > LONGEST_NAME:
            raise UserError(f"{option('name')} has {len(name):,} characters: a name takes {LONGEST_NAME} at most")
        raise UserError(f"{option('name')} {name!r} is not a valid folder name: use letters, digits, '-', '_' and '.'")


def check_sharded(strategy: str, model: Mapping[str, Any]) -> None:
    """Raise UserError for options of the model with which its weights cannot be shared among processes.

    Args:
        strategy: the Trainer's.
        model: options of the model.
    """
    if strategy.lower() not in SHARDED:
        return
    for name, row in MODEL.items():
        if row.fsdp and not row.fsdp.fits(model[name]):
            raise UserError(f"{option(f'model.{name}')} {model[name]} {row.fsdp.text}")


def _is_no_time(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip("0:")
    return not (any(value.values()) if isinstance(value, Mapping) else value)


def _check_ranges(prefix: str, rows: Rows, options: Mapping[str, Any]) -> None:
    for name, row in rows.items():
        value = options.get(name)
        if row.takes and isinstance(value, int | float) and not in_range(value, row.takes):
            raise UserError(f"{option(prefix + name)} {value} is out of range: it takes {row.takes.phrase}")


def _check_name(name: str, value: Any, known: Collection[str]) -> None:
    if isinstance(value, str) and value not in known:
        near = nearest(value, known)
        shown = near or f": it takes {', '.join(list(known)[:6])}{', ...' if len(known) > 6 else ''}"
        raise UserError(f"{option(f'trainer.{name}')} {value!r} is unknown{shown}")


def _check_accelerator(value: Any) -> None:
    known = ("auto", "gpu", *AcceleratorRegistry.available_accelerators())
    _check_name("accelerator", value, known)
    if value in ("auto", "cpu") or not isinstance(value, str):
        return
    here: dict[str, Callable[[], bool]] = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    names = ("cuda", "mps") if value == "gpu" else (value,)
    if all(name in here and not here[name]() for name in names):
        raise UserError(
            f"{option('trainer.accelerator')} {value}: no GPU here; use {option('trainer.accelerator')} cpu"
        )


def _check_devices(value: Any, accelerator: Any) -> None:
    if value == "auto" or isinstance(value, list):
        return
    text = str(value)
    number = int(text) if re.fullmatch(r"-?\d{1,9}", text) else None
    on_cpu = accelerator == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if number is None and not on_cpu and re.fullmatch(r"\d+(,\d+)*,?", text):
        return
    if number is None or not (number >= 1 or (number == -1 and not on_cpu)):
        raise UserError(f"{option('trainer.devices')} {text[:40]} is out of range: it takes auto or 1 or more")
