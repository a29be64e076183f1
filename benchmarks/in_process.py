"""`vgg-lightning fit` in this process: the libraries are imported once for many runs, and a clock watches the steps."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.peers.clock import Enough
from vgg_lightning.show.report import RunReport, peak_memory_mb


class OutOfTime(BaseException):
    """The time for all runs is over. No Exception, so that nothing takes it for a failure."""


@dataclass
class StepClock:
    """Times the steps of `fit` without making any of them wait, except the first and the last that count.

    Args:
        warmup: steps that are not counted: they compile.
        steps: counted steps after which the run ends; 0 trains to the end.
        deadline: when the run must end, by `time.monotonic`.
        at_warm: called once after the last step that is not counted, for a profiler.
        at_end: called once after the last step that is.
    """

    warmup: int = 15
    steps: int = 0
    deadline: float = float("inf")
    at_warm: Callable[[], None] | None = None
    at_end: Callable[[], None] | None = None
    done: int = 0
    born: float = field(default_factory=time.perf_counter)
    begin: float = 0.0
    seconds: float = 0.0  # of the counted steps
    before: float = 0.0  # seconds until they began

    def step(self, *_: Any) -> None:
        """Count a step. Raises Enough after the last one that is needed, OutOfTime after the deadline."""
        self.done += 1
        if self.done == self.warmup:
            self.begin = _now()
            self.before = self.begin - self.born
            if self.at_warm is not None:
                self.at_warm()
        if self.steps and self.done == self.warmup + self.steps:
            self.finish()
            raise Enough
        if time.monotonic() > self.deadline:
            raise OutOfTime

    def finish(self) -> None:
        """Stop the clock."""
        self.seconds = _now() - self.begin
        if self.at_end is not None:
            self.at_end()

    @property
    def per_step(self) -> float:
        """Seconds of a counted step."""
        return self.seconds / max(self.done - self.warmup, 1)

    @property
    def training_seconds(self) -> float:
        """Seconds of all steps, those that compile counted as the others."""
        return self.per_step * self.done


@dataclass(frozen=True)
class Fitted:
    """What a run left: results.json (empty if it was ended), its folder, peak memory in MB, its seconds on the wall."""

    results: dict[str, Any]
    folder: Path | None
    peak_mb: float
    wall: float


@contextlib.contextmanager
def fitted(options: tuple[str, ...], clock: StepClock, accelerator: str) -> Iterator[Fitted]:
    """Run `vgg-lightning fit` with `options` in a temporary folder, which is there within the context.

    Args:
        options: of the command line, without those that say where the run goes and where it computes.
        clock: watches its steps.
        accelerator: "gpu" or "cpu".

    Raises:
        UserError: the options cannot be used.
        OutOfTime: the deadline of the clock has passed.
    """
    from vgg_lightning.cli.lightning import main

    _forget()
    begin, on_train_end = time.perf_counter(), RunReport.on_train_end

    def ended(self: RunReport, *args: Any) -> None:
        clock.finish()
        on_train_end(self, *args)

    hook = register_optimizer_step_post_hook(clock.step)
    with tempfile.TemporaryDirectory() as root, mock.patch.object(RunReport, "on_train_end", ended):
        place = ("--trainer.default_root_dir", root, "--trainer.accelerator", accelerator, "--trainer.devices", "1")
        try:
            with contextlib.suppress(Enough), contextlib.redirect_stdout(sys.stderr):
                main(["fit", *options, *place, "--trainer.enable_progress_bar", "false"])
        finally:
            hook.remove()
        files = sorted(Path(root).rglob("results.json"))
        results = json.loads(files[0].read_text(encoding="utf-8")) if files else {}
        folder = files[0].parent if files else None
        yield Fitted(results, folder, peak_memory_mb(), time.perf_counter() - begin)
    _forget()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _forget() -> None:
    """Free what the run before has compiled and allocated, and let the peak of memory begin anew."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
