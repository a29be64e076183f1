"""What bfloat16 costs in accuracy: presets over paired seeds, scored on the validation images.

    python -m benchmarks.precision                              quick, speedrun and speedrun94, five seeds each
    python -m benchmarks.precision --preset quick --seeds 0 1   some of them

Each seed is trained twice from the same weights, on the same batches: in 32-true and in bf16-mixed. Both are validated
in float32, on 5,000 images that are held out. A finished row is not run again, an interrupted run goes on. A row has
its seconds only if the machine was quiet. results/precision.csv has a row for each run; the mean of the differences
says whether a preset may train in bfloat16: it loses at most 0.1 points.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys

from benchmarks.machine import instruction_set
from benchmarks.runner import NOT_MEASURED, RESULTS, RowError, Run, carry_out, number, stop_on_sigterm
from benchmarks.table import Row, Table

MOST = 0.1  # percent points that a preset may lose in the mean
PRECISIONS = ("32-true", "bf16-mixed")
PRESETS = {  # with what it takes to score them on images that they do not train on, in more than one view
    "quick": ("--model.tta", "flip"),
    "speedrun": ("--data.val_size", "5000"),
    "speedrun94": ("--data.val_size", "5000"),
}
COLUMNS = (
    *("preset", "seed", "precision", "val_acc", "val_acc_tta", "epochs", "seconds", "quiet"),
    *("device", "instruction_set", "versions", "command"),
)


def run_of(preset: str, seed: int, precision: str) -> Run:
    """Return the run of a preset with a seed in a precision; nothing is tested."""
    own = ("--seed_everything", str(seed), "--trainer.precision", precision, "--test", "false", "--show", "none")
    return Run(f"precision-{preset}", ("--config", preset, *PRESETS[preset], *own))


def measure(run: Run) -> Row:
    """Carry a run out and return its columns."""
    outcome = carry_out(run)
    results, figures = outcome.results, outcome.figures()
    del figures["examples_per_second"]
    if outcome.quiet != "yes":
        figures["seconds"] = NOT_MEASURED
    return {
        "val_acc": number(results["val_acc"]),
        "val_acc_tta": number(results.get("val_acc_tta")),
        "epochs": str(results["epochs"]),
        "instruction_set": instruction_set(),
        "command": run.command,
        **figures,
    }


def differences(rows: list[Row], preset: str, column: str) -> list[float]:
    """Return by how many points bf16-mixed is above 32-true, for each seed of a preset that has both."""
    found = {(row["seed"], row["precision"]): row[column] for row in rows if row["preset"] == preset and row[column]}
    seeds = [seed for seed, precision in found if precision == PRECISIONS[0] and (seed, PRECISIONS[1]) in found]
    return [100 * (float(found[seed, PRECISIONS[1]]) - float(found[seed, PRECISIONS[0]])) for seed in seeds]


def report(rows: list[Row], preset: str) -> list[str]:
    """Return what the pairs of a preset say, one line for each number of views."""
    lines = []
    for column, views in (("val_acc", "one view"), ("val_acc_tta", "more views")):
        if pairs := differences(rows, preset, column):
            error = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else math.nan
            mean = statistics.mean(pairs)
            said = f"loses {'at most' if mean >= -MOST else 'more than'} {MOST}"
            lines.append(
                f"{preset}, {views}: bf16-mixed {mean:+.3f} points, standard error {error:.3f}, "
                f"mean of {len(pairs)} pairs: {said}"
            )
    return lines


def main(args: list[str] | None = None) -> None:
    """Run the pairs that have no row yet, then print the mean difference of each preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    options = parser.parse_args(args)
    stop_on_sigterm()
    table = Table(RESULTS / "precision.csv", COLUMNS, ("preset", "seed", "precision"))
    for preset in options.preset:
        for seed in options.seeds:
            for precision in PRECISIONS:
                key = {"preset": preset, "seed": str(seed), "precision": precision}
                if table.find(key) is not None:
                    continue
                try:
                    table.put([key | measure(run_of(preset, seed, precision))])
                except RowError as error:
                    print(f"{preset}, seed {seed}, {precision}: {error}", file=sys.stderr)
        print("\n".join(report(table.rows(), preset)), flush=True)


if __name__ == "__main__":
    main()
