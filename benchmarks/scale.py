"""What a second process costs: `python -m benchmarks.scale`.

The same network, batch and machine three times: one process with all cores; two processes that share the batch and
average their gradients; two processes that do not know of each other, each with half a batch. The last two differ by
the communication alone. Each is measured several times in turns, and the medians go into results/scale.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import OtherWork, processor
from benchmarks.runner import RESULTS, in_words
from benchmarks.table import Table

COLUMNS = (
    *("preset", "way", "processes", "threads", "batch_size", "examples_per_second", "of_one_process"),
    *("communication_share", "memory_mb_per_process", "repeats", "quiet", "device", "versions", "command"),
)
BATCH = 128


def command(preset: str, devices: int, batch: int, batches: int) -> list[str]:
    """Return the options of one run."""
    return [
        *("fit", "--config", preset, "--trainer.accelerator", "cpu", "--trainer.devices", str(devices)),
        *("--data.batch_size", str(batch), "--trainer.limit_train_batches", str(batches), "--trainer.max_epochs", "2"),
        *("--trainer.limit_val_batches", "0", "--test", "false"),
    ]


def run(lines: list[list[str]], threads: int) -> list[dict[str, Any]]:
    """Run commands at the same time; return the results.json of each."""
    own = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for i, line in enumerate(lines):
            place = Path(folder) / str(i)
            place.mkdir()
            program = [sys.executable, "-m", "vgg_lightning", *line, "--name", "scale"]
            variables = own | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
            started.append((place, subprocess.Popen(program, cwd=place, env=variables, stdout=subprocess.DEVNULL)))
        if any(process.wait() for _, process in started):
            raise SystemExit("a run has failed")
        files = [place / "lightning_logs" / "scale" / "version_0" / "results.json" for place, _ in started]
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def measure(preset: str, batches: int, repeats: int) -> list[dict[str, str]]:
    """Return a row for each of the three ways."""
    cores = len(os.sched_getaffinity(0))
    ways = {
        "one process": ([command(preset, 1, BATCH, batches)], cores),
        "two processes, ddp": ([command(preset, 2, BATCH, batches)], 0),  # the threads are the launcher's choice
        "two processes apart": ([command(preset, 1, BATCH // 2, batches)] * 2, max(cores // 2, 1)),
    }
    watch = OtherWork()
    found: dict[str, list[list[dict[str, Any]]]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, (lines, threads) in ways.items():
            found[way].append(run(lines, threads))
    rates = {way: statistics.median(sum(r["examples_per_second"] for r in rs) for rs in found[way]) for way in ways}
    rows = []
    for way, (lines, _) in ways.items():
        last = found[way][-1][0]
        rows.append(
            {
                "preset": preset,
                "way": way,
                "processes": "1" if way == "one process" else "2",
                "threads": str(last["threads"]),
                "batch_size": str(BATCH),
                "examples_per_second": f"{rates[way]:.0f}",
                "of_one_process": f"{rates[way] / rates['one process']:.3f}",
                "communication_share": (
                    f"{1 - rates[way] / rates['two processes apart']:.3f}" if way.endswith("ddp") else ""
                ),
                "memory_mb_per_process": str(last["peak_memory_mb"]),
                "repeats": str(repeats),
                "device": processor(),
                "versions": in_words(last["versions"]),
                "command": " ".join(("vgg-lightning", *lines[0])),
            }
        )
    return [row | {"quiet": watch.quiet()} for row in rows]


def main(args: list[str] | None = None) -> None:
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--batches", type=int, default=80, help="Steps of each of the two epochs of a run.")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(args)
    rows = measure(options.preset, options.batches, options.repeats)
    Table(RESULTS / "scale.csv", COLUMNS, ("preset", "way")).put(rows)
    for row in rows:
        share = f", communication {row['communication_share']}" if row["communication_share"] else ""
        print(f"{row['way']}: {row['examples_per_second']} examples/s, {row['of_one_process']} of one process{share}")


if __name__ == "__main__":
    main()
