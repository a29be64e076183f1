"""One measurement in a process of its own, which prints one line of JSON: `python -m benchmarks.peers.worker JOB`."""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import site
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.clock import Clock, Enough
from benchmarks.peers.work import WORKS, Work

PACKAGES = Path(__file__).parents[2] / ".venv-bench"  # what `make bench` installs


@dataclass(frozen=True)
class Job:
    """What to measure.

    Args:
        part: "train", "load", "predict", "epoch", "first_step" or "efficiency".
        contender: a module beside this one.
        preset: of the work.
        changes: options of the work that differ from the preset's.
        seconds: how long to measure.
        threads: of torch.
        trick: one of `bare.TRICKS`; nothing for none.
    """

    part: str
    contender: str
    preset: str
    changes: dict[str, Any]
    seconds: float
    threads: int
    trick: str = ""

    @property
    def work(self) -> Work:
        """The work."""
        return Work(self.preset, self.changes)


def job_of(part: str, contender: str, work: str, seconds: float, threads: int) -> Job:
    """Return the job of a contender, a module or one with a trick such as "bare:contiguous", at one of the works."""
    module, _, trick = contender.partition(":")
    return Job(part, module, WORKS[work].preset, WORKS[work].changes, seconds, threads, trick)


def measure(job: Job) -> dict[str, float]:
    """Return the figures of a job."""
    torch.set_num_threads(job.threads)
    site.addsitedir(str(PACKAGES))  # behind the project's own packages, which are so the same for all
    contender = importlib.import_module(f"benchmarks.peers.{job.contender}")
    figures = MEASURES[job.part](job, contender)
    from vgg_lightning.base.machine import peak_memory

    return {**figures, "peak_bytes": peak_memory("cpu")}


def _train(job: Job, contender: Any) -> dict[str, float]:
    work = job.work
    clock = Clock(job.seconds, most=55_000 // work.batch_size)
    with contextlib.suppress(Enough):
        contender.train(work, clock, **({"trick": job.trick} if job.trick else {}))
    return clock.figures(work.batch_size)


def _load(job: Job, contender: Any) -> dict[str, float]:
    work, warmup, count, begin = job.work, 10, 0, 0.0
    for batch in contender.batches(work):
        count += 1
        if count == warmup:
            begin = time.perf_counter()
            size = tuple(batch.shape)
        elif count > warmup and time.perf_counter() - begin >= job.seconds:
            break
    assert size[1:] == (1, work.image_size, work.image_size), size
    return {"wall": work.batch_size * (count - warmup) / (time.perf_counter() - begin)}


def _predict(job: Job, contender: Any) -> dict[str, float]:
    classify = contender.predict(job.work)
    begin = time.perf_counter()
    classify()
    return {"wall": 10_000 / (time.perf_counter() - begin)}


def _epoch(job: Job, contender: Any) -> dict[str, float]:
    begin = time.perf_counter()
    contender.epoch(job.work)
    return {"seconds": time.perf_counter() - begin}


def _first_step(job: Job, contender: Any) -> dict[str, float]:
    clock = Clock(0.0, least=1, most=1)
    with contextlib.suppress(Enough):
        contender.train(job.work, clock)
    return {"first_step_at": time.time() - (time.perf_counter() - clock.steps[0][0])}


def _efficiency(job: Job, contender: Any) -> dict[str, float]:
    peak = matrix_peak()
    figures = _train(job, contender)
    flops = figures["step"] * job.work.training_flops()
    return {**figures, "matrix_peak": max(peak, matrix_peak()), "flops": flops}


def matrix_peak(side: int = 2048, seconds: float = 1.0) -> float:
    """Return the FLOP/s of the fastest of some products of two float32 matrices."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - begin)
    return 2 * side**3 / best


MEASURES = {
    "train": _train,
    "load": _load,
    "predict": _predict,
    "epoch": _epoch,
    "first_step": _first_step,
    "efficiency": _efficiency,
}


def main(text: str) -> None:
    """Measure the job that the JSON `text` describes; all that it prints meanwhile goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches both processes; the other one speaks
    with contextlib.redirect_stdout(sys.stderr):
        figures = measure(Job(**json.loads(text)))
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
