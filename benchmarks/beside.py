"""What stands beside the convolutions of a training step, each changed alone: `python -m benchmarks.beside`.

    python -m benchmarks.beside --works quick vgg11-r4-96 --rounds 40
    python -m benchmarks.beside --tricks fused --precisions bf16-mixed

Two copies of a network with the same weights take turns in one process, step by step: one as `vgg-lightning fit` trains
it, one with the trick. The ratio is that of the plain step's time to that of the step with the trick, the median over
rounds: above 1 the trick is faster. It is the processor's time, not that on the wall, so that other work on the machine
counts little. `exact` says whether the weights of both are equal to the last bit after the first steps.
results/beside.csv has a row for each.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.machine import OtherWork, instruction_set, processor
from benchmarks.peers.work import WORKS, Work
from benchmarks.runner import RESULTS
from benchmarks.table import Table
from vgg_lightning.base.machine import keep_freed_memory
from vgg_lightning.training.compiling import PoolFirst, pool_first
from vgg_lightning.training.optimizers import build_optimizer

WARM_UP = 3  # rounds that are not counted, after which the weights are compared
COLUMNS = (
    *("work", "precision", "trick", "ratio", "ratio_least", "ratio_most", "exact", "rounds", "quiet"),
    *("device", "instruction_set", "versions", "command"),
)
Step = Callable[[], None]


class BitDropout(nn.Module):
    """Dropout with probability 1/2 that draws 64 decisions at once, each a bit of one random number."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with half of its numbers zero and the others doubled."""
        if not self.training:
            return x
        words = torch.empty(-(-x.numel() // 63), dtype=torch.int64).random_()  # 63 bits: the sign is never drawn
        bits = (words[:, None] >> torch.arange(63)).bitwise_and_(1).flatten()[: x.numel()].view_as(x)
        return x * bits.to(x.dtype).mul_(2)


def _replaced(network: nn.Module, kind: type[nn.Module], new: Callable[[], nn.Module]) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is kind:
                setattr(module, name, new())


def _relu_first(network: nn.Module) -> None:
    for module in network.modules():
        if type(module) is PoolFirst:
            setattr(module, "__class__", nn.Sequential)  # noqa: B010 - mypy takes the class for that of the subclass


# name -> what is done to the network of the second copy
TRICKS: dict[str, Callable[[nn.Module], None]] = {
    "same": lambda network: None,  # no trick: how far from 1 a ratio is by chance
    "fused": lambda network: None,
    "foreach": lambda network: None,
    "relu first": _relu_first,  # what is left without ReLU behind the pooling
    "bit dropout": lambda network: _replaced(network, nn.Dropout, BitDropout),
    "no dropout": lambda network: _replaced(network, nn.Dropout, nn.Identity),  # the most that a faster one could give
    "average pooling": lambda network: _replaced(network, nn.MaxPool2d, lambda: nn.AvgPool2d(2)),  # likewise
    "two pieces": lambda network: None,  # half a batch twice, which stays in the cache
}


def _settings(work: Work) -> dict[str, Any]:
    options = work.options["model"]
    named = {name: options.get(name, default) for name, default in (("momentum", 0.0), ("nesterov", False))}
    return {**named, "weight_decay": options.get("weight_decay", 0.0)}


def step_of(work: Work, network: nn.Module, precision: str, trick: str) -> Step:
    """Return what trains a network for a step, on one batch of random images."""
    options, size = work.options["model"], work.image_size
    layout = torch.channels_last if options.get("channels_last", True) else torch.contiguous_format
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(work.batch_size, 1, size, size, generator=draw).to(memory_format=layout)
    labels = torch.randint(10, (work.batch_size,), generator=draw)
    fused = True if trick == "fused" else None
    optimizer = build_optimizer(options.get("optimizer", "sgd"), network, work.lr, fused=fused, **_settings(work))
    for group in optimizer.param_groups if trick == "foreach" else ():
        group["foreach"] = True
    half = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else contextlib.nullcontext()
    pieces = 2 if trick == "two pieces" else 1

    def step() -> None:
        torch.manual_seed(0)  # both copies drop the same
        optimizer.zero_grad()
        for x, y in zip(images.chunk(pieces), labels.chunk(pieces), strict=True):
            with half:
                loss = F.cross_entropy(network(x), y, label_smoothing=options.get("label_smoothing", 0.0)) / pieces
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def measure(work: Work, precision: str, trick: str, rounds: int) -> dict[str, str]:
    """Let two copies of a network take turns; return the columns that say how fast one is beside the other."""
    options = work.options["model"]
    layout = torch.channels_last if options.get("channels_last", True) else torch.contiguous_format
    plain = pool_first(work.network()).to(memory_format=layout).train()
    other = copy.deepcopy(plain)
    TRICKS[trick](other)
    steps = step_of(work, plain, precision, ""), step_of(work, other, precision, trick)
    watch, ratios, exact = OtherWork(), list[float](), ""
    for number in range(WARM_UP + rounds):
        seconds = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            begin = time.process_time()
            steps[which]()
            seconds[which] = time.process_time() - begin
        if number >= WARM_UP:
            ratios.append(seconds[0] / seconds[1])
        if number == WARM_UP - 1:
            pairs = zip(plain.parameters(), other.parameters(), strict=True)
            exact = "yes" if all(torch.equal(a, b) for a, b in pairs) else "no"
    low, _, high = statistics.quantiles(ratios, n=4)
    found = {"ratio": statistics.median(ratios), "ratio_least": low, "ratio_most": high}
    return {name: f"{value:.3f}" for name, value in found.items()} | {"exact": exact, "quiet": watch.quiet()}


def main(args: list[str] | None = None) -> None:
    """Measure each trick on each work, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=["quick", "vgg11-r4-96", "vgg11-r16-224"])
    parser.add_argument("--tricks", nargs="+", choices=list(TRICKS), default=list(TRICKS))
    parser.add_argument("--precisions", nargs="+", choices=("32-true", "bf16-mixed"), default=["32-true", "bf16-mixed"])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args(args)
    keep_freed_memory()
    table = Table(RESULTS / "beside.csv", COLUMNS, ("work", "precision", "trick"))
    for name in options.works:
        for precision in options.precisions:
            for trick in options.tricks:
                key = {"work": name, "precision": precision, "trick": trick}
                command = f"python -m benchmarks.beside --works {name} --precisions {precision} --tricks '{trick}'"
                row = key | measure(WORKS[name], precision, trick, options.rounds)
                place = {"device": f"{processor()}, {torch.get_num_threads()} threads", "versions": torch.__version__}
                table.put([row | place | {"rounds": str(options.rounds), "command": command,
                                          "instruction_set": instruction_set()}])  # fmt: skip
                print(f"{name:<14} {precision:<11} {trick:<16} {row['ratio']} ({row['ratio_least']} to "
                      f"{row['ratio_most']}), exact: {row['exact']}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
