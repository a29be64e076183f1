"""The questions of the VGG chapter, answered by runs: one row a run, scored on the validation images.

    python -m benchmarks.questions                  all rows, question by question
    python -m benchmarks.questions order depth      some questions
    python -m benchmarks.questions resolution --rows 32 64      some settings of a question
    python -m benchmarks.questions compare          only what the networks cost (benchmarks/results/compare.csv)

A finished row is not run again, and an interrupted one goes on. The table is benchmarks/results/questions.csv.
The runs are small, so that a laptop can do them: what they show is the order of things at this size.
"""

from __future__ import annotations

import argparse
import csv
import io
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from benchmarks.machine import OtherWork, processor
from benchmarks.runner import (
    NOT_MEASURED,
    RESULTS,
    RUNS,
    Outcome,
    RowError,
    Run,
    carry_out,
    environment,
    in_words,
    number,
    stop_on_sigterm,
)
from benchmarks.table import Row, Table
from vgg_lightning.base.errors import nearest
from vgg_lightning.base.versions import versions

MEASURED = "measured"
BATCH_SIZE = 128
COLUMNS = (
    *("question", "setting", "seed", "state", "epochs", "train_batches", "train_examples", "val_examples"),
    *(
        "val_acc",
        "train_loss",
        "val_acc_by_epoch",
        "seconds",
        "examples_per_second",
        "quiet",
        "device",
        "versions",
        "command",
    ),
)
COMPARE_COLUMNS = (
    *("network", "ratio", "image_size", "batch_size", "batches", "params", "macs", "training_macs"),
    *("activation_bytes", "inference_examples_per_second", "training_examples_per_second"),
    *("inference_peak_bytes", "training_peak_bytes", "base_bytes", "quiet", "device", "threads", "versions", "command"),
)


@dataclass(frozen=True)
class Setting:
    """One row: a setting of a question, and how much to train.

    Args:
        question: its short name.
        name: of the setting, as the table shows it.
        options: of `vgg-lightning fit`.
        epochs: how many.
        train_batches: in an epoch.
        seed: of weights, order and dropout.
        val_size: validation images.
    """

    question: str
    name: str
    options: tuple[str, ...]
    epochs: int
    train_batches: int
    seed: int = 0
    val_size: int = 5000

    @property
    def run(self) -> Run:
        """The call of the command line; the test images are left alone."""
        size = (
            *("--trainer.max_epochs", str(self.epochs), "--trainer.limit_train_batches", str(self.train_batches)),
            *("--data.batch_size", str(BATCH_SIZE), "--data.val_size", str(self.val_size), "--test", "false"),
        )
        name = f"{self.question}-{self.name}-{self.seed}".replace(" ", "-")
        return Run(name, (*self.options, "--seed_everything", str(self.seed), *size))

    def empty_row(self) -> Row:
        """Return the row before it is measured."""
        row = dict.fromkeys(COLUMNS, "")
        return row | {
            "question": self.question,
            "setting": self.name,
            "seed": str(self.seed),
            "state": NOT_MEASURED,
            "epochs": str(self.epochs),
            "train_batches": str(self.train_batches),
            "train_examples": str(self.epochs * self.train_batches * BATCH_SIZE),
            "val_examples": str(self.val_size),
            "command": self.run.command,
        }

    def row(self, outcome: Outcome) -> Row:
        """Return the measured row."""
        results = outcome.results
        return self.empty_row() | {
            "state": MEASURED,
            "val_acc": number(outcome.val_accs[-1]),
            "train_loss": number(results["train_loss"]),
            "val_acc_by_epoch": " ".join(number(acc) for acc in outcome.val_accs),
            **outcome.figures(),
        }


def _options(**options: object) -> tuple[str, ...]:
    """Return `model__network="vgg11"` and the like as options of the command line."""
    return tuple(
        part for name, value in options.items() for part in (f"--{name.replace('__', '.')}", str(value).lower())
    )


# The preset for runs of 150 to 860 steps: an average over the last 100 would lag behind, and warming up would be all.
QUICK = ("--config", "quick", *_options(model__ema_decay=0, model__warmup_epochs=0.25))
# For networks without BatchNorm: with the plain SGD of s4-96 at 32 pixels, VGG-11 was still at 10 % after 300 batches
# of 128, which is longer than these runs last.
ADAM = _options(model__init="kaiming", model__optimizer="adam", model__lr=0.0005)


def settings() -> list[Setting]:
    """Return all rows, in the order in which they run."""
    return [*_order(), *_depth(), *_longer(), *_resolution()]


def _order() -> list[Setting]:
    return [
        Setting("order", name, (*QUICK, *_options(model__norm_after_relu=after)), 2, 430, seed)
        for seed in range(3)
        for name, after in (("before ReLU", False), ("after ReLU", True))
    ]


