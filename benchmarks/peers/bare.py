"""A bare loop over this project's own parts: what remains if one takes Lightning away. No logs, metrics or guards."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers.clock import Clock
from benchmarks.peers.work import Work
from vgg_lightning.base.machine import keep_freed_memory
from vgg_lightning.data.augment import Place
from vgg_lightning.data.batches import BatchLoader
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.training.optimizers import build_optimizer
from vgg_lightning.training.schedules import build_schedule

# What might make a step faster, each tried alone. Those with settings of the environment need a new process.
TRICKS: dict[str, dict[str, str]] = {
    "contiguous": {},  # what is left without channels_last
    "flush_denormal": {},
    "inplace_relu": {},
    "compile": {},
    "huge_pages": {"THP_MEM_ALLOC_ENABLE": "1"},
    "give_back": {},  # what is left without keep_freed_memory
}


def _layout(work: Work, trick: str) -> torch.memory_format:
    plain = trick == "contiguous" or not work.options["model"].get("channels_last", True)
    return torch.contiguous_format if plain else torch.channels_last


def _network(work: Work, trick: str, layout: torch.memory_format) -> nn.Module:
    network = work.network().to(memory_format=layout).train()
    for module in network.modules():
        if isinstance(module, nn.ReLU) and trick == "inplace_relu":
            module.inplace = True
    if trick == "compile":
        network.compile(dynamic=False)
    if trick == "flush_denormal":
        torch.set_flush_denormal(True)
    return network


def train(work: Work, clock: Clock, trick: str = "") -> None:
    """Train with the same data, network, optimizer and schedule as `vgg-lightning fit`, and one of `TRICKS`."""
    clock.watch_torch()
    if trick != "give_back":
        keep_freed_memory()
    layout = _layout(work, trick)
    options = work.options["model"]
    data = FashionMNISTDataModule(**work.options["data"])
    images, labels = data.images("train")
    loader = BatchLoader(images, labels, work.batch_size, shuffle=True)
    network = _network(work, trick, layout)
    decay, momentum = options.get("weight_decay", 0.0), options.get("momentum", 0.0)
    kind, nesterov = options.get("optimizer", "sgd"), options.get("nesterov", False)
    optimizer = build_optimizer(kind, network, work.lr, momentum, nesterov, decay)
    schedule = build_schedule(options.get("schedule", "constant"), optimizer, len(loader), 10 * len(loader))
    smoothing, half = options.get("label_smoothing", 0.0), work.precision == "bf16-mixed"
    while True:
        for pictures, y, indices, _, epoch, position in loader:
            place = Place(0, epoch, position, 0, indices, len(labels))
            x = data.preprocess(data.augment(pictures, place))
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = F.cross_entropy(network(x.to(memory_format=layout)), y, label_smoothing=smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        loader.set_epoch(loader.epoch + 1)
