"""How time and memory grow with image size, batch, width, depth, threads and processes: `make growth`.

Each point is a process of its own that trains VGG-11 (ratio 4 at 96, batch 32) with one thing changed, by the bare loop
of `make bench`; the points of one thing are measured in turn. benchmarks/results/growth.csv has them beside the
multiply-adds that `vgg-lightning summary` counts, docs/growth.png draws them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import OtherWork, processor
from benchmarks.peers.work import Work
from benchmarks.peers.worker import Job
from benchmarks.runner import NOT_MEASURED, RESULTS, ROOT, environment, in_words, stop_on_sigterm
from benchmarks.table import Row, Table

COLUMNS = (
    *(
        "axis",
        "value",
        "images_per_second",
        "seconds_per_step",
        "peak_mb",
        "training_gflop_per_step",
        "gflop_per_second",
    ),
    *("quiet", "device", "versions", "command"),
)
PRESET = "sources/s4-96"
BASE = {"data.batch_size": 32, "data.image_size": 96}
CORES = len(os.sched_getaffinity(0))
# axis -> (option, values)
AXES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "image size": ("data.image_size", (32, 64, 96, 128, 160, 192, 224)),
    "batch": ("data.batch_size", (1, 4, 16, 32, 64, 128, 256)),
    "width (64 / ratio)": ("model.ratio", (32, 16, 8, 4, 2, 1)),
    "depth": ("model.network", ("vgg11", "vgg13", "vgg16", "vgg19")),
    "threads": ("threads", tuple(range(1, CORES + 1)) if CORES <= 4 else (1, 2, 4, CORES)),
    "processes": ("processes", (1, 2)),
}


def value_of(axis: str, value: Any) -> str:
    """Return a point's place on its axis as a number."""
    if axis.startswith("width"):
        return str(64 // value)
    return str(value).removeprefix("vgg")


def job(option: str, value: Any, seconds: float) -> Job:
    """Return the job of one point."""
    threads = value if option == "threads" else CORES
    changes = BASE if option in ("threads", "processes") else BASE | {option: value}
    return Job("train", "bare", PRESET, changes, seconds, threads)


def figures(option: str, value: Any, seconds: float) -> dict[str, float]:
    """Measure a point: its processes share the cores and each trains on its part of the batch.

    They do not exchange gradients here: what is measured is what the cores give to several processes.
    """
    count = value if option == "processes" else 1
    own = job(option, value, seconds)
    if count > 1:
        part = {"data.batch_size": BASE["data.batch_size"] // count}
        own = Job(own.part, own.contender, own.preset, {**own.changes, **part}, seconds, max(CORES // count, 1))
    command = [sys.executable, "-m", "benchmarks.peers.worker", json.dumps(asdict(own))]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), cwd=ROOT) for _ in range(count)]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    return {"wall": sum(one["wall"] for one in found), "peak_bytes": sum(one["peak_bytes"] for one in found)}


def point(axis: str, value: Any, seconds: float) -> Row:
    """Measure a point and return its row."""
    option = AXES[axis][0]
    work = Work(PRESET, job(option, value, seconds).changes)
    watch = OtherWork()
    found = figures(option, value, seconds)
    flops = work.training_flops() * work.batch_size
    return {
        **{"axis": axis, "value": value_of(axis, value), "images_per_second": f"{found['wall']:.5g}"},
        "seconds_per_step": f"{work.batch_size / found['wall']:.5g}",
        "peak_mb": f"{found['peak_bytes'] / 1e6:.0f}",
        "training_gflop_per_step": f"{flops / 1e9:.5g}",
        "gflop_per_second": f"{flops / work.batch_size * found['wall'] / 1e9:.5g}",
        "quiet": watch.quiet(),
        "device": f"{processor()}, {CORES} cores",
        "versions": in_words({"torch": torch.__version__}),
        "command": "make growth",
    }


def points(axes: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield all points in order."""
    for axis in axes:
        for value in AXES[axis][1]:
            yield axis, value


def draw(rows: list[Row], file: Path) -> None:
    """Draw seconds a step and peak memory over each axis, beside what the multiply-adds alone would give."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    axes = [axis for axis in AXES if any(row["axis"] == axis and row["peak_mb"] for row in rows)]
    figure, panels = plt.subplots(2, len(axes), figsize=(3.2 * len(axes), 6), squeeze=False, layout="constrained")
    for column, axis in enumerate(axes):
        own = [row for row in rows if row["axis"] == axis and row["peak_mb"]]
        x = [float(row["value"]) for row in own]
        seconds = [float(row["seconds_per_step"]) for row in own]
        flops = [float(row["training_gflop_per_step"]) for row in own]
        largest = max(range(len(own)), key=flops.__getitem__)
        by_flops = [seconds[largest] * f / flops[largest] for f in flops]
        top, bottom = panels[0, column], panels[1, column]
        top.plot(x, seconds, "o-", label="measured")
        if axis not in ("threads", "processes"):
            top.plot(x, by_flops, "--", color="grey", label="by multiply-adds")
        bottom.plot(x, [float(row["peak_mb"]) for row in own], "o-", color="tab:orange")
        for panel in (top, bottom):
            panel.set(xlabel=axis, ylim=(0, None))
            panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel("seconds a training step")
    panels[1, 0].set_ylabel("peak memory of the process, MB")
    panels[0, 0].legend()
    device = next((row["device"] for row in rows if row["device"]), "")
    figure.suptitle(f"VGG-11, ratio 4, 96 x 96, batch 32, one thing changed at a time ({device})")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)


def main(args: list[str] | None = None) -> int:
    """Measure the points, draw them, and return 0, or 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=AXES, default=list(AXES), metavar="AXIS", help=", ".join(AXES))
    parser.add_argument("--seconds", type=float, default=3.0, help="to measure at each point")
    parser.add_argument("--table", type=Path, default=RESULTS / "growth.csv", help="the csv file")
    parser.add_argument("--drawing", type=Path, default=ROOT / "docs" / "growth.png", help="the drawing")
    own = parser.parse_args(args)
    table = Table(own.table, COLUMNS, ("axis", "value"))
    todo = list(points(own.only))
    begin = time.monotonic()
    try:
        for number, (axis, value) in enumerate(todo, start=1):
            row = point(axis, value, own.seconds)
            table.put([row])
            left = (time.monotonic() - begin) / number * (len(todo) - number)
            shown = (
                f"{row['seconds_per_step']:>9} s a step  {row['peak_mb']:>6} MB  {row['gflop_per_second']:>6} GFLOP/s"
            )
            print(f"{number}/{len(todo)}  {axis:<20} {row['value']:>5}  {shown}  {left / 60:.1f} min left", flush=True)
    except KeyboardInterrupt:
        print("interrupted: --only measures what is left", file=sys.stderr)
        return 130
    draw([row for row in table.rows() if row["images_per_second"] != NOT_MEASURED], own.drawing)
    print(f"{own.table}\n{own.drawing}")
    return 0


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
