"""All that needs a GPU, in one process and in order of value: `make gpu SECONDS=330`.

    python -m benchmarks.gpu --seconds 330            what is missing, as far as the time goes
    python -m benchmarks.gpu --plan                   only say what would run
    python -m benchmarks.gpu --only source- r4        tasks whose names begin so, also if their rows are there
    python -m benchmarks.gpu --needs                  the packages that are missing here

A task is one run of `vgg-lightning fit`. Its row is saved as soon as it is measured, so that a machine that is at hand
for some minutes is well used. The data lies on the device; compilation is not counted, but printed. Expected times
are those of an H100.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import record, sources
from benchmarks.in_process import Fitted, OutOfTime, StepClock, fitted
from benchmarks.machine import processor
from benchmarks.peers.work import Work
from benchmarks.presets import run_of as preset_run
from benchmarks.runner import NOT_MEASURED, RESULTS, Outcome, Run, in_words, number, stop_on_sigterm
from benchmarks.table import Row, Table

COLUMNS = (
    *("row", "seed", "goal", "examples_per_second", "share", "seconds", "test_acc", "test_acc_tta", "compile_seconds"),
    *("peak_mb", "device", "versions", "command"),
)
PROFILE = "gpu_profile_r1_224.csv"
HALF = ("--trainer.precision", "bf16-mixed")
CLASSIC = ("--data.val_size", "0", "--trainer.benchmark", "true")
BARE = ("--show", "none", "--trainer.logger", "false", "--trainer.enable_checkpointing", "false")
PRODUCT = 8192  # side of the matrices whose product is the peak
NEEDED = {  # module -> distribution
    **{name: name for name in ("torch", "torchvision", "lightning", "torchmetrics", "tensorboard", "jsonargparse")},
    **{name: name for name in ("numpy", "tqdm", "filelock", "docstring_parser", "typeshed_client")},
    **{"importlib_resources": "importlib_resources", "PIL": "pillow", "yaml": "pyyaml"},
}


@dataclass(frozen=True)
class Case:
    """A run whose speed is measured, or that races for an accuracy.

    Args:
        options: of `vgg-lightning fit`.
        goal: in words; nothing if there is none.
        steps: to measure after `warmup` steps; 0 trains to the end and tests.
        warmup: steps that compile.
        expected: seconds that it takes on an H100.
        seeds: how many rows it has.
        planned: whether it is part of the plan; others run only if named with --only.
    """

    options: tuple[str, ...]
    goal: str = ""
    steps: int = 60
    warmup: int = 15
    expected: float = 40.0
    seeds: int = 1
    planned: bool = False


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
    "time-92.1": Case(_race("3", "0.5"), "92.1 % in at most 2 s of training", 0, expected=25, seeds=5, planned=True),
    "time-94": Case(_race("8", "1"), "94 % in at most 5 s of training", 0, expected=20, seeds=5, planned=True),
    "time-92.1-cpu": Case(("--config", "speedrun", "--model.compile", "default", *HALF), steps=0),  # as for 2 CPU cores
    "r1-224": Case(_classic("sources/s2-vgg", 256, "default"), "at least 11000 examples/s", planned=True),
    "r4-224": Case(_classic("sources/s4-224", 512, "default"), "at least 40000 examples/s", planned=True),
    "r4-96": Case(_classic("sources/s4-96", 1024, "default"), "at least 200000 examples/s", steps=30, planned=True),
    "r1-224-eager": Case(_classic("sources/s2-vgg", 256, "none"), steps=30),
    "r4-224-graphs": Case(_classic("sources/s4-224", 512, "reduce-overhead")),
    "r4-224-eager": Case(_classic("sources/s4-224", 512, "none")),
    "r4-224-eager-fp32": Case(_classic("sources/s4-224", 128, "none", "--trainer.precision", "32-true"), steps=30),
    "r4-224-copied": Case(_classic("sources/s4-224", 512, "default", *HALF, "--data.on_device", "false")),
    "r4-96-graphs": Case(_classic("sources/s4-96", 1024, "reduce-overhead"), steps=30),
}
# Expected seconds of each recipe, eager: compiling for every shape of a batch would take longer than it saves.
SOURCES = {
    **{"s3": 15.0, "s4-224": 40.0, "s2-nin": 40.0, "s2-alexnet": 35.0, "s2-densenet": 60.0, "s2-googlenet": 65.0},
    **{"s4-vgg19": 70.0, "s2-vgg": 120.0},
}
RECORDS = {"small": 110.0, "record": 260.0}


@dataclass(frozen=True)
class Place:
    """Where the tasks run, where their rows go, and until when there is time.

    Attributes:
        results: folder of the csv files.
        accelerator: "gpu" or "cpu".
        deadline: by `time.monotonic`.
        more: options of `fit` for every task: tests make the work tiny with them.
    """

    results: Path
    accelerator: str = "gpu"
    deadline: float = float("inf")
    more: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """The device in words."""
        return torch.cuda.get_device_name() if self.accelerator == "gpu" else processor()

    def clock(self, warmup: int = 15, steps: int = 0) -> StepClock:
        """Return a clock that ends a run in time."""
        return StepClock(warmup, steps, self.deadline)

    def rates(self) -> Table:
        """Return the table of the cases."""
        return Table(self.results / "gpu.csv", COLUMNS, ("row", "seed"))


@dataclass(frozen=True)
class Task:
    """One row to measure.

    Args:
        name: to choose it by.
        expected: seconds on an H100, all included.
        done: whether its row is there.
        run: measures and saves it, and returns what to print.
    """

    name: str
    expected: float
    done: Callable[[Place], bool]
    run: Callable[[Place], str]
    planned: bool = True


def tasks(seeds: int) -> list[Task]:
    """Return all tasks, the most valuable first; `seeds` limits those of a race."""
    found = [
        Task(f"source-{name}", s, partial(_has_source, name), partial(_source, name)) for name, s in SOURCES.items()
    ]
    for name, case in CASES.items():
        for seed in range(min(case.seeds, seeds)):
            label = f"{name}-seed{seed}" if case.seeds > 1 else name
            run, has = partial(_case, name, seed), partial(_has_case, name, seed)
            found.append(Task(label, case.expected, has, run, case.planned))
    found.insert(len(SOURCES) + 2 * min(5, seeds), Task("profile-r1-224", 40, _has_profile, _profile))
    for preset, expected in RECORDS.items():
        for seed in record.SEEDS:
            has = partial(_has_record, preset, seed)
            found.append(Task(f"{preset}-seed{seed}", expected, has, partial(_record, preset, seed)))
    return found


def _has_source(preset: str, place: Place) -> bool:
    table = sources.table(place.results / "sources.csv")
    return sources.covers(table.find(sources.empty_row(preset, 0)), sources.recipe_epochs(preset), None)


def _source(preset: str, place: Place) -> str:
    """Train a recipe of the sources from the beginning to the end."""
    base = sources.run_of(preset, sources.recipe_epochs(preset), 0, None)
    run = Run(base.name, (*base.options, *HALF, "--trainer.benchmark", "true", *BARE, *place.more))
    with fitted(run.options, place.clock(), place.accelerator) as found:
        row = sources.measured_row(run, Outcome(found.results, (), "unknown"), sources.empty_row(preset, 0), None)
    sources.table(place.results / "sources.csv").put([row])
    return f"test_acc {row['test_acc']}, {row['examples_per_second']} examples/s"


def empty_row(name: str, seed: int = 0) -> Row:
    """Return the row of a case that was not measured."""
    figures = ("examples_per_second",) if CASES[name].steps else ("examples_per_second", "seconds", "test_acc")
    known = {"row": name, "seed": str(seed), "goal": CASES[name].goal, "command": f'make gpu ARGS="--only {name}"'}
    return {**dict.fromkeys(COLUMNS, ""), **known, **dict.fromkeys(figures, NOT_MEASURED)}


def _has_case(name: str, seed: int, place: Place) -> bool:
    row = place.rates().find(empty_row(name, seed))
    return bool(row and (row["share"] if CASES[name].steps else row["test_acc"] not in ("", NOT_MEASURED)))


def _case(name: str, seed: int, place: Place) -> str:
    """Measure a rate, or race."""
    case = CASES[name]
    options = (*case.options, "--seed_everything", str(seed), *BARE, *place.more)
    clock = place.clock(case.warmup, case.steps)
    with fitted(options, clock, place.accelerator) as found:
        row = row_of(name, seed, clock, found, place)
    place.rates().put([row])
    shown = ("examples_per_second", "share", "seconds", "test_acc", "test_acc_tta", "compile_seconds")
    return ", ".join(f"{key} {row[key]}" for key in shown if row[key])


def row_of(name: str, seed: int, clock: StepClock, found: Fitted, place: Place) -> Row:
    """Return the row of a case that was measured."""
    case, batch = CASES[name], batch_size(CASES[name])
    rate = batch / clock.per_step
    measured = {
        "examples_per_second": f"{rate:.0f}",
        "compile_seconds": f"{max(clock.before - clock.warmup * clock.per_step, 0):.1f}",
        "peak_mb": f"{found.peak_mb:.0f}",
        "device": place.device,
        "versions": in_words({"torch": torch.__version__}),
    }
    if case.steps:
        measured["share"] = f"{rate * Work(_preset(case)).training_flops() / product_rate(place.accelerator):.3f}"
    else:
        measured["seconds"] = f"{clock.training_seconds:.4g}"
        measured |= {key: number(found.results.get(key)) for key in ("test_acc", "test_acc_tta")}
    return empty_row(name, seed) | measured


def batch_size(case: Case) -> int:
    """Return the examples in a batch of a case."""
    options = list(case.options)
    if "--data.batch_size" in options:
        return int(options[options.index("--data.batch_size") + 1])
    return Work(_preset(case)).batch_size


def _preset(case: Case) -> str:
    return case.options[case.options.index("--config") + 1]


def product_rate(accelerator: str) -> float:
    """Return the FLOP/s of a bf16 product of two matrices of side 8192 (512 on a CPU), the median of 20."""
    device, side = ("cuda", PRODUCT) if accelerator == "gpu" else ("cpu", 512)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(25):
        begin = time.perf_counter()
        a @ b
        if accelerator == "gpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return 2 * side**3 / statistics.median(seconds[5:])


def _has_record(preset: str, seed: int, place: Place) -> bool:
    row = _records(place).find(record.empty_row(preset, seed))
    return bool(row and row["state"] == record.MEASURED)


def _records(place: Place) -> Table:
    return Table(place.results / "record.csv", record.COLUMNS, ("preset", "seed"))


def _record(preset: str, seed: int, place: Place) -> str:
    """Train a preset for accuracy, compiled into one CUDA graph a step, with as many epochs as its row of seed 0."""
    before = _records(place).find(record.empty_row(preset, 0))
    epochs = ("--trainer.max_epochs", before["epochs"]) if before and before["epochs"] else ()
    compiled = ("--model.compile", "reduce-overhead" if place.accelerator == "gpu" else "none")
    run = preset_run(preset, seed, (*compiled, "--show", "none", *epochs, *place.more))
    clock = place.clock()
    with fitted(run.options, clock, place.accelerator) as found:
        assert found.folder is not None
        record.keep(found.folder, place.results / "record" / f"{preset}-{seed}")
        outcome = Outcome(found.results | {"seconds": round(clock.training_seconds, 1)}, (), "unknown")
        row = record.row_of(outcome, found.folder)
    _records(place).put([record.empty_row(preset, seed) | row | {"command": run.command}])
    return f"test_acc {row['test_acc']}, with views {row['test_acc_tta']}, {row['seconds']} s"


def _has_profile(place: Place) -> bool:
    return (place.results / PROFILE).is_file()


def _profile(place: Place) -> str:
    """Save which kernels ten steps of ratio 1 at 224 pixels spend their time in."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if place.accelerator == "gpu":
        activities = [torch.profiler.ProfilerActivity.CUDA]
    profiler = torch.profiler.profile(activities=activities, acc_events=True)
    case = CASES["r1-224"]
    clock = place.clock(case.warmup, 10)
    clock.at_warm, clock.at_end = profiler.start, profiler.stop
    with fitted((*case.options, *BARE, *place.more), clock, place.accelerator):
        pass
    kernels = list(_kernels(profiler, place.accelerator))
    total = sum(microseconds for _, _, microseconds in kernels)
    place.results.mkdir(parents=True, exist_ok=True)
    with (place.results / PROFILE).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("kernel", "calls", "milliseconds_per_step", "share", "device", "versions"))
        where = (place.device, f"torch {torch.__version__}")
        for name, calls, microseconds in kernels[:40]:
            writer.writerow((name[:160], calls, f"{microseconds / 1e4:.3f}", f"{microseconds / total:.4f}", *where))
    return f"{total / 1e4:.1f} ms of kernels a step, {1000 * clock.per_step:.1f} ms by the clock"


