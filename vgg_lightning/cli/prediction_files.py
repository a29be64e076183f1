"""Predictions for your own images: a table on the screen, predictions.csv, predictions.json.

Names of files and classes are shown with escapes instead of control characters and line breaks; the
exact ones are in predictions.json. In predictions.csv a name that a spreadsheet would take for a formula gets something
in front: that of a file "./", which means the same file, that of a class an apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vgg_lightning.base.files import replace
from vgg_lightning.base.text import FORMULA, csv_cell, printable, say
from vgg_lightning.data.images.folder import Found
from vgg_lightning.version import __version__

MOST_LINES = 20  # of a list on the screen
WIDEST = 40  # columns of a file's name on the screen


class Answer(NamedTuple):
    """What the network says of one image: the likeliest classes, best first."""

    file: str
    top: list[tuple[str, float]]  # class name, probability


class Answers:
    """What the network says of all images, in the order of their names.

    Args:
        found: the images, and those not read.
        class_names: of the classes.
        batches: (probabilities (N, num_classes), places in `found.names` (N,)) of every batch.
        top_k: how many classes to keep for each image.
    """

    def __init__(self, found: Found, class_names: Sequence[str], batches: Sequence[Any], top_k: int) -> None:
        self.found, self.top_k = found, top_k
        self.class_names = list(class_names)
        self.rows: list[Answer] = []
        for probabilities, places in batches:
            best = torch.topk(probabilities, top_k, dim=1)
            for values, labels, i in zip(best.values.tolist(), best.indices.tolist(), places.tolist(), strict=True):
                top = [(self.class_names[label], p) for label, p in zip(labels, values, strict=True)]
                self.rows.append(Answer(found.names[i], top))


def write(answers: Answers, folder: Path, options: dict[str, Any]) -> list[Path]:
    """Write predictions.csv and predictions.json, each whole or not at all, and return them.

    Args:
        answers: what to write.
        folder: where.
        options: what the numbers come from.
    """
    table, everything = folder / "predictions.csv", folder / "predictions.json"
    replace(table, lambda part: part.write_text(_csv(answers), encoding="utf-8", newline=""))
    replace(everything, lambda part: part.write_text(_json(answers, options), encoding="ascii"))
    return [table, everything]


def _csv(answers: Answers) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    ranks = range(1, answers.top_k + 1)
    writer.writerow(["file", *(f"{column}_{rank}" for rank in ranks for column in ("class", "probability"))])
    for file_name, top in answers.rows:
        writer.writerow([csv_name(file_name), *(part for name, p in top for part in (csv_cell(name), f"{p:.4f}"))])
    return text.getvalue()


def csv_name(name: str) -> str:
    """Return a file's name as it stands in predictions.csv."""
    return printable(f"./{name}" if name.startswith(FORMULA) else name)


def _json(answers: Answers, options: dict[str, Any]) -> str:
    found = answers.found
    content = {
        "vgg_lightning": __version__,
        "options": options,
        "class_names": answers.class_names,
        "folder": str(found.root),
        "pictures": [
            {"file": file, "top": [{"class": name, "probability": round(p, 6)} for name, p in top]}
            for file, top in answers.rows
        ],
        "not_read": [{"file": file, "reason": reason} for file, reason in sorted(found.refused)],
        "passed_over": {"hidden": found.hidden, "no image": found.others},
    }
    return json.dumps(content, indent=1) + "\n"


def report(answers: Answers, files: Sequence[Path]) -> None:
    """Print the table and where the files are; what was not read goes to stderr."""
    found, refused = answers.found, sorted(answers.found.refused)
    if answers.rows:
        say(table(answers))
    notes = [f"{len(answers.rows):,} images classified"]
    notes += [f"{number:,} {what} passed over" for number, what in _passed_over(found) if number]
    say(f"{', '.join(notes)}\npredictions: {' and '.join(map(str, files))}")
    for name, reason in refused[:MOST_LINES]:
        say(f"not read: {printable(name)}: {reason}", sys.stderr)
    if refused:
        more = f", {len(refused) - MOST_LINES:,} more in predictions.json" if len(refused) > MOST_LINES else ""
        say(f"{len(refused):,} of {len(answers.rows) + len(refused):,} images were not read{more}", sys.stderr)


def _passed_over(found: Found) -> list[tuple[int, str]]:
    return [(found.hidden, "hidden"), (found.others, "of other kinds")]


def table(answers: Answers) -> str:
    """Return the images with their likeliest classes in aligned columns; of a long list, the beginning."""
    shown = answers.rows[:MOST_LINES]
    tops = [[(printable(name), p) for name, p in answer.top] for answer in shown]
    width = max(columns(name) for top in tops for name, _ in top)
    names = [_shortened(printable(answer.file)) for answer in shown]
    widest = max(map(columns, names))
    lines = [
        padded(name, widest) + "".join(f"   {padded(c, width)} {100 * p:5.1f} %" for c, p in top)
        for name, top in zip(names, tops, strict=True)
    ]
    if left := len(answers.rows) - len(shown):
        lines.append(f"... and {left:,} more in predictions.csv")
    return "\n".join(lines)


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def padded(text: str, width: int) -> str:
    """Return a text with spaces behind it, up to `width` columns."""
    return text + " " * (width - columns(text))


def _shortened(name: str) -> str:
    """Return the end of a name that is too long for the table: folders are left out before the file."""
    if columns(name) <= WIDEST:
        return name
    while columns(name) > WIDEST - 3:
        name = name[1:]
    return f"...{name}"
