"""What each part of a recipe gives: one part at a time is taken out or added, scored on the validation images.

    python -m benchmarks.ablation                                  all rows, three seeds each: an hour and a half
    python -m benchmarks.ablation --rows base "no crop"            some rows
    python -m benchmarks.ablation --epochs 4 --train_batches 429   longer runs, whose rows follow the others

A finished run is not run again, an interrupted one goes on. results/ablation_runs.csv has a row for each run,
results/ablation.csv mean, spread and gain of each part, by size of run. The runs are short, which favours what learns
fast: parts that keep a network from learning by heart (erase, cutmix, mixup) show their worth only in long ones.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runner import NOT_MEASURED, RESULTS, RUNS, Outcome, RowError, Run, carry_out, number, stop_on_sigterm
from benchmarks.table import Row, Table
from vgg_lightning.base.errors import nearest

MEASURED = "measured"
BASE, TEACHER = "base", "teacher"
VIEWS = {"tta flip": "flip", "tta flip_shift": "flip_shift"}  # rows whose score is the one with several views
RUN_COLUMNS = (
    *("part", "seed", "state", "epochs", "train_batches", "val_acc", "val_acc_tta", "train_loss", "train_acc"),
    *("seconds", "examples_per_second", "quiet", "device", "versions", "command"),
)
COLUMNS = (
    "part",
    "state",
    "seeds",
    "val_acc_mean",
    "val_acc_spread",
    "gain",
    "epochs",
    "train_batches",
    "seconds_mean",
)

RECIPE = {
    **{"model.network": "vgg_small", "model.ratio": "2", "model.poolings": "2", "model.batch_norm": "true"},
    **{"model.head": "gap", "model.dropout": "0", "model.init": "dirac", "model.optimizer": "sgd", "model.lr": "0.2"},
    **{"model.momentum": "0.9", "model.nesterov": "true", "model.weight_decay": "0.0005", "model.schedule": "linear"},
    **{"model.warmup_epochs": "0.5", "model.label_smoothing": "0.1", "data.image_size": "28", "data.batch_size": "128"},
    **{"data.augment": "[alternating_flip,crop:1]"},
}


def _augment(*more: str) -> dict[str, str]:
    return {"data.augment": f"[{','.join(('alternating_flip', 'crop:1', *more))}]"}


# What each row changes in the recipe.
PARTS: dict[str, dict[str, str]] = {
    BASE: {},
    "no flip": {"data.augment": "[crop:1]"},
    "flip by chance": {"data.augment": "[flip,crop:1]"},
    "no crop": {"data.augment": "[alternating_flip]"},
    "crop with black": {"data.augment": "[alternating_flip,shift:1]"},
    "no label smoothing": {"model.label_smoothing": "0"},
    "no weight decay": {"model.weight_decay": "0"},
    "constant rate": {"model.schedule": "constant"},
    "cosine": {"model.schedule": "cosine"},
    "no dirac": {"model.init": "default"},
    "erase": _augment("erase:0.5:0.02:0.4"),
    "cutout": _augment("cutout:8"),
    "mixup": _augment("mixup:0.2"),
    "cutmix": _augment("cutmix:1.0:0.5"),
    "randaugment": _augment("randaugment:2:0.5"),
    "dropout": {"model.dropout": "0.2"},
    "ema": {"model.ema_decay": "0.98"},
    "lookahead": {"model.lookahead_steps": "5"},
    "bias rate x 8": {"model.bias_lr_factor": "8"},
    "sam": {"model.sam_rho": "0.05"},
    "muon": {"model.optimizer": "muon", "model.lr": "0.05", "model.momentum": "0.6"},
    **{name: {"model.tta": views} for name, views in VIEWS.items()},
    TEACHER: {"model.ratio": "1"},  # twice as wide: what the next row learns from
    "distillation": {"model.distill": "0.5"},
}


@dataclass(frozen=True)
class Trial:
    """One run.

    Args:
        part: a key of `PARTS`.
        seed: of the run.
        epochs: to train.
        train_batches: batches in an epoch.
    """

    part: str
    seed: int
    epochs: int
    train_batches: int

    def run(self, runs: Path) -> Run:
        """Return the call of the command line; a row with a teacher needs that one's run below `runs`."""
        changed = {**RECIPE, **PARTS[self.part]}
        if "model.distill" in changed:
            changed["model.teacher"] = self._teacher(runs)
        size = {"trainer.max_epochs": str(self.epochs), "trainer.limit_train_batches": str(self.train_batches)}
        last = {"trainer.check_val_every_n_epoch": str(self.epochs), "seed_everything": str(self.seed), "test": "false"}
        options = tuple(part for name, value in {**changed, **size, **last}.items() for part in (f"--{name}", value))
        return Run(f"ablation-{self.part}-{self.seed}".replace(" ", "-"), options)

    def _teacher(self, runs: Path) -> str:
        folder = Trial(TEACHER, 0, self.epochs, self.train_batches).run(runs).newest_folder(runs)
        if folder is None:
            return "TEACHER"  # which the row of that name trains
        return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)

    def empty_row(self) -> Row:
        """Return the row before it is measured."""
        row = dict.fromkeys(RUN_COLUMNS, "")
        return row | {
            "part": self.part,
            "seed": str(self.seed),
            "state": NOT_MEASURED,
            "epochs": str(self.epochs),
            "train_batches": str(self.train_batches),
        }

    def row(self, outcome: Outcome, command: str) -> Row:
        """Return the measured row."""
        results = outcome.results
        return self.empty_row() | {
            "state": MEASURED,
            **{name: number(results.get(name)) for name in ("val_acc", "val_acc_tta", "train_loss", "train_acc")},
            "command": command,
            **outcome.figures(),
        }