def _kernels(profiler: torch.profiler.profile, accelerator: str) -> Iterator[tuple[str, int, float]]:
    """Yield name, calls and microseconds of each kernel, the most expensive first."""
    key = "self_device_time_total" if accelerator == "gpu" else "self_cpu_time_total"
    events: list[Any] = list(profiler.key_averages())
    for event in sorted(events, key=lambda event: -getattr(event, key)):
        if getattr(event, key) > 0:
            yield event.key, event.count, getattr(event, key)


def missing() -> list[str]:
    """Return the distributions that the tasks need and that are not installed here."""
    return [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]


def chosen(own: argparse.Namespace, place: Place) -> list[Task]:
    """Return the tasks to run: those named with --only, or the planned ones without a row."""
    found = tasks(own.seeds)
    if own.only:
        return [task for task in found if task.name.startswith(tuple(own.only))]
    return [task for task in found if task.planned and not task.done(place)]


def _print_plan(plan: list[Task], seconds: float, done: list[str]) -> None:
    left = seconds
    print(f"done: {' '.join(done) or 'nothing'}\nto do: {len(plan)} tasks, in {seconds:.0f} s those that fit")
    for task in plan:
        fits = task.expected <= left
        left -= task.expected if fits else 0
        print(f"  {task.name:<22}{task.expected:>5.0f} s{'' if fits else '  not in this call'}", flush=True)


