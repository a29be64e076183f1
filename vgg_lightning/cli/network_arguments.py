"""Arguments of the subcommands that take a network and its options: `NETWORK --ratio 4 --batch_norm`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.base.options import without_group
from vgg_lightning.cli.jsonargparse_private import options
from vgg_lightning.cli.one_line import OneLineParser
from vgg_lightning.networks import NETWORKS, network_options

BOOLS = {"true": True, "false": False}


class Parser(OneLineParser):
    """A parser that knows the options of every network."""

    def __init__(self, subcommand: str, description: str) -> None:
        super().__init__(f"vgg-lightning {subcommand}", description=description, allow_abbrev=False)
        self._flags: set[str] = set()

    def add_network_options(self) -> None:
        """Add one option for each that a network of the table has; those not given stay out of the result."""
        group = self.add_argument_group("options of the networks")
        for option, (default, names) in _all_options().items():
            kind = _boolean if isinstance(default, bool) else type(default)
            who = "all" if len(names) == len(NETWORKS) else ", ".join(names)
            group.add_argument(
                f"--{option}",
                type=kind,
                default=argparse.SUPPRESS,
                metavar=kind.__name__.strip("_").upper(),
                help=who,
            )
            if isinstance(default, bool):
                self._flags.add(f"--{option}")

    def parse(self, args: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
        """Return the subcommand's own arguments, and the options of the networks that were given.

        Raises:
            UserError: if an argument is unknown, missing or of the wrong kind.
        """
        args = without_group("model", without_group("model.options", args))  # as fit spells them
        namespace, unknown = self.parse_known_intermixed_args(_with_values(args, self._flags))
        if unknown:
            word = unknown[0].split("=")[0]
            raise UserError(f"argument {word} is unknown{nearest(word, options(self))}: see {self.prog} --help")
        own = vars(namespace)
        return namespace, {option: own.pop(option) for option in _all_options() if option in own}


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _boolean(text: str) -> bool:
    if text.lower() not in BOOLS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return BOOLS[text.lower()]


def _all_options() -> dict[str, tuple[object, list[str]]]:
    """Return for each option its default and the networks that have it."""
    options: dict[str, tuple[object, list[str]]] = {}
    for name in NETWORKS:
        for option, default in network_options(name).items():
            options.setdefault(option, (default, []))[1].append(name)
    return options


def _with_values(args: Sequence[str], flags: Iterable[str]) -> list[str]:
    """Turn `--flag` and `--flag true` into `--flag=true`, so that a flag never takes the network's name."""
    result: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word in flags:
            word += f"={rest.pop(0)}" if rest and rest[0].lower() in BOOLS else "=true"
        result.append(word)
    return result