def _depth() -> list[Setting]:
    return [
        Setting("depth", network, (*QUICK, *_options(model__network=network)), 2, 200)
        for network in ("vgg11", "vgg13", "vgg16", "vgg19")
    ]


def _longer() -> list[Setting]:
    networks = {
        "lenet": ("--config", "sources/s2-lenet"),
        "alexnet": ("--config", "sources/s2-alexnet", *_options(data__image_size=96), *ADAM),
        "vgg11 ratio 4": ("--config", "sources/s4-96", *ADAM),
        "vgg11 ratio 4 with BatchNorm": ("--config", "sources/s4-96", *ADAM, *_options(model__batch_norm=True)),
    }
    return [Setting("longer", name, options, 4, 100) for name, options in networks.items()]


def _resolution() -> list[Setting]:
    # 28 is missing: five poolings leave nothing of 28 pixels, and 32 is 28 with a black frame.
    sizes = {str(size): (*QUICK, *_options(data__image_size=size)) for size in (32, 64, 96, 224)}
    return [Setting("resolution", name, options, 1, 150, val_size=2000) for name, options in sizes.items()]


# What the networks cost: (network, ratio), at the size and batch of `compare_command`.
COMPARED = (("alexnet", ""), ("vgg11", ""), ("vgg11", "4"))


def compare_command(network: str, ratio: str) -> list[str]:
    """Return the arguments of `vgg-lightning` that measure one network."""
    size = ["--image_size", "224", "--batch_size", "8", "--batches", "2", "--format", "csv"]
    return ["compare", network, *(["--ratio", ratio] if ratio else []), *size]


def table(file: Path) -> Table:
    """Return the table of runs in `file`."""
    return Table(file, COLUMNS, key=("question", "setting", "seed"))


def compare_table(file: Path) -> Table:
    """Return the table of costs in `file`."""
    return Table(file, COMPARE_COLUMNS, key=("network", "ratio"))


def main(args: list[str] | None = None) -> int:
    """Run the rows that are asked for and return the exit code: 0 done, 1 a row failed, 130 interrupted."""
    own = _parse(args)
    rows = table(own.results / "questions.csv")
    rows.put(setting.empty_row() for setting in settings() if not _is_measured(rows.find(setting.empty_row())))
    done = True
    try:
        if "compare" in own.questions:
            _compare(compare_table(own.results / "compare.csv"))
        for setting in settings():
            if setting.question in own.questions and (not own.rows or setting.name in own.rows):
                done &= _do(setting, rows, own.runs)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    return int(not done)


def _is_measured(row: Row | None) -> TypeGuard[Row]:
    return row is not None and row["state"] == MEASURED


def _do(setting: Setting, rows: Table, runs: Path) -> bool:
    """Make one row, and return whether it is there."""
    found = rows.find(setting.empty_row())
    if _is_measured(found) and found["command"] == setting.run.command:
        return True
    print(f"{setting.question}, {setting.name}: {setting.run.command}", flush=True)
    try:
        rows.put([setting.row(carry_out(setting.run, runs))])
    except RowError as error:
        print(f"{setting.question}, {setting.name} failed: {error}", file=sys.stderr)
        return False
    return True


def _compare(rows: Table) -> None:
    for network, ratio in COMPARED:
        if rows.find({"network": network, "ratio": ratio}):
            continue
        watch, arguments = OtherWork(), compare_command(network, ratio)
        command = [sys.executable, "-m", "vgg_lightning", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment())
        row = next(csv.DictReader(io.StringIO(done.stdout)))
        more = {
            "quiet": watch.quiet(),
            "device": processor() if row["device"] == "cpu" else row["device"],
            "versions": in_words(versions()),
            "command": shlex.join(["vgg-lightning", *arguments]),
        }
        rows.put([{column: row.get(column) or "" for column in COMPARE_COLUMNS} | more])


def _parse(args: list[str] | None) -> argparse.Namespace:
    known = [*dict.fromkeys(setting.question for setting in settings()), "compare"]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.questions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(known))
    parser.add_argument("--rows", nargs="+", metavar="SETTING", help="only these settings, as the table names them")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the csv files")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the run folders go")
    own = parser.parse_args(args)
    own.questions = own.questions or known
    for question in own.questions:
        if question not in known:
            parser.error(f"question {question!r} is unknown{nearest(question, known)}: use {', '.join(known)}")
    names = list(dict.fromkeys(setting.name for setting in settings()))
    for row in own.rows or ():
        if row not in names:
            parser.error(f"row {row!r} is unknown{nearest(row, names)}: use {', '.join(names)}")
    return own


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