def summary(part: str, rows: list[Row], base: list[Row]) -> Row:
    """Return mean, spread (standard deviation over the seeds) and gain over the base of one part, in accuracies."""
    scores = [_score(part, row) for row in rows]
    row = dict.fromkeys(COLUMNS, "") | {"part": part, "state": NOT_MEASURED, "seeds": str(len(rows))}
    if not scores:
        return row
    mean = statistics.mean(scores)
    gain = number(mean - statistics.mean(_score(BASE, b) for b in base)) if base and part != BASE else ""
    return row | {
        "state": MEASURED,
        "val_acc_mean": number(mean),
        "val_acc_spread": number(statistics.stdev(scores)) if len(scores) > 1 else "",
        "gain": gain,
        "epochs": rows[0]["epochs"],
        "train_batches": rows[0]["train_batches"],
        "seconds_mean": number(statistics.mean(float(r["seconds"]) for r in rows), 1),
    }


def _score(part: str, row: Row) -> float:
    return float(row["val_acc_tta" if part in VIEWS else "val_acc"])


def main(args: list[str] | None = None) -> int:
    """Run the rows that are asked for and return the exit code: 0 done, 1 a row failed, 130 interrupted."""
    own = _parse(args)
    runs = Table(own.results / "ablation_runs.csv", RUN_COLUMNS, ("part", "seed", "epochs", "train_batches"))
    parts = [part for part in PARTS if part in own.rows]
    trials = [Trial(part, seed, own.epochs, own.train_batches) for seed in own.seeds for part in parts]
    runs.put((trial.empty_row() for trial in trials), overwrite=False)
    done = True
    try:
        for trial in trials:
            done &= _do(trial, runs, own.runs)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    finally:
        summarize(runs, own.results)
    return int(not done)


def summarize(runs: Table, results: Path) -> None:
    """Write ablation.csv anew from the runs: those of each size, then the parts that were not run at any."""
    by_size: dict[tuple[int, int], dict[str, list[Row]]] = {}
    for row in runs.rows():
        if row["state"] == MEASURED:
            size = int(row["epochs"]), int(row["train_batches"])
            by_size.setdefault(size, {part: [] for part in PARTS})[row["part"]].append(row)
    rows = []
    for size in sorted(by_size, key=math.prod):
        of = by_size[size]
        rows += [summary(part, of[part], of[BASE]) for part in PARTS if of[part]]
    seen = {row["part"] for row in rows}
    table = Table(results / "ablation.csv", COLUMNS, ("part", "epochs", "train_batches"))
    table.file.unlink(missing_ok=True)
    table.put([*rows, *(summary(part, [], []) for part in PARTS if part not in seen)])
    print(markdown(table.rows()))


def markdown(rows: list[Row]) -> str:
    """Return the table for docs/recipes.md."""
    lines = ["| part | steps | validation accuracy | spread | gain | seeds |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        mean, spread, gain = (_percent(row[c]) for c in ("val_acc_mean", "val_acc_spread", "gain"))
        steps = int(row["epochs"] or 0) * int(row["train_batches"] or 0) or ""
        lines.append(f"| {row['part']} | {steps} | {mean or NOT_MEASURED} | {spread} | {gain} | {row['seeds']} |")
    return "\n".join(lines)


def _percent(text: str) -> str:
    return f"{100 * float(text):.2f}" if text else ""


def _do(trial: Trial, table: Table, runs: Path) -> bool:
    """Make one row, and return whether it is there."""
    found = table.find(trial.empty_row())
    if found and found["state"] == MEASURED:
        return True
    run = trial.run(runs)
    print(f"{trial.part}, seed {trial.seed}: {run.command}", flush=True)
    try:
        table.put([trial.row(carry_out(run, runs), run.command)])
    except RowError as error:
        print(f"{trial.part}, seed {trial.seed} failed: {error}", file=sys.stderr)
        return False
    return True


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", metavar="PART", default=list(PARTS), help="only these, as the table says")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--train_batches", type=int, default=80, help="batches of 128 in an epoch")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the csv files")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the run folders go")
    own = parser.parse_args(args)
    for row in own.rows:
        if row not in PARTS:
            parser.error(f"row {row!r} is unknown{nearest(row, PARTS)}: use {', '.join(PARTS)}")
    return own


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
