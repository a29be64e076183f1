"""Training on a GPU: `make bench-gpu` prints one table in at most 8 minutes.

    python -m benchmarks.gpu                      all rows
    python -m benchmarks.gpu --only r4-224        rows whose name begins so

Every row is `vgg-lightning fit` in a process of its own: the data set lies on the device as uint8, order and
augmentation are made there, no step waits for the device, and the network alone is compiled. Examples/s are those of
the steps after the first ones, which compile. benchmarks/results/gpu.csv keeps the rows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.machine import processor
from benchmarks.peers.clock import Enough
from benchmarks.peers.work import Work
from benchmarks.runner import NOT_MEASURED, RESULTS, ROOT, environment, in_words, stop_on_sigterm
from benchmarks.table import Row, Table

COLUMNS = (
    *("row", "goal", "examples_per_second", "seconds", "test_acc", "test_acc_tta", "peak_mb"),
    *("device", "versions", "command"),
)
LIMIT = 8 * 60  # seconds of all rows together
HALF = ("--trainer.precision", "bf16-mixed")
CLASSIC = ("--data.val_size", "0", "--trainer.benchmark", "true")


@dataclass(frozen=True)
class Case:
    """One row.

    Args:
        options: of `vgg-lightning fit`.
        goal: in words; nothing if there is none.
        steps: to measure after `warmup` steps; 0 trains to the end and tests.
        warmup: steps that compile.
    """

    options: tuple[str, ...]
    goal: str = ""
    steps: int = 60
    warmup: int = 15


def _start(preset: str, batch: int, compiled: str) -> tuple[str, ...]:
    return ("--config", preset, "--data.batch_size", str(batch), "--model.compile", compiled)


def _classic(preset: str, batch: int, compiled: str, *more: str) -> tuple[str, ...]:
    return (*_start(preset, batch, compiled), *CLASSIC, *(more or HALF))


def _race(epochs: str, warmup: str) -> tuple[str, ...]:
    """Return the preset speedrun94 for a GPU: a larger network, in fewer and larger batches, all of one shape."""
    network = ("--model.network", "deep_whitened_vgg")
    length = ("--trainer.max_epochs", epochs, "--trainer.limit_train_batches", "117", "--model.warmup_epochs", warmup)
    return (*_start("speedrun94", 512, "reduce-overhead"), *network, *length, *HALF)


# Batches of at most 512 at ratio 1: beyond 2 ** 31 values in a tensor cuDNN takes a far slower way.
CASES: dict[str, Case] = {
    "r1-224": Case(_classic("sources/s2-vgg", 256, "default"), "at least 11000 examples/s"),
    "r1-224-eager": Case(_classic("sources/s2-vgg", 256, "none"), steps=30),
    "r4-224": Case(_classic("sources/s4-224", 512, "default"), "at least 40000 examples/s"),
    "r4-224-graphs": Case(_classic("sources/s4-224", 512, "reduce-overhead")),
    "r4-224-eager": Case(_classic("sources/s4-224", 512, "none")),
    "r4-224-eager-fp32": Case(_classic("sources/s4-224", 128, "none", "--trainer.precision", "32-true"), steps=30),
    "r4-224-copied": Case(_classic("sources/s4-224", 512, "default", *HALF, "--data.on_device", "false")),
    "r4-96": Case(_classic("sources/s4-96", 1024, "default"), "at least 200000 examples/s", steps=30),
    "r4-96-graphs": Case(_classic("sources/s4-96", 1024, "reduce-overhead"), steps=30),
    "time-92.1": Case(_race("3", "0.5"), "92.1 % in at most 2 s of training", steps=0),
    "time-92.1-cpu": Case(("--config", "speedrun", "--model.compile", "default", *HALF), steps=0),  # as for 2 CPU cores
    "time-94": Case(_race("8", "1"), "94 % in at most 5 s of training", steps=0),
}


class Watch:
    """Times the steps of `fit` without making any of them wait, but for the first and the last that count.

    Args:
        case: says which these are.
        synchronize: waits for the device.
    """

    def __init__(self, case: Case, synchronize: Callable[[], Any]) -> None:
        self.case, self.synchronize = case, synchronize
        self.done = 0
        self.begin = 0.0
        self.seconds = 0.0

    def step(self, *_: Any) -> None:
        """Count a step. Raises Enough after the last one that is needed."""
        self.done += 1
        if self.done == self.case.warmup:
            self.synchronize()
            self.begin = time.perf_counter()
        if self.case.steps and self.done == self.case.warmup + self.case.steps:
            self.finish()
            raise Enough

    def finish(self) -> None:
        """Stop the clock."""
        self.synchronize()
        self.seconds = time.perf_counter() - self.begin

    def per_step(self) -> float:
        """Return the seconds of a step."""
        return self.seconds / max(self.done - self.case.warmup, 1)


def measure(case: Case, accelerator: str) -> dict[str, float]:
    """Run `vgg-lightning fit` here, and return the figures."""
    from vgg_lightning.cli.lightning import main
    from vgg_lightning.show.report import RunReport, peak_memory_mb

    on_gpu = accelerator == "gpu"
    watch, on_train_end = Watch(case, torch.cuda.synchronize if on_gpu else lambda: None), RunReport.on_train_end

    def ended(self: RunReport, *args: Any) -> None:
        watch.finish()
        on_train_end(self, *args)

    hook = register_optimizer_step_post_hook(watch.step)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(RunReport, "on_train_end", ended):
        place = ("--trainer.default_root_dir", folder, "--trainer.accelerator", accelerator, "--trainer.devices", "1")
        with contextlib.suppress(Enough), contextlib.redirect_stdout(sys.stderr):
            main(["fit", *case.options, *place, "--trainer.enable_progress_bar", "false"])
        hook.remove()
        results = [json.loads(file.read_text()) for file in Path(folder).rglob("results.json")]
    if not watch.seconds:
        raise SystemExit(f"fit ended after {watch.done} steps")
    found = {"step_seconds": watch.per_step(), "peak_mb": peak_memory_mb()}
    if results:
        found |= {name: results[0][name] for name in ("test_acc", "test_acc_tta") if name in results[0]}
        found["seconds"] = watch.per_step() * watch.done  # those that compile count as the others
    return found


def empty_row(name: str) -> Row:
    """Return the row of a case that was not measured."""
    figures = ("examples_per_second",) if CASES[name].steps else ("examples_per_second", "seconds", "test_acc")
    blank = dict.fromkeys(figures, NOT_MEASURED)
    return {**dict.fromkeys(COLUMNS, ""), "row": name, "goal": CASES[name].goal, **blank, "command": "make bench-gpu"}


def row_of(name: str, figures: dict[str, float], device: str) -> Row:
    """Return the row of a case that was measured."""
    measured: Row = {
        "examples_per_second": f"{batch_size(CASES[name]) / figures['step_seconds']:.0f}",
        "peak_mb": f"{figures['peak_mb']:.0f}",
        **{key: f"{figures[key]:.4g}" for key in ("seconds", "test_acc", "test_acc_tta") if key in figures},
        "device": device,
        "versions": in_words({"torch": torch.__version__}),
    }
    row = empty_row(name) | measured
    return row | {key: "" for key, value in row.items() if value == NOT_MEASURED}


def batch_size(case: Case) -> int:
    """Return the examples in a batch of a case."""
    options = list(case.options)
    if "--data.batch_size" in options:
        return int(options[options.index("--data.batch_size") + 1])
    return Work(options[options.index("--config") + 1]).batch_size


def take(name: str, accelerator: str, seconds: float) -> dict[str, float] | str:
    """Measure a case in a process of its own; return why not if it fails."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--accelerator", accelerator, "--row", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"not done after {seconds:.0f} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def printed(rows: list[Row]) -> str:
    """Return the table as text."""
    shown = COLUMNS[:7]
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in shown}
    head = {column: column for column in shown}
    return "\n".join("  ".join(row[column].ljust(widths[column]) for column in shown) for row in (head, *rows))


