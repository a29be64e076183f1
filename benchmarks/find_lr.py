"""Measure the advice of `find lr`: `python -m benchmarks.find_lr lenet speedrun quick s4-96 --seeds 0 1 2`.

For every setting and seed, `vgg-lightning find lr` advises a rate; then one epoch is trained at that rate and one at
the preset's, and both are validated on the 5,000 images that neither has seen. A row goes into results/find_lr.csv as
soon as its run has ended; a finished row is not run again, so an interrupted measurement goes on. At the end stands
what the advice loses against the preset's rate, in points of validation accuracy.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys

import yaml

from benchmarks.runner import RESULTS, ROOT, Run, carry_out, environment, number
from benchmarks.table import Table

SETTINGS = {"lenet": "sources/s2-lenet", "speedrun": "speedrun", "quick": "quick", "s4-96": "sources/s4-96"}
COLUMNS = ("setting", "seed", "rate_of", "lr", "val_acc", "seconds", "quiet", "device", "versions", "command")


def options_of(setting: str, seed: int) -> tuple[str, ...]:
    """Return the options of a setting, with validation images also where the preset has none."""
    return ("--config", SETTINGS[setting], "--seed_everything", str(seed), "--data.val_size", "5000")


def preset_rate(setting: str) -> str:
    """Return the learning rate of the preset."""
    file = ROOT / "vgg_lightning" / "presets" / f"{SETTINGS[setting]}.yaml"
    return f"{yaml.safe_load(file.read_text(encoding='utf-8'))['model']['lr']:g}"


def advised_rate(setting: str, seed: int) -> str:
    """Return what `find lr` advises."""
    command = [sys.executable, "-m", "vgg_lightning", "find", "lr", *options_of(setting, seed)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    print(done.stdout, flush=True)
    found = re.search(r"suggested lr +(\S+),", done.stdout)
    assert found is not None
    return found[1]


def measure(setting: str, seed: int, lr: str) -> dict[str, str]:
    """Train one epoch and return its columns."""
    more = ("--model.lr", lr, "--trainer.max_epochs", "1", "--test", "false", "--show", "none")
    run = Run(f"find-lr-{setting}", (*options_of(setting, seed), *more))
    outcome = carry_out(run)
    figures = {name: value for name, value in outcome.figures().items() if name in COLUMNS}
    return {"lr": lr, "val_acc": number(outcome.results["val_acc"]), "command": run.command, **figures}


def main(args: list[str] | None = None) -> None:
    """Measure what has no row yet, then print what the advice loses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="+", choices=SETTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args(args)
    table = Table(RESULTS / "find_lr.csv", COLUMNS, ("setting", "seed", "rate_of"))
    for setting in options.settings:
        for seed in options.seeds:
            accuracy = {}
            for rate_of in ("advice", "preset"):
                key = {"setting": setting, "seed": str(seed), "rate_of": rate_of}
                if (row := table.find(key)) is None:
                    lr = preset_rate(setting) if rate_of == "preset" else advised_rate(setting, seed)
                    row = key | measure(setting, seed, lr)
                    table.put([row])
                accuracy[rate_of] = 100 * float(row["val_acc"])
            lost = accuracy["preset"] - accuracy["advice"]
            print(f"{setting}, seed {seed}: the advice loses {lost:.2f} points against the preset's rate", flush=True)


if __name__ == "__main__":
    main()
