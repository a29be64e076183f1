"""Download and verify a data set, and print its source; for your own images, show what the network will see."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from PIL import Image, ImageDraw

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.base.files import replace
from vgg_lightning.base.options import without_group
from vgg_lightning.base.text import printable, say, table
from vgg_lightning.data.files import DATASETS, Prepared, default_data_dir, prepare, some_pixels
from vgg_lightning.data.sources.catalogue import find_dataset

OPTIONS = ("--data_dir", "--dataset", "--output", "--help")
SHEET = "contact_sheet.png"
EACH = 10  # images of a class on the contact sheet
MOST_ROWS = 62  # classes on it
ENLARGED = 2  # times
LABEL = 150  # pixels for the name of a class


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as all of the project's are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def main(args: list[str]) -> int:
    """Run `vgg-lightning data` with its arguments and return the exit code.

    Raises:
        UserError: A wrong option, or data that cannot be had.
    """
    options, extra = _parser().parse_known_args(without_group("data", args))
    if extra:
        raise UserError(f"unknown option {extra[0]}{nearest(extra[0], OPTIONS)}: data takes {', '.join(OPTIONS)}")
    if options.output and not find_dataset(options.dataset).own:
        raise UserError("--output is for a contact sheet of your own data, --dataset idx or folder: leave it out")
    prepared = prepare(options.data_dir, options.dataset)
    print(report(options.dataset, prepared))
    if prepared.classes:
        file = Path(options.output or SHEET).expanduser()
        sheet = contact_sheet(prepared, options.dataset)
        replace(file, lambda part: sheet.save(part, format="PNG"))
        say(f"contact sheet: {file}, what the network will see of {EACH} training images a class")
    return 0


def contact_sheet(prepared: Prepared, dataset: str) -> Image.Image:
    """Return training images of each class as they go into the network, a row for each class."""
    size = ENLARGED * 28 + 4
    rows = some_pixels(prepared, dataset, EACH)[:MOST_ROWS]
    sheet = Image.new("L", (LABEL + EACH * size, len(rows) * size), 64)
    draw = ImageDraw.Draw(sheet)
    for y, (name, images) in enumerate(zip(prepared.classes, rows, strict=False)):
        draw.text((6, y * size + size // 2 - 6), printable(name)[:24], fill=255)
        for x, pixels in enumerate(images):
            image = Image.fromarray(pixels).resize((ENLARGED * 28, ENLARGED * 28), Image.Resampling.NEAREST)
            sheet.paste(image, (LABEL + x * size, y * size + 2))
    return sheet


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
    more = {"sizes": prepared.sizes, "left out": prepared.left_out}
    said = [f"{name}: {text}" for name, text in more.items() if text]
    return [*table(["class", *splits], rows).splitlines(), *said]


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
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=f"the contact sheet, a PNG of your own images as the network will see them (default: {SHEET} here)",
    )
    return parser
