"""The legal values of the Trainer's options and of a run's own, checked before anything is written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.run.parallel.devices import SHARDED

Rule = tuple[Callable[[Any], bool], str]


def _is_share(value: Any) -> bool:
    return value >= 0 if isinstance(value, int) else 0 <= value <= 1


_COUNT: Rule = (lambda value: value >= 1, "1 or more")
_NOT_NEGATIVE: Rule = (lambda value: value >= 0, "0 or more")
_SHARE: Rule = (_is_share, "a number of batches, or a share from 0.0 to 1.0")
_SOME: Rule = (lambda value: _is_share(value) and value > 0, "a number of batches from 1, or a share up to 1.0")

RULES: dict[str, Rule] = {
    "max_epochs": (lambda value: value >= 1 or value == -1, "1 or more, or -1 with --trainer.max_steps"),
    "min_epochs": _NOT_NEGATIVE,
    "max_steps": (lambda value: value >= 1 or value == -1, "1 or more, or -1 for no limit"),
    "min_steps": _NOT_NEGATIVE,
    "limit_train_batches": _SOME,
    "limit_val_batches": _SHARE,
    "limit_test_batches": _SOME,
    "limit_predict_batches": _SOME,
    "overfit_batches": _SHARE,
    "val_check_interval": _SOME,
    "check_val_every_n_epoch": _COUNT,
    "accumulate_grad_batches": _COUNT,
    "gradient_clip_val": (lambda value: value > 0, "a positive number"),
    "log_every_n_steps": _NOT_NEGATIVE,
    "num_sanity_val_steps": (lambda value: value >= -1, "0 or more, or -1 for all"),
    "reload_dataloaders_every_n_epochs": _NOT_NEGATIVE,
    "num_nodes": _COUNT,
    "fast_dev_run": _NOT_NEGATIVE,
}
NAMES: dict[str, tuple[str, ...]] = {
    "gradient_clip_algorithm": ("norm", "value"),
    "profiler": ("simple", "advanced", "pytorch", "xla"),
}
LARGEST_SEED = 2**32 - 1  # what NumPy takes


def check_trainer(options: Mapping[str, Any]) -> None:
    """Raise UserError for the first option of the Trainer that no run can use.

    Args:
        options: by name, without the "trainer." in front.
    """
    for name, (fits, remedy) in RULES.items():
        value = options.get(name)
        if isinstance(value, int | float) and not (math.isfinite(value) and fits(value)):
            raise UserError(f"--trainer.{name} {value} is out of range: it takes {remedy}")
    for name, known in NAMES.items():
        _check_name(name, options.get(name), known)
    if options.get("max_epochs") == -1 and options.get("max_steps", -1) == -1:
        raise UserError("--trainer.max_epochs -1 never ends: give --trainer.max_steps as well")
    _check_name("strategy", options.get("strategy"), ("auto", *StrategyRegistry.available_strategies()))
    _check_accelerator(options.get("accelerator"))
    _check_devices(options.get("devices"), options.get("accelerator"))


def check_run(options: Mapping[str, Any]) -> None:
    """Raise UserError for a name, a seed or a patience that cannot be used."""
    seed = options.get("seed_everything")
    if isinstance(seed, int) and not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"--seed_everything {seed} is out of range: it takes 0 to {LARGEST_SEED}")
    if (patience := options.get("early_stopping")) is not None and patience < 0:
        raise UserError(f"--early_stopping {patience} is out of range: it takes 0 (never) or a number of epochs")
    name = options.get("name")
    if name is not None and not re.fullmatch(r"\w[\w.+-]{0,99}", name):
        raise UserError(f"--name {name!r} is no name for a folder: use letters, digits, '-', '_' and '.'")


def check_sharded(strategy: str, model: Mapping[str, Any]) -> None:
    """Raise UserError for options of the model with which its weights cannot be shared among processes.

    Args:
        strategy: the Trainer's.
        model: options of the model.
    """
    if strategy.lower() not in SHARDED:
        return
    if model["network"] == "whitened_vgg":
        raise UserError("--model.network whitened_vgg is not possible with fsdp, nor large enough for it: use ddp")
    if model["optimizer"] == "muon":
        raise UserError("--model.optimizer muon needs whole matrices, which fsdp does not have: use sgd, or ddp")
    for option in ("ema_decay", "lookahead_steps", "sam_rho"):
        if model[option]:
            raise UserError(f"--model.{option} {model[option]} is not possible with fsdp: use 0, or ddp")


def _check_name(option: str, value: Any, known: tuple[str, ...]) -> None:
    if isinstance(value, str) and value not in known:
        near = nearest(value, known)
        shown = near or f": it takes {', '.join(known[:6])}{', ...' if len(known) > 6 else ''}"
        raise UserError(f"--trainer.{option} {value!r} is unknown{shown}")


def _check_accelerator(value: Any) -> None:
    known = ("auto", "gpu", *AcceleratorRegistry.available_accelerators())
    _check_name("accelerator", value, known)
    if value in ("auto", "cpu") or not isinstance(value, str):
        return
    here: dict[str, Callable[[], bool]] = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    names = ("cuda", "mps") if value == "gpu" else (value,)
    if all(name in here and not here[name]() for name in names):
        raise UserError(f"--trainer.accelerator {value}: no GPU here; use --trainer.accelerator cpu")


def _check_devices(value: Any, accelerator: Any) -> None:
    if value == "auto" or isinstance(value, list):
        return
    text = str(value)
    number = int(text) if re.fullmatch(r"-?\d{1,9}", text) else None
    on_cpu = accelerator == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if number is None and not on_cpu and re.fullmatch(r"\d+(,\d+)*,?", text):
        return
    if number is None or not (number >= 1 or (number == -1 and not on_cpu)):
        raise UserError(f"--trainer.devices {text[:40]} is out of range: it takes auto or 1 or more")
