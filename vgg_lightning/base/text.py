"""Text for people: rows of figures as a table, CSV or Markdown, units, names of files, commands."""

from __future__ import annotations

import csv
import io
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from vgg_lightning.base.imports import import_options

FORMATS = ("table", "json", "csv", "markdown")
WIDTH = 100  # columns of a screen
ROOT = Path(__file__).parents[2]  # of the checkout, where there is one
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of one

MODULES = {"vgg-lightning": "vgg_lightning", "tensorboard": "tensorboard.main"}  # where there is no script

Row = Sequence[object]


def table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """Return aligned columns; numbers stand on the right."""
    cells = [[printable(text) for text in row] for row in [header, *([cell_text(v) for v in row] for row in rows)]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = _right_aligned(rows, len(header))
    lines = [
        "  ".join(
            text.rjust(width) if r else text.ljust(width) for text, width, r in zip(row, widths, right, strict=True)
        )
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def wrapped(text: str) -> str:
    """Return a text in lines of at most `WIDTH` columns."""
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def narrow_table(header: Sequence[str], rows: Sequence[Row], width: int, all_in: str) -> str:
    """Return a table of at most `width` columns; what does not fit is left out on the right, and said in a last line.

    Args:
        header: names of the columns.
        rows: of the table.
        width: of the screen.
        all_in: where all of it can be read.
    """
    for count in range(len(header), 0, -1):
        text = table(header[:count], [row[:count] for row in rows])
        if max(map(len, text.split("\n"))) <= width or count == 1:
            break
    left_out = header[count:]
    return f"{text}\n{', '.join(left_out)}: in {all_in}" if left_out else text


def markdown(header: Sequence[str], rows: Sequence[Row]) -> str:
    """Return a Markdown table; numbers stand on the right."""
    rule = ["---:" if right else "---" for right in _right_aligned(rows, len(header))]
    cells = [
        list(header),
        rule,
        *([printable(cell_text(value)).replace("|", "\\|").strip() for value in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def csv_text(header: Sequence[str], rows: Sequence[Row]) -> str:
    """Return comma-separated values, numbers in full; a shape is written as 64x112x112."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(csv_cell, header))
    writer.writerows([_in_csv(value) for value in row] for row in rows)
    return buffer.getvalue().rstrip("\n")


def cell_text(value: object) -> str:
    """Return a value for people: 1,234 for a whole number, 64x112x112 for a shape, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return shape_text(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def count(number: int, thing: str) -> str:
    """Return 1 epoch, 2 epochs, 1,000 steps."""
    plural = "es" if thing.endswith("ch") and thing != "epoch" else "s"
    return f"{number:,} {thing}{'' if number == 1 else plural}"


def short(value: float) -> str:
    """Return a metric in few digits: 0.1234, and 3.269e+16 for what is far from one."""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Return a time in words: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def minutes(seconds: float) -> str:
    """Return a time with a decimal of a minute, and in seconds below one: 1.3 min, 40 s."""
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{max(seconds, 0):.0f} s"


def shape_text(shape: Sequence[int]) -> str:
    """Return 64x112x112."""
    return "x".join(map(str, shape))


def scaled(value: float) -> str:
    """Return a count with a decimal prefix: 7.61 G."""
    for prefix, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            return f"{value / unit:.2f} {prefix}"
    return f"{value:g}"


def memory(value: float) -> str:
    """Return bytes with a binary prefix: 12.3 MiB, which are 12.3 times 1,048,576 bytes."""
    for prefix, unit in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= unit:
            return f"{value / unit:,.1f} {prefix}"
    return f"{value:g} B"


def printable(text: str) -> str:
    r"""Return a text on one line: what is no printable character as an escape such as \x1b.

    A name from a file may hold what moves the cursor, turns the text around, or is no text at all.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def csv_cell(text: str) -> str:
    """Return a text as it stands in a CSV file: printable, and none that a spreadsheet would take for a formula."""
    return printable(f"'{text}" if text.startswith(FORMULA) else text)


def say(text: str, stream: TextIO | None = None) -> None:
    """Print lines that may hold names from files, at once.

    What is no printable character is shown as an escape, and so is what the encoding of the terminal does not have.

    Args:
        text: one line or more.
        stream: where to; standard output by default.
    """
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = "\n".join(map(printable, text.split("\n")))
    print(shown.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def show_any_text() -> None:
    """Let standard output show as an escape what its encoding does not have, as standard error does by itself."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def program(name: str) -> str:
    """Return what to type to start a program of this environment, which need not be on the path, or have no script.

    This package's own is told to import the modules that this process has been told to import.
    """
    return " ".join([_place_of(name), *(import_options() if name == "vgg-lightning" else ())])


def _place_of(name: str) -> str:
    folder, on_path = Path(sys.executable).parent, shutil.which(name)
    if own := shutil.which(name, path=str(folder)):
        return name if on_path == own else _from_here(Path(own))
    module = MODULES.get(name)
    return f"{_from_here(Path(sys.executable))} -m {module}" if module and not on_path else name


def _from_here(path: Path) -> str:
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def install_line(extra: str) -> str:
    """Return what to type to install the packages of an extra, as this package itself was installed.

    Double quotes are understood by the shells of all systems.

    Args:
        extra: of pyproject.toml, such as "serve".
    """
    if (ROOT / "pyproject.toml").is_file():
        return f'pip install -e "{"." if Path.cwd() == ROOT else ROOT}[{extra}]"'
    from importlib import metadata

    found = (text.partition(";") for text in metadata.requires("vgg-lightning") or ())
    return " ".join(["pip install", *(f'"{name.strip()}"' for name, _, when in found if f'"{extra}"' in when)])


def _in_csv(value: object) -> object:
    if isinstance(value, tuple):
        return shape_text(value)
    return csv_cell(value) if isinstance(value, str) else value


def _right_aligned(rows: Sequence[Row], columns: int) -> list[bool]:
    """Whether each column holds numbers: all its texts but the empty ones start with a digit."""
    texts = [[cell_text(row[i]) for row in rows] for i in range(columns)]
    return [any(column) and all(text[:1].isdigit() for text in column if text) for column in texts]
