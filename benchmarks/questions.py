"""The exercises of the VGG chapter, answered by whole trainings: one row a run, scored on the validation images.

    python -m benchmarks.questions                  all rows: of every question the first seed, then the others
    python -m benchmarks.questions order depth      some questions
    python -m benchmarks.questions sizes --rows 32 56 --seeds 0     some settings of a question, one seed
    python -m benchmarks.questions compare          only what the networks cost (benchmarks/results/compare.csv)

Every run is the preset quick with one thing changed, unless its command says otherwise. A finished row is not run
again, an interrupted one goes on, and rows with the same command share one run. The table is
benchmarks/results/questions.csv.
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
COLUMNS = (
    *("question", "setting", "seed", "state", "epochs", "val_examples", "val_acc", "train_loss", "val_acc_by_epoch"),
    *("seconds", "examples_per_second", "precision", "quiet", "device", "versions", "command"),
)
COMPARE_COLUMNS = (
    *("network", "ratio", "image_size", "batch_size", "batches", "params", "macs", "training_macs"),
    *("activation_bytes", "inference_examples_per_second", "training_examples_per_second"),
    *("inference_peak_bytes", "training_peak_bytes", "base_bytes", "quiet", "device", "threads", "versions", "command"),
)


@dataclass(frozen=True)
class Setting:
    """One row: a setting of a question.

    Args:
        question: its short name.
        name: of the setting, as the table shows it.
        options: of `vgg-lightning fit`, what is changed.
        seed: of weights, order and dropout.
        epochs: how many; 5 are those of `quick`.
        config: the preset that is changed.
    """

    question: str
    name: str
    options: tuple[str, ...]
    seed: int = 0
    epochs: int = 5
    config: str = "quick"

    @property
    def run(self) -> Run:
        """The call of the command line; the test images are left alone."""
        size = ("--trainer.max_epochs", str(self.epochs), "--data.val_size", str(VAL_SIZE))
        rest = ("--seed_everything", str(self.seed), "--test", "false", "--show", "none")
        return Run(f"question-{self.seed}", ("--config", self.config, *self.options, *size, *rest))

    def empty_row(self) -> Row:
        """Return the row before it is measured."""
        row = dict.fromkeys(COLUMNS, "")
        return row | {
            "question": self.question,
            "setting": self.name,
            "seed": str(self.seed),
            "state": NOT_MEASURED,
            "epochs": str(self.epochs),
            "val_examples": str(VAL_SIZE),
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
            "precision": str(results["precision"]),
            **outcome.figures(),
        }

    def is_measured(self, row: Row | None) -> TypeGuard[Row]:
        """Return whether a stored row is this one, measured with the same command."""
        return row is not None and row["state"] == MEASURED and row["command"] == self.run.command


def _options(**options: object) -> tuple[str, ...]:
    """Return `model__network="vgg11"` and the like as options of the command line."""
    return tuple(
        part for name, value in options.items() for part in (f"--{name.replace('__', '.')}", str(value).lower())
    )


VAL_SIZE = 5000  # validation images
SEEDS = range(3)
QUICK: tuple[str, ...] = ()  # the preset, nothing changed
LATE = ("84", "96", "224")  # 7, 9 and 49 times the work of 32 pixels: one seed, last


def settings() -> list[Setting]:
    """Return all rows, in the order in which they run."""
    rows = [*_sizes(), *_head(), *_depth(), *_order(), *_longer()]
    return sorted(rows, key=lambda setting: (setting.name in LATE, setting.seed))


def _seeds(question: str, changes: dict[str, tuple[str, ...]]) -> list[Setting]:
    return [Setting(question, name, options, seed) for seed in SEEDS for name, options in changes.items()]


def _sizes() -> list[Setting]:
    """Exercise 4: smaller images; five poolings leave nothing of 28 pixels, and 32 is 28 with a black frame."""
    changes = {
        "28 with 3 poolings": _options(data__image_size=28, model__poolings=3),
        "32": QUICK,
        "56": _options(data__image_size=56),
        "56 with vgg13": _options(data__image_size=56, model__network="vgg13"),  # 2 convolutions before every pooling
        "64": _options(data__image_size=64),
    }
    late = [Setting("sizes", size, _options(data__image_size=size)) for size in LATE]
    return [*_seeds("sizes", changes), *late]


def _head() -> list[Setting]:
    """Exercise 1c: cheaper heads, and what else makes a VGG cheaper or dearer."""
    changes = {
        "average pooling": QUICK,
        "classic 512": _options(model__head="classic", model__hidden_units=512),
        "classic 4096": _options(model__head="classic", model__hidden_units=4096),
        "ratio 8": _options(model__ratio=8),
        "3 poolings": _options(model__poolings=3),
    }
    return _seeds("head", changes)


def _depth() -> list[Setting]:
    """Exercise 3: the columns A, B, D and E of the paper's table."""
    changes = {"vgg11": QUICK} | {name: _options(model__network=name) for name in ("vgg13", "vgg16", "vgg19")}
    return _seeds("depth", changes)


def _order() -> list[Setting]:
    return _seeds("order", {"before ReLU": QUICK, "after ReLU": _options(model__norm_after_relu=True)})


def _longer() -> list[Setting]:
    """Networks at equal epochs: the schedule of `quick` ends with its run; the others have a constant learning rate."""
    alexnet = _options(data__image_size=96)
    return [
        *(Setting("longer", f"quick {epochs}", QUICK, epochs=epochs) for epochs in (1, 2, 5, 10)),
        Setting("longer", "lenet", QUICK, epochs=10, config="sources/s2-lenet"),
        Setting("longer", "alexnet", alexnet, epochs=10, config="sources/s2-alexnet"),
    ]


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
    rows.put(setting.empty_row() for setting in settings() if not setting.is_measured(rows.find(setting.empty_row())))
    done = True
    try:
        if "compare" in own.questions:
            _compare(compare_table(own.results / "compare.csv"))
        for setting in settings():
            asked = not own.rows or setting.name in own.rows
            if setting.question in own.questions and asked and (own.seeds is None or setting.seed in own.seeds):
                done &= _do(setting, rows, own.runs)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    return int(not done)


def _do(setting: Setting, rows: Table, runs: Path) -> bool:
    """Make one row, and return whether it is there."""
    if setting.is_measured(rows.find(setting.empty_row())):
        return True
    if twin := next(filter(setting.is_measured, rows.rows()), None):
        rows.put([twin | {"question": setting.question, "setting": setting.name}])
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
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="only these seeds")
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
    seeds = sorted({setting.seed for setting in settings()})
    for seed in own.seeds or ():
        if seed not in seeds:
            parser.error(f"seed {seed} is unknown: use {', '.join(map(str, seeds))}")
    return own


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
