"""Measures one network in a separate process, which prints one line of JSON.

Its own, because the peak memory of a process never falls again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vgg_lightning.base.imports import imported
from vgg_lightning.base.machine import no_memory_left, out_of_memory, peak_memory
from vgg_lightning.networks import build_network
from vgg_lightning.run.precision import DEFAULT

Precision = contextlib.AbstractContextManager[Any]


@dataclass(frozen=True)
class Job:
    """What to measure: `batches` batches of random images, after one that is not counted; and what to import.

    `precision` is "32-true" or "bf16-mixed": the weights stay in float32 in both.
    """

    network: str
    options: dict[str, Any]
    batch_size: int
    batches: int
    device: str
    threads: int | None
    imports: Sequence[str] = ()
    precision: str = DEFAULT

    def autocast(self) -> torch.autocast:
        """Return the context in which a forward pass computes in the precision of the job."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision != DEFAULT)


def measure(job: Job) -> dict[str, float]:
    """Return examples/s in inference and training, and bytes of peak memory in both and before them."""
    if job.threads:
        torch.set_num_threads(job.threads)
    _import_the_rest(job.device)
    base = peak_memory(job.device)
    network = build_network(job.network, **job.options).to(job.device)
    size, channels = job.options["image_size"], job.options["in_channels"]
    x = torch.rand(job.batch_size, channels, size, size, device=job.device)
    y = torch.randint(job.options["num_classes"], (job.batch_size,), device=job.device)
    # Inference first: its peak is the lower one.
    inference = _examples_per_second(job, lambda: _infer(network.eval(), x, job.autocast()))
    inference_peak = peak_memory(job.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    training = _examples_per_second(job, lambda: _train(network.train(), optimizer, x, y, job.autocast()))
    speeds = {"training_examples_per_second": training, "inference_examples_per_second": inference}
    if not base:  # this system does not tell
        return speeds
    peaks = {"training_peak_bytes": peak_memory(job.device), "inference_peak_bytes": inference_peak}
    return {**speeds, **peaks, "base_bytes": base}


def _import_the_rest(device: str) -> None:
    """Take one step with a tiny network: torch imports much of itself, some 150 MiB, on first use."""
    network = nn.Linear(1, 1).to(device)
    x, y = torch.rand(1, 1, device=device), torch.zeros(1, dtype=torch.long, device=device)
    _train(network, torch.optim.SGD(network.parameters(), lr=0.01), x, y, contextlib.nullcontext())


@torch.no_grad()
def _infer(network: nn.Module, x: Tensor, precision: Precision) -> None:
    with precision:
        network(x)


def _train(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, precision: Precision) -> None:
    optimizer.zero_grad()
    with precision:
        loss = nn.functional.cross_entropy(network(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _examples_per_second(job: Job, step: Callable[[], None]) -> float:
    """Return the speed of the median batch, which a short disturbance does not change."""
    seconds = []
    parent = os.getppid()
    for _ in range(job.batches + 1):
        if os.getppid() != parent:
            raise SystemExit("the process that asked for the measurement is gone")
        start = time.perf_counter()
        step()
        if job.device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    counted = sorted(seconds[1:])
    return job.batch_size / counted[len(counted) // 2]


def main(text: str) -> int:
    """Measure the job that the JSON `text` describes, and print the figures or {"error": one line}."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches both processes; the other one speaks
    with contextlib.suppress(OSError):  # if Linux must end a process, then this one
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    try:
        job = Job(**json.loads(text))
        with imported(job.imports):
            result: dict[str, float | str] = {**measure(job)}
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        result = {"error": no_memory_left()}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