def main(args: list[str] | None = None) -> int:
    """Run the tasks that fit into the time; return 0, 1 if one failed, 2 if none can run, 130 if interrupted."""
    own = _parse(args)
    if own.needs:
        print(" ".join(missing()) or "nothing is missing")
        return 0
    place = Place(own.results, own.accelerator, time.monotonic() + own.seconds, tuple(own.more))
    for name, case in CASES.items():
        place.rates().put((empty_row(name, seed) for seed in range(case.seeds)), overwrite=False)
    plan = chosen(own, place)
    _print_plan(plan, own.seconds, [task.name for task in tasks(own.seeds) if task.done(place)])
    if own.plan or not plan:
        return 0
    if own.accelerator == "gpu" and not torch.cuda.is_available():
        _say("error: there is no GPU here, so nothing of this runs; --accelerator cpu tries it without one")
        return 2
    if own.seconds < (shortest := min(plan, key=lambda task: task.expected)).expected:
        _say(f"error: {own.seconds:.0f} s are too short for any task: {shortest.name} takes {shortest.expected:.0f} s")
        return 2
    try:
        return int(_run_all(plan, place))
    except KeyboardInterrupt:
        _say("interrupted: the same command continues with what is left")
        return 130


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _run_all(plan: list[Task], place: Place) -> bool:
    """Run the tasks, and return whether one failed."""
    failed = False
    for task in plan:
        left, begin = place.deadline - time.monotonic(), time.monotonic()
        if task.expected > left:
            continue
        try:
            line = task.run(place)
        except OutOfTime:
            line = f"not done after {time.monotonic() - begin:.0f} s: the time is over"
        except torch.OutOfMemoryError as error:
            failed, line = True, f"failed: too little memory: {str(error).splitlines()[0][:150]}"
        except Exception as error:  # whatever it is, the other tasks are worth their time
            failed, line = True, f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"{task.name}: {line} ({time.monotonic() - begin:.0f} s, {left:.0f} were left)", flush=True)
    return failed


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=330.0, help="for all tasks together (default: %(default)g)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="tasks whose names begin so, done or not")
    parser.add_argument("--seeds", type=int, default=5, help="of each race (default: %(default)s)")
    parser.add_argument("--plan", action="store_true", help="print the plan and stop")
    parser.add_argument("--needs", action="store_true", help="print the packages that are missing here and stop")
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the csv files")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="options of fit for every task, last")
    own = parser.parse_args(args)
    names = [task.name for task in tasks(own.seeds)]
    for word in own.only or ():
        if not any(name.startswith(word) for name in names):
            parser.error(f"no task begins with {word!r}: there are {', '.join(names)}")
    return own


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
