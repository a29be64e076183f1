"""PyTorch's own tutorial: TensorDataset, DataLoader and a loop. Its loader has no worker processes, as in the tutorial.

Images larger than 28 would not fit in memory as floats; they are enlarged a batch at a time, which suits this peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from benchmarks.peers.clock import Clock
from benchmarks.peers.work import Work


def _data(work: Work, train: bool) -> TensorDataset:
    images, labels = work.images(train)
    return TensorDataset(images.float() / 255, labels)


def _resized(x: Tensor, size: int) -> Tensor:
    if x.shape[-1] == size:
        return x
    return nn.functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def optimizer_of(work: Work, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of the recipe."""
    options = work.options["model"]
    if options.get("optimizer", "sgd") == "adam":
        return torch.optim.Adam(model.parameters(), lr=work.lr)
    names = ("momentum", "nesterov", "weight_decay")
    return torch.optim.SGD(model.parameters(), lr=work.lr, **{k: options[k] for k in names if k in options})


def train(work: Work, clock: Clock) -> None:
    """Run the tutorial's loop."""
    clock.watch_torch()
    loader = DataLoader(_data(work, train=True), batch_size=work.batch_size, shuffle=True)
    model, loss_fn = work.network(), nn.CrossEntropyLoss()
    optimizer = optimizer_of(work, model)
    model.train()
    while True:
        for x, y in loader:
            loss_fn(model(_resized(x, work.image_size)), y).backward()
            optimizer.step()
            optimizer.zero_grad()


def batches(work: Work) -> Iterator[Tensor]:
    """Yield what the DataLoader makes, enlarged."""
    loader = DataLoader(_data(work, train=True), batch_size=work.batch_size, shuffle=True)
    while True:
        for x, _ in loader:
            yield _resized(x, work.image_size)


def predict(work: Work) -> Callable[[], Any]:
    """Return the tutorial's test loop, with its batch of 64."""
    model = work.network()
    loader = DataLoader(_data(work, train=False), batch_size=64)
    return lambda: _accuracy(model, loader, work.image_size)


@torch.no_grad()
def _accuracy(model: nn.Module, loader: DataLoader[Any], size: int) -> float:
    model.eval()
    right = sum((model(_resized(x, size)).argmax(1) == y).type(torch.float).sum().item() for x, y in loader)
    return float(right / len(loader.dataset))  # type: ignore[arg-type]


def epoch(work: Work) -> None:
    """Train one epoch by the recipe of `quick`, then validate and test."""
    data, options = _data(work, train=True), work.options["model"]
    order = torch.randperm(60_000).tolist()
    train_loader = DataLoader(Subset(data, order[5000:]), batch_size=work.batch_size, shuffle=True)
    held_out = DataLoader(Subset(data, order[:5000]), batch_size=64)
    model, loss_fn = work.network(), nn.CrossEntropyLoss(label_smoothing=options["label_smoothing"])
    optimizer = optimizer_of(work, model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, work.lr, total_steps=len(train_loader))
    model.train()
    for x, y in train_loader:
        flipped = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)
        loss_fn(model(_resized(flipped, work.image_size)), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    test = DataLoader(_data(work, train=False), batch_size=64)
    print(_accuracy(model, held_out, work.image_size), _accuracy(model, test, work.image_size))
