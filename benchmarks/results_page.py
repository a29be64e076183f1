"""Make docs/results.md out of benchmarks/results/*.csv: `make results`.

TABLES lists the tables that the page shows; a file that is not there is left out, and so is a column that a file lacks.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runner import RESULTS, ROOT

PAGE = ROOT / "docs" / "results.md"
NOT_MEASURED = "not measured"
HEAD = """\
# Results

This page is made of `benchmarks/results/` by `make results`: do not edit it. Every row there also holds versions and
the command that made it. "quiet" says whether the machine did nothing else; speeds measured beside other work are too
low. What was not measured says so.
"""


@dataclass(frozen=True)
class Shown:
    """How a csv file appears on the page.

    Attributes:
        file: its name.
        title: the heading above.
        about: what it says, and how it is made.
        columns: column -> heading; a column that the file lacks is left out, and none given shows all but NEVER.
        measured: the column whose rows count as measured only if it has a value.
    """

    file: str
    title: str
    about: str
    columns: dict[str, str]
    measured: str | None = None


NEVER = ("versions", "command", "date")  # too wide for a page
PERCENT = (
    "val_acc_mean",
    "val_acc_spread",
    "gain",
    "test_acc",
    "test_acc_tta",
    "val_acc",
    "val_acc_tta",
    "accuracy",
    "train_acc",
    "reported_test_acc",
    "reported_train_acc",
    "unchanged",
    "accuracy",
)
TABLES = (
    Shown(
        "presets.csv",
        "Presets",
        "Whole runs of the presets on the official test images, one row a seed: `python -m benchmarks.presets`.",
        {
            "preset": "preset",
            "seed": "seed",
            "test_acc": "test accuracy",
            "test_acc_tta": "with several views",
            "val_acc": "validation",
            "epochs": "epochs",
            "seconds": "seconds",
            "quiet": "quiet",
            "device": "device",
        },
        "test_acc",
    ),
    Shown(
        "record.csv",
        "The most accurate presets",
        "Whole runs; metrics and configuration of each are in `record/`: `python -m benchmarks.record`.",
        {
            "preset": "preset",
            "seed": "seed",
            "test_acc": "test accuracy",
            "test_acc_tta": "with several views",
            "parameters": "parameters",
            "epochs": "epochs",
            "seconds": "seconds",
            "precision": "precision",
            "quiet": "quiet",
            "device": "device",
        },
        "test_acc",
    ),
    Shown(
        "ablation.csv",
        "What each part of a recipe gives",
        "Short runs with one part taken out or added, on validation images: `python -m benchmarks.ablation`.",
        {
            "part": "part",
            "val_acc_mean": "validation accuracy",
            "val_acc_spread": "spread",
            "gain": "gain",
            "seeds": "seeds",
            "epochs": "epochs",
            "train_batches": "batches an epoch",
        },
        "val_acc_mean",
    ),
    Shown(
        "sources.csv",
        "Recipes of the sources",
        "The recipes of the book and its readers, beside what they report: `python -m benchmarks.sources`.",
        {
            "preset": "preset",
            "reported_test_acc": "reported",
            "test_acc": "measured here",
            "epochs": "epochs",
            "recipe_epochs": "of",
            "train_batches": "batches",
            "seconds": "seconds",
            "precision": "precision",
            "device": "device",
            "quiet": "quiet",
        },
        "test_acc",
    ),
    Shown(
        "questions.csv",
        "Exercises of the chapter",
        "Whole runs of `quick` with one thing changed, on validation images (notebook 2): "
        "`python -m benchmarks.questions`.",
        {
            "question": "question",
            "setting": "setting",
            "seed": "seed",
            "epochs": "epochs",
            "val_acc": "validation accuracy",
            "train_loss": "training loss",
            "precision": "precision",
            "device": "device",
        },
        "val_acc",
    ),
    Shown(
        "compare.csv",
        "What networks cost",
        "Speed and memory of networks, by the subcommand `compare`: `python -m benchmarks.questions compare`.",
        {
            "network": "network",
            "ratio": "ratio",
            "image_size": "pixels",
            "batch_size": "batch",
            "params": "parameters",
            "macs": "multiply-adds",
            "training_examples_per_second": "training, images/s",
            "inference_examples_per_second": "inference, images/s",
            "quiet": "quiet",
        },
    ),
    Shown(
        "peers.csv",
        "Compared with alternatives",
        "`make bench`; `benchmarks/README.md` says how. The ratio is this project's figure divided by the contender's.",
        {
            "part": "part",
            "work": "work",
            "contender": "contender",
            "measure": "measure",
            "median": "median",
            "rounds": "rounds",
            "ratio": "ratio",
            "ratio_least": "least",
            "ratio_most": "most",
            "goal": "goal",
            "peak_mb": "peak MB",
            "quiet": "quiet",
        },
    ),
    Shown(
        "growth.csv",
        "How time and memory grow",
        "VGG-11 (ratio 4, 96 x 96, batch 32) with one thing changed: `make growth`.",
        {
            "axis": "what grows",
            "value": "to",
            "images_per_second": "training, images/s",
            "peak_mb": "peak MB",
            "training_gflop_per_step": "GFLOP a step",
            "gflop_per_second": "GFLOP/s",
            "quiet": "quiet",
        },
    ),
    Shown(
        "localise.csv",
        "Where the network looked",
        "Probability that is lost when a fifth of the garment is masked, the hottest or a random one: "
        "`python -m benchmarks.localise`.",
        {},
    ),
    Shown(
        "find_lr.csv",
        "Learning rates by `find lr`",
        "One epoch at the advised learning rate, beside one at the preset's: `python -m benchmarks.find_lr`.",
        {},
    ),
    Shown(
        "precision.csv",
        "What bf16-mixed costs",
        "Paired seeds on the validation images: `python -m benchmarks.precision`.",
        {
            "preset": "preset",
            "seed": "seed",
            "precision": "precision",
            "val_acc": "validation accuracy",
            "val_acc_tta": "with several views",
            "seconds": "seconds",
            "quiet": "quiet",
        },
    ),
    Shown("guards.csv", "What guards cost", "A share of the time without them: `python -m benchmarks.guards`.", {}),
    Shown("gpu.csv", "On a GPU", "`make gpu`; share is that of a product of two 8192 x 8192 matrices in bf16.", {}),
    Shown(
        "robust.csv",
        "Photographs of others",
        "The reference run on images made to look like other people's photographs, each change alone and several "
        "together; f9e82535 is the preparation, and the reference run, of before photographs were in mind. "
        "`python -m benchmarks.robust --images 500`, and `--split test`.",
        {
            "preparation": "prepare_image.py",
            "split": "split",
            "change": "change",
            "images": "images",
            "unchanged": "unchanged",
            "accuracy": "accuracy",
            "caused": "errors caused",
        },
    ),
    Shown(
        "reliability.csv",
        "Runs that are killed, files that are damaged",
        "Counts of the long campaigns: `make test-reliability`.",
        {"test": "test", "passed": "passed", "of": "of"},
    ),
    Shown(
        "reliability_guards.csv",
        "Fuzzed options",
        "Launches with random options that end with an exit code of their own and one line: `make test-reliability`.",
        {"test": "test", "passed": "passed", "of": "of", "seeds": "seeds"},
    ),
)


def page(results: Path = RESULTS) -> str:
    """Return the text of the page."""
    parts = [_section(shown, results / shown.file) for shown in TABLES if (results / shown.file).is_file()]
    return "\n".join([HEAD, *parts])


def _section(shown: Shown, file: Path) -> str:
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows, names = list(reader), list(reader.fieldnames or [])
    columns = {name: shown.columns[name] for name in shown.columns if name in names}
    columns = columns or {name: name.replace("_", " ") for name in names if name not in NEVER}
    measured = [row for row in rows if not shown.measured or row.get(shown.measured) not in ("", NOT_MEASURED, None)]
    lines = [f"## {shown.title}\n", f"{shown.about} All columns: `benchmarks/results/{shown.file}`.\n"]
    lines += _table(measured, columns)
    if left := len(rows) - len(measured):
        lines.append(f"\n{left} more rows are planned and not measured.")
    return "\n".join([*lines, ""])


def _table(rows: Sequence[dict[str, str]], columns: dict[str, str]) -> list[str]:
    head = ["| " + " | ".join(columns.values()) + " |", "|" + " --- |" * len(columns)]
    return [*head, *("| " + " | ".join(_cell(name, row[name]) for name in columns) + " |" for row in rows)]


def _cell(name: str, value: str | None) -> str:
    """Return a value for people: shares in percent, large numbers with commas, small ones with four digits."""
    if not value:
        return ""
    try:
        number = float(value)
    except ValueError:
        return value.replace("|", "\\|")
    if name in PERCENT:
        return f"{100 * number:.2f} %"
    if number.is_integer():
        return f"{int(number):,}"
    return f"{number:.4g}" if abs(number) < 1000 else f"{number:,.0f}"


def main(args: list[str] | None = None) -> int:
    """Write the page; with --check, return 1 if it is not up to date."""
    args = sys.argv[1:] if args is None else args
    text = page()
    if "--check" in args:
        return 0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
