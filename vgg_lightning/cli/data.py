"""Fetch and verify a data set, and say where it came from."""

from __future__ import annotations

import argparse
from typing import NoReturn

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.base.text import printable, table
from vgg_lightning.data.files import DATASETS, Prepared, default_data_dir, prepare

OPTIONS = ("--data_dir", "--dataset", "--help")


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as all of the project's are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def main(args: list[str]) -> int:
    """Run `vgg-lightning data` with its arguments and return the exit code.

    Raises:
        UserError: A wrong option, or data that cannot be had.
    """
    options, extra = _parser().parse_known_args(args)
    if extra:
        raise UserError(f"unknown option {extra[0]}{nearest(extra[0], OPTIONS)}: data takes {', '.join(OPTIONS)}")
    prepared = prepare(options.data_dir, options.dataset)
    print(report(options.dataset, prepared))
    return 0


def report(dataset: str, prepared: Prepared) -> str:
    """Return what is there, where, and where it came from, as lines for people."""
    known = DATASETS[dataset]
    lines = [f"{known.title} in {prepared.folder}", f"source: {prepared.source}", *_classes(prepared)]
    if not known.files:
        return "\n".join([*lines, *(f"{split:<5} sha256 {digest}" for split, digest in prepared.checksums.items())])
    for file in known.files:
        size = (prepared.folder / file.name).stat().st_size
        state = "verified" if file.sha256 else "structure checked"
        lines.append(f"{file.name:<23} {size:>10,} bytes  {state}  sha256 {prepared.checksums[file.name]}")
    return "\n".join(lines)


def _classes(prepared: Prepared) -> list[str]:
    """Return a table of the classes of the user's own data, and what is left out."""
    if not prepared.classes:
        return []
    splits = list(prepared.counts)
    rows = [
        (printable(name), *(prepared.counts[split][label] for split in splits))
        for label, name in enumerate(prepared.classes)
    ]
    rows.append(("all", *(sum(prepared.counts[split]) for split in splits)))
    left_out = [f"left out: {prepared.left_out}"] if prepared.left_out else []
    return [*table(["class", *splits], rows).splitlines(), *left_out]


def _parser() -> _Parser:
    parser = _Parser(prog="vgg-lightning data", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help=f"the data folder (default: $VGG_LIGHTNING_DATA or {default_data_dir()})",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        default="fashion_mnist",
        help=f"one of {', '.join(DATASETS)} (default: %(default)s)",
    )
    return parser
