"""The options of `fit` for a search: their types, which can be used, and which differ from the defaults."""

from __future__ import annotations

import itertools
import json
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from vgg_lightning.base.errors import UserError
from vgg_lightning.classifier import Classifier
from vgg_lightning.cli.defaults import with_defaults
from vgg_lightning.cli.jsonargparse_private import type_hints
from vgg_lightning.cli.lightning import VGGLightningCLI, quiet
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.data.sizes import Sizes
from vgg_lightning.prepare import complete, size
from vgg_lightning.sweep.space import Space, argument, extremes
from vgg_lightning.training.run_options import left_out_of_presets

SET_BY_SWEEP = ("name", "test", "ckpt_path", "resume", "print_config")
FIXED = (*SET_BY_SWEEP, "config", "trainer.default_root_dir", "trainer.devices", "help", "model", "data", "trainer")
NO_RECIPE = (*SET_BY_SWEEP, "config", *left_out_of_presets("fit"))
ALWAYS_SAID = ("model.network", "data.image_size", "trainer.max_epochs")  # in a preset
COMBINATIONS = 64  # of other options that are tried before a value is refused

Config = dict[str, Any]


class FitOptions:
    """What stands before the options of each trial, and the parser that reads both.

    Args:
        options: of the user, as for `fit`.

    Raises:
        UserError: if `fit` would refuse them, or a search cannot use them.
    """

    def __init__(self, options: list[str]) -> None:
        _refuse(options)
        quiet()
        self.base = with_defaults("fit", options)
        self.cli = VGGLightningCLI("fit", self.base)
        self.parser = self.cli.parser
        self.config = self.parse({})
        self._say_sizes()
        self._check_use()

    def arguments(self, params: Mapping[str, Any]) -> list[str]:
        """Return the arguments of `fit` for a trial with these values."""
        chosen = [part for name, value in params.items() for part in (f"--{name}", argument(value))]
        devices = [] if any(part.partition("=")[0] == "--trainer.devices" for part in self.base) else ["1"]
        return [*self.base, *chosen, "--test", "false", *(["--trainer.devices", *devices] if devices else [])]

    def parse(self, params: Mapping[str, Any]) -> Any:
        """Return the configuration of a trial."""
        return self.parser.parse_args(self.arguments(params))

    def hints(self) -> dict[str, tuple[type, ...]]:
        """Return option -> the kinds of number that it takes, for all that a search may vary."""
        found: dict[str, tuple[type, ...]] = {}
        for name, hint in {**type_hints(self.parser), **self.cli.network_options()}.items():
            if name not in FIXED:
                kinds = (hint, *typing.get_args(hint))
                found[name] = tuple(kind for kind in (int, float) if kind in kinds)
        return {name: kinds for name, kinds in found.items() if "." in name or name in vars(self.config)}

    def check(self, space: Space) -> None:
        """Raise UserError for the first end of a range, or choice, with which no trial could run."""
        self._try({})
        for name, distribution in space.items():
            others = {other: extremes(space[other]) for other in space if other != name}
            for value in extremes(distribution):
                self._check_value(name, value, others)

    def plain(self, params: Mapping[str, Any]) -> Config:
        """Return what differs from the defaults, without what belongs to one machine: the body of a preset."""
        defaults, config = self._as_dict(self.parser.get_defaults()), self._as_dict(self.parse(params))
        result: Config = {}
        for group, value in config.items():
            if isinstance(value, dict):
                old, skip = {**(defaults.get(group) or {}), **Sizes()._asdict()}, left_out_of_presets(group)
                result[group] = {
                    k: v
                    for k, v in value.items()
                    if k not in skip and (v != old.get(k) or f"{group}.{k}" in ALWAYS_SAID)
                }
            elif group not in NO_RECIPE and value != defaults.get(group):
                result[group] = value
        if config.get("seed_everything"):
            result["seed_everything"] = config["seed_everything"]
        return {key: value for key, value in result.items() if value != {}}

    def _say_sizes(self) -> None:
        """Let all trials have the sizes that follow from the data now, whatever size of a batch is searched for."""
        options = self.config.as_dict()
        places = [("data", "val_size"), ("data", "batch_size"), ("trainer", "max_epochs")]
        unsaid = [(group, name) for group, name in places if options[group][name] is None]
        complete("fit", options)
        size("fit", options, {})
        self.base += [f"--{group}.{name}={options[group][name]}" for group, name in unsaid]
        self.config = self.parse({})

    def _as_dict(self, config: Any) -> Config:
        found: Config = json.loads(self.parser.dump(config, format="json", skip_none=False, skip_validation=True))
        return found

    def _check_use(self) -> None:
        trainer = self.config.trainer
        if trainer.fast_dev_run:
            raise UserError("--trainer.fast_dev_run writes no run folder, which a search needs: leave it out")
        if not self.config.data.val_size or trainer.limit_val_batches == 0:
            raise UserError("a search compares val_acc: give --data.val_size 1 or more, and validate")
        if str(trainer.devices).strip("[], ").count(",") or str(trainer.devices) in ("auto", "-1"):
            raise UserError("a trial runs on one device: leave --trainer.devices out, or name one")
        if str(trainer.devices).isdigit() and int(trainer.devices) != 1:
            raise UserError("a trial runs on one device: start the same sweep again for the next one")

    def _check_value(self, name: str, value: Any, others: dict[str, list[Any]]) -> None:
        """Accept a value that works alone, or with some of the values that the other options can have."""
        first: UserError | None = None
        for combination in itertools.islice(_combinations(others), COMBINATIONS):
            try:
                return self._try({name: value, **combination})
            except UserError as error:
                first = first or error
        raise UserError(f"{name} {argument(value)} of the space cannot be used: {first}")

    def _try(self, params: Mapping[str, Any]) -> None:
        options = self.parse(params).as_dict()
        complete("fit", options)
        with torch.device("meta"):
            Classifier(**{**options["model"], "weights": None})
        FashionMNISTDataModule(**options["data"])


def _combinations(others: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    yield {}
    for values in itertools.product(*others.values()):
        yield dict(zip(others, values, strict=True))


def _refuse(options: list[str]) -> None:
    for option in options:
        name = option.partition("=")[0].lstrip("-")
        if name == "test":
            raise UserError("--test: a search never looks at the test images; test the best configuration, once")
        if option.startswith("--") and name in SET_BY_SWEEP:
            raise UserError(f"{option.partition('=')[0]} is set by sweep itself: leave it out")
