"""`vgg-lightning find batch_size`: speed and memory of training steps by batch size.

Lightning's own finder doubles the batch until memory runs out. On a CPU that ends the process, or the machine; so
here the next size is tried only if the memory that it will take, by what the sizes before it took, is there.
"""

from __future__ import annotations

import copy
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning as L
import torch
from torch import nn

from vgg_lightning.base import text as render
from vgg_lightning.base.errors import UserError
from vgg_lightning.base.machine import free_memory, peak_memory
from vgg_lightning.find.finder import ready, scratch, write_plot, write_points

if TYPE_CHECKING:
    from vgg_lightning.classifier import Classifier
    from vgg_lightning.data.datamodule import FashionMNISTDataModule

SMALLEST = 8
STEPS = 4  # of each size, the first of which is not counted
NEARLY = 0.95  # share of the best speed with which a smaller batch is suggested


class Trial(NamedTuple):
    """A size of a batch, the speed of training with it in examples/s, and what it took in bytes."""

    size: int
    speed: float
    memory: int


def run(options: list[str], folder: Path | None, max_size: float, memory: float) -> int:
    """Print speed and memory of each size, a suggestion, and the command that uses it; write csv and plot."""
    if memory > 1:
        raise UserError(f"--memory {memory:g} is out of range: it takes a share of the free memory, up to 1")
    if max_size < SMALLEST:
        raise UserError(f"--max_size {max_size:g} is too small: it takes {SMALLEST} or more")
    with scratch() as place:
        run = ready(options, place, 1)
        trials, reason = measure_sizes(run.model, run.data, run.trainer, int(max_size), memory)
    best = suggestion(trials)
    rows = [[trial.size, f"{trial.speed:,.0f}", _memory(trial.memory)] for trial in trials]
    print(render.table(["batch size", "examples/s", "memory at least"], rows))
    print(f"\nstopped        {reason}")
    print(f"suggested      {best}: the smallest batch within {1 - NEARLY:.0%} of the best speed")
    print(f"use it         vgg-lightning fit {shlex.join([*options, '--data.batch_size', str(best)])}")
    print("               and look for its learning rate with vgg-lightning find lr")
    if folder is not None:
        points = [tuple(map(float, trial)) for trial in trials]
        print("written       ", write_points(folder, "batch_sizes", Trial._fields, points))
        print("written       ", write_plot(folder, "batch_sizes", lambda axes: _draw(axes, trials, best)))
    return 0


def measure_sizes(
    model: Classifier, data: FashionMNISTDataModule, trainer: L.Trainer, max_size: int, share: float
) -> tuple[list[Trial], str]:
    """Return a trial for 8, 16, 32, ... images, and why there is no next one; a copy of `model` is trained.

    Args:
        model: to train.
        data: to train on, set up.
        trainer: whose device and precision are used; one device is measured.
        max_size: the largest batch to try.
        share: of the free memory that a step may take.
    """
    device, images = trainer.strategy.root_device, data.images("train")[0]
    network = copy.deepcopy(model).to(device).train()
    allowed = share * _free(device)
    base, trials, size = _used(device), list[Trial](), SMALLEST
    while size <= min(max_size, len(images)):
        if trials and (next_takes := 2 * trials[-1].memory) > allowed:
            return trials, (
                f"a batch of {size} would take {render.memory(next_takes)}, {render.memory(allowed)} are allowed"
            )
        try:
            speed = size / _seconds(network, data, trainer, size)
        except torch.OutOfMemoryError:
            return trials, f"a batch of {size} does not fit into the memory of the device"
        trials.append(Trial(size, speed, max(_used(device) - base, trials[-1].memory if trials else 0)))
        size *= 2
    limit = "--max_size" if size > max_size else "there are no more training images"
    return trials, limit


def _memory(size: int) -> str:
    return render.memory(size) if size else "no more than before"  # the peak of the start is not reached


def suggestion(trials: list[Trial]) -> int:
    """Return the smallest size with nearly the best speed. Raises UserError if none could be measured."""
    if not trials:
        raise UserError("find batch_size: not even a batch of 8 fits; lower --data.image_size or raise --model.ratio")
    best = max(trial.speed for trial in trials)
    return next(trial.size for trial in trials if trial.speed >= NEARLY * best)


def _seconds(model: Classifier, data: FashionMNISTDataModule, trainer: L.Trainer, size: int) -> float:
    """Return the seconds of the median training step."""
    images, labels = (tensor[:size].to(trainer.strategy.root_device) for tensor in data.images("train"))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0, momentum=0.9)
    seconds = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        with trainer.precision_plugin.forward_context():
            loss = nn.functional.cross_entropy(model(data.preprocess(images)), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        if images.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return sorted(seconds[1:])[len(seconds[1:]) // 2]


def _used(device: torch.device) -> int:
    """Return the most bytes that were in use up to now."""
    return peak_memory(str(device))


def _free(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free_memory()


def _draw(axes: Any, trials: list[Trial], best: int) -> None:
    axes.plot([trial.size for trial in trials], [trial.speed for trial in trials], marker="o")
    axes.axvline(best, color="tab:red", linestyle="--", label=f"suggested: {best}")
    axes.set(xlabel="batch size", ylabel="examples/s in training")
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.legend()