def main(args: list[str] | None = None) -> int:
    """Measure the rows asked for and print all; return 0, 1 if one failed, 2 without a GPU, 130 if interrupted."""
    own = _parse(args)
    if own.row:
        print(json.dumps(measure(CASES[own.row], own.accelerator)), flush=True)
        return 0
    table = Table(own.table, COLUMNS, ("row",))
    table.put((empty_row(name) for name in CASES), overwrite=False)
    if own.accelerator == "gpu" and not torch.cuda.is_available():
        print(printed(table.rows()))
        print("error: there is no GPU here: run it where torch.cuda.is_available(), or give --accelerator cpu")
        return 2
    device = torch.cuda.get_device_name() if own.accelerator == "gpu" else processor()
    try:
        failed = _measure(own, table, device)
    except KeyboardInterrupt:
        print("interrupted: --only measures what is left", file=sys.stderr)
        return 130
    print(printed(table.rows()))
    return int(failed)


def _measure(own: argparse.Namespace, table: Table, device: str) -> bool:
    end, failed = time.monotonic() + LIMIT, False
    for name in CASES:
        if not name.startswith(tuple(own.only)):
            continue
        found = take(name, own.accelerator, max(end - time.monotonic(), 1.0))
        if isinstance(found, str):
            print(f"{name} failed: {found}", file=sys.stderr)
            failed = True
            continue
        table.put([row_of(name, found, device)])
        print(f"{name}: {batch_size(CASES[name]) / found['step_seconds']:.0f} examples/s", flush=True)
    return failed


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[""], metavar="ROW", help=f"of {', '.join(CASES)}")
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--table", type=Path, default=RESULTS / "gpu.csv", help="the csv file")
    parser.add_argument("--row", choices=CASES, help=argparse.SUPPRESS)
    return parser.parse_args(args)


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
