"""`vgg-lightning presets [NAME]`: the shipped configurations, with their cost and accuracy."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.base.text import table
from vgg_lightning.cli.one_line import OneLineParser
from vgg_lightning.presets import DEFAULT, header, presets

WIDTH = 100


def main(args: list[str]) -> int:
    """Print a table of the presets, or all that is known of those that are named."""
    parser = OneLineParser(prog="vgg-lightning presets", description=__doc__, allow_abbrev=False)
    parser.add_argument("name", nargs="*", help="a preset to describe (default: list all)")
    names = parser.parse_args(args).name
    known = presets()
    for name in names:
        if name not in known:
            raise UserError(f"preset {name!r} is unknown{nearest(name, known)}: the presets are {', '.join(known)}")
        print("\n".join(_described(name, header(known[name]))))
    if not names:
        print(
            table(("preset", "accuracy", "takes", "what it is"), [_row(n, header(file)) for n, file in known.items()])
        )
        print("\n* without --config; use one: vgg-lightning fit --config NAME; more of it: vgg-lightning presets NAME")
    return 0


def _described(name: str, fields: dict[str, str]) -> Iterable[str]:
    yield f"{name}{' (the default)' if name == DEFAULT else ''}"
    costs = [f"{key}: {fields[key]}" for key in ("cost", "reaches", "command") if key in fields]
    for paragraph in (fields["about"], *costs):
        yield textwrap.fill(paragraph, WIDTH, initial_indent="    ", subsequent_indent="    ")


def _row(name: str, fields: dict[str, str]) -> tuple[str, str, str, str]:
    """Return name, test accuracy, time and device, and the beginning of the description, in at most `WIDTH` columns."""
    time = re.match(r"[\d.]+ \w+|under a minute", fields.get("cost", ""))
    device = re.search(r"CPU|H\d00", fields.get("cost", ""))
    percent = re.search(r"([\d.]+) % on the official|test acc (\.\d+)", fields.get("reaches", ""))
    accuracy = (float(percent[1]) if percent[1] else 100 * float(percent[2])) if percent else None
    about = textwrap.shorten(re.split(r"[.,:;] ", fields["about"])[0].rstrip("."), 44, placeholder=" ...")
    return (
        f"{name}{' *' if name == DEFAULT else ''}",
        f"{accuracy:.2f} %" if accuracy else "",
        ", ".join(found[0] for found in (time, device) if found),
        about,
    )
