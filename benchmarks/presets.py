"""Measure presets over several seeds: `python -m benchmarks.presets quick --seeds 0 1 2`.

Every seed is one run of `vgg-lightning fit` in a process of its own; its row goes into results/presets.csv.
A finished row is not run again, an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.runner import RESULTS, Run, carry_out, number
from benchmarks.table import Table

COLUMNS = (
    *("preset", "seed", "test_acc", "test_acc_tta", "val_acc", "epochs", "seconds", "examples_per_second"),
    *("peak_memory_mb", "quiet", "device", "versions", "command"),
)


def run_of(preset: str, seed: int, more: tuple[str, ...] = ()) -> Run:
    """Return the run of a preset with a seed, and with more options if there are any."""
    return Run(preset.replace("/", "-"), ("--config", preset, "--seed_everything", str(seed), *more))


def measure(run: Run) -> dict[str, str]:
    """Carry a run out and return its columns."""
    outcome = carry_out(run)
    results = outcome.results
    return {
        "test_acc": number(results["test_acc"]),
        "test_acc_tta": number(results.get("test_acc_tta")),
        "val_acc": number(results.get("val_acc")),
        "epochs": str(results["epochs"]),
        "peak_memory_mb": str(results["peak_memory_mb"]),
        "command": run.command,
        **outcome.figures(),
    }


def main(args: list[str] | None = None) -> None:
    """Run the seeds that have no row yet, then print the mean of each preset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args(args)
    table = Table(RESULTS / "presets.csv", COLUMNS, ("preset", "seed"))
    for preset in options.presets:
        for seed in options.seeds:
            key = {"preset": preset, "seed": str(seed)}
            if table.find(key) is None:
                table.put([key | measure(run_of(preset, seed))])
        rows = [row for row in table.rows() if row["preset"] == preset]
        for column in ("test_acc", "test_acc_tta"):
            if found := [100 * float(row[column]) for row in rows if row[column]]:
                least = f"{min(found):.2f} the least"
                print(f"{preset}, {column}: {statistics.mean(found):.2f} % mean of {len(found)}, {least}")


if __name__ == "__main__":
    main()
