"""Measure the presets that go for accuracy: `python -m benchmarks.record record-cpu --seeds 0 1 2 3 4`.

Every seed is one run of `vgg-lightning fit`; its row goes into results/record.csv, its metrics and its configuration
into results/record/PRESET-SEED/. A finished row is not run again, an interrupted run goes on. Rows that were not run
say so.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from pathlib import Path

import yaml

from benchmarks.presets import run_of
from benchmarks.runner import NOT_MEASURED, RESULTS, RUNS, Outcome, RowError, Run, carry_out, number, stop_on_sigterm
from benchmarks.table import Row, Table
from vgg_lightning.classifier import load_classifier
from vgg_lightning.presets import presets

PRESETS = ("record", "small", "record-cpu")
SEEDS = (0, 1, 2, 3, 4)
MEASURED = "measured"
COLUMNS = (
    *("preset", "seed", "state", "test_acc", "test_acc_tta", "train_acc", "parameters", "epochs", "seconds"),
    *("examples_per_second", "peak_memory_mb", "precision", "quiet", "device", "versions", "command"),
)


def empty_row(preset: str, seed: int) -> Row:
    """Return a row before it is measured."""
    row = dict.fromkeys(COLUMNS, "")
    return row | {"preset": preset, "seed": str(seed), "state": NOT_MEASURED, "command": run_of(preset, seed).command}


def measure(run: Run, runs: Path, kept: Path) -> Row:
    """Carry a run out, keep its metrics and its configuration in `kept`, and return its columns."""
    outcome = carry_out(run, runs)
    folder = run.newest_folder(runs)
    assert folder is not None
    keep(folder, kept)
    return row_of(outcome, folder)


def row_of(outcome: Outcome, folder: Path) -> Row:
    """Return the columns of a finished run, whose folder is `folder`."""
    results = outcome.results
    return {
        "state": MEASURED,
        "test_acc": number(results["test_acc"]),
        "test_acc_tta": number(results.get("test_acc_tta")),
        "train_acc": number(results["train_acc"]),
        "parameters": str(sum(p.numel() for p in load_classifier(folder).parameters())),
        "epochs": str(results["epochs"]),
        "peak_memory_mb": str(results["peak_memory_mb"]),
        "precision": str(results["precision"]),
        **outcome.figures(),
    }


def keep(folder: Path, target: Path) -> None:
    """Copy metrics.csv and config.yaml of a run, without the places on the machine that made them."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "metrics.csv", target / "metrics.csv")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    for group, option in (("trainer", "default_root_dir"), ("data", "data_dir"), ("model", "teacher")):
        config[group][option] = None
    config["name"] = config["config"] = config["ckpt_path"] = None
    (target / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def main(args: list[str] | None = None) -> int:
    """Run the seeds that have no row yet, print the means, and return the exit code: 0 done, 1 failed, 130 stopped."""
    own = _parse(args)
    table = Table(own.results / "record.csv", COLUMNS, ("preset", "seed"))
    table.put((empty_row(preset, seed) for preset in PRESETS for seed in SEEDS), overwrite=False)
    done = True
    try:
        for preset in own.presets:
            for seed in own.seeds:
                done &= _do(table, preset, seed, own)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    for preset in own.presets:
        _say(preset, table)
    return int(not done)


def _do(table: Table, preset: str, seed: int, own: argparse.Namespace) -> bool:
    row, run = empty_row(preset, seed), run_of(preset, seed, tuple(own.options))
    found = table.find(row)
    if found and found["state"] == MEASURED:
        return True
    kept = own.results / "record" / f"{preset}-{seed}"
    try:
        table.put([row | measure(run, own.runs, kept) | {"command": run.command}])
    except RowError as error:
        print(f"{preset}, seed {seed} failed: {error}", file=sys.stderr)
        return False
    return True


def _say(preset: str, table: Table) -> None:
    rows = [row for row in table.rows() if row["preset"] == preset and row["state"] == MEASURED]
    for column in ("test_acc", "test_acc_tta"):
        if found := [100 * float(row[column]) for row in rows if row[column]]:
            spread = f", {min(found):.2f} to {max(found):.2f}"
            print(f"{preset}, {column}: {statistics.mean(found):.2f} %, mean of {len(found)}{spread}")


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("presets", nargs="+", choices=presets(), metavar="PRESET", help=", ".join(PRESETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the csv files")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the run folders go")
    own, own_options = parser.parse_known_args(args)  # others are options of fit: --trainer.max_epochs 1
    own.options = own_options
    return own


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
