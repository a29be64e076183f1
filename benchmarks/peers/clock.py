"""Times the steps of somebody else's training loop, and ends it when there are enough."""

from __future__ import annotations

import statistics
import time

from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook


class Enough(BaseException):
    """Ends a training. No Exception, so that no framework takes it for a failure."""


class Clock:
    """Notes when each step begins, with its batch at hand, and ends, with its weights updated.

    Args:
        seconds: how long to measure, after the steps that warm up.
        least: steps to measure, even if they take longer.
        most: steps of the loop, those that warm up included: of one epoch, lest its end be measured too.
    """

    def __init__(self, seconds: float, least: int = 2, most: int = 10**9) -> None:
        self.seconds, self.least, self.most = seconds, least, most
        self.warmup = 0  # steps; known once they are over
        self.steps: list[tuple[float, float]] = []
        self.born = time.perf_counter()
        self._begin: float | None = None

    def start(self) -> None:
        """Note the begin of a step, at the first call since the last one ended."""
        if self._begin is None:
            self._begin = time.perf_counter()

    def stop(self) -> None:
        """Note the end of a step. Raises Enough if it was the last one needed."""
        now = time.perf_counter()
        self.steps.append((now if self._begin is None else self._begin, now))
        self._begin = None
        if not self.warmup and (len(self.steps) >= 3 or now - self.steps[0][0] > self.seconds):
            self.warmup = len(self.steps)
        measured = len(self.steps) - self.warmup
        enough = self.warmup and measured >= self.least and now - self.steps[self.warmup - 1][1] >= self.seconds
        if enough or len(self.steps) >= self.most:
            raise Enough

    def watch_torch(self) -> None:
        """Time every step of every optimizer of torch's, from the forward pass before it."""
        register_module_forward_pre_hook(lambda *_: self.start())
        register_optimizer_step_post_hook(lambda *_: self.stop())

    def figures(self, batch_size: int) -> dict[str, float]:
        """Return examples/s by the clock on the wall, data loading included, and of the median step alone."""
        warmup = self.warmup or 1
        ends = [end for _, end in self.steps]
        measured = self.steps[warmup:]
        if not measured:
            return {}
        return {
            "wall": batch_size * len(measured) / (ends[-1] - ends[warmup - 1]),
            "step": batch_size / statistics.median(end - begin for begin, end in measured),
            "steps": len(measured),
        }
