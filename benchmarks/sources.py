"""The recipes of the source documents, run here, beside the figures that the documents report.

    python -m benchmarks.sources                            all presets, smallest first
    python -m benchmarks.sources s2-lenet s2-resnet         some of them
    python -m benchmarks.sources s2-resnet --epochs 2       fewer epochs; the row says so

A finished row is not run again, and an interrupted one goes on. The table is benchmarks/results/sources.csv.
Reported losses and training accuracies are means over the last epoch, and so are those measured here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from benchmarks.runner import NOT_MEASURED, RESULTS, RUNS, Outcome, RowError, Run, carry_out, number, stop_on_sigterm
from benchmarks.table import Row, Table
from vgg_lightning.base.errors import nearest
from vgg_lightning.presets import presets


class Reported(NamedTuple):
    """Figures of a source, on a GPU that it does not name; None where it gives none."""

    loss: float | None = None
    train_acc: float | None = None
    test_acc: float | None = None
    examples_per_second: float | None = None


# Smallest first: that is the order in which they run.
REPORTED: dict[str, Reported] = {
    "s2-lenet": Reported(),
    "s2-lenet-scratch": Reported(),
    "s2-resnet": Reported(0.126, 0.951, 0.897, 20821.7),
    "s0": Reported(),  # its author gave up
    "s4-96": Reported(0.225, 0.916, 0.911, 14241.5),
    "s2-googlenet": Reported(0.301, 0.885, 0.875, 5651.3),
    "s2-densenet": Reported(0.140, 0.949, 0.904, 9091.2),
    "s4-224": Reported(0.178, 0.934, 0.921, 2559.7),
    "s2-alexnet": Reported(0.329, 0.881, 0.883, 5458.8),
    "s2-nin": Reported(0.389, 0.854, 0.859, 4985.3),
    "s3": Reported(0.869, 0.68, 0.83, round(60_000 / 147.5, 1)),  # it gives 147.5 s an epoch
    "s4-vgg19": Reported(0.239, 0.912, 0.907, 1261.3),
    "s2-vgg": Reported(0.287, 0.894, 0.887, 1055.8),
}
COLUMNS = (
    *("preset", "state", *(f"reported_{name}" for name in Reported._fields), *Reported._fields),
    *("epochs", "recipe_epochs", "train_batches", "seconds", "precision", "quiet", "device"),
    *("seed", "versions", "command"),
)
ALL = "all"  # batches of an epoch


def table(file: Path) -> Table:
    """Return the table in `file`."""
    return Table(file, COLUMNS, key=("preset", "seed"))


def recipe_epochs(preset: str) -> int:
    """Return the epochs of a preset."""
    config = yaml.safe_load(presets()[f"sources/{preset}"].read_text(encoding="utf-8"))
    return int(config["trainer"]["max_epochs"])


def empty_row(preset: str, seed: int) -> Row:
    """Return the row of a preset that was not run."""
    row = dict.fromkeys(COLUMNS, "")
    for name, value in REPORTED[preset]._asdict().items():
        row[f"reported_{name}"] = "" if value is None else str(value)
        row[name] = NOT_MEASURED
    known = {"preset": preset, "state": NOT_MEASURED, "recipe_epochs": str(recipe_epochs(preset)), "seed": str(seed)}
    return row | known


def run_of(preset: str, epochs: int, seed: int, train_batches: int | None) -> Run:
    """Return the call of `vgg-lightning fit` for one row."""
    options = ["--config", f"sources/{preset}", "--seed_everything", str(seed)]
    if epochs != recipe_epochs(preset):
        options += ["--trainer.max_epochs", str(epochs)]
    if train_batches:
        options += ["--trainer.limit_train_batches", str(train_batches)]
    return Run(preset, tuple(options))


def measured_row(run: Run, outcome: Outcome, row: Row, train_batches: int | None) -> Row:
    """Return `row`, that of a preset, with what was measured."""
    results = outcome.results
    epochs, wanted = results["epochs"], int(row["recipe_epochs"])
    short = [f"{epochs} of {wanted} epochs"] if epochs < wanted else []
    short += [f"{train_batches} batches an epoch"] if train_batches else []
    return row | {
        "state": ", ".join(short) or "whole recipe",
        "loss": number(results["train_loss"]),
        "train_acc": number(results["train_acc"]),
        "test_acc": number(results["test_acc"]),
        "epochs": str(epochs),
        "train_batches": str(train_batches or ALL),
        "precision": str(results["precision"]),
        "command": run.command,
        **outcome.figures(),
    }


def covers(row: Row | None, epochs: int, train_batches: int | None) -> bool:
    """Whether a stored row holds at least as much training as is asked for."""
    if row is None or not row["epochs"]:
        return False
    stored = float("inf") if row["train_batches"] == ALL else int(row["train_batches"])
    return stored >= (train_batches or float("inf")) and int(row["epochs"]) >= epochs


def main(args: list[str] | None = None) -> int:
    """Run the rows that are asked for and return the exit code: 0 done, 1 a row failed, 130 interrupted."""
    own = _parse(args)
    rows = table(own.table)
    rows.put((empty_row(preset, seed=0) for preset in REPORTED), overwrite=False)
    failed = False
    try:
        for preset in own.presets or REPORTED:
            failed |= not _do(preset, rows, own)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    return int(failed)


def _do(preset: str, rows: Table, own: argparse.Namespace) -> bool:
    """Make one row, and return whether it is there."""
    row, epochs = empty_row(preset, own.seed), min(own.epochs or recipe_epochs(preset), recipe_epochs(preset))
    if covers(rows.find(row), epochs, own.train_batches):
        return True
    run = run_of(preset, epochs, own.seed, own.train_batches)
    print(f"{preset}: {run.command}", flush=True)
    try:
        outcome = carry_out(run, own.runs)
    except RowError as error:
        print(f"{preset} failed: {error}", file=sys.stderr)
        return False
    rows.put([measured_row(run, outcome, row, own.train_batches)])
    return True


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sources", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=", ".join(REPORTED))
    parser.add_argument("--epochs", type=int, help="at most so many; by default those of the recipe")
    parser.add_argument("--seed", type=int, default=0, help="a row for each seed")
    parser.add_argument("--train_batches", type=int, help="at most so many in an epoch; the row says so")
    parser.add_argument("--table", type=Path, default=RESULTS / "sources.csv", help="the csv file")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the run folders go")
    own = parser.parse_args(args)
    own.presets = [preset.removeprefix("sources/") for preset in own.presets]
    for preset in own.presets:
        if preset not in REPORTED:
            parser.error(f"preset {preset!r} is unknown{nearest(preset, REPORTED)}: use {', '.join(REPORTED)}")
    for name in ("epochs", "train_batches"):
        if (getattr(own, name) or 1) < 1:
            parser.error(f"--{name} takes 1 or more")
    return own


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
