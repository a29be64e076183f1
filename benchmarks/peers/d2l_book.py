"""The book's own `train_ch6` and `load_data_fashion_mnist` out of its package d2l: SGD, 4 worker processes.

Its loop knows plain SGD alone, so that is what it runs where a recipe has momentum or Adam: less work, not more.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.clock import Clock
from benchmarks.peers.work import DATA_DIR, Work


def _load(work: Work) -> tuple[Any, Any, Any]:
    """Return the package and its two loaders, which read ../data."""
    from d2l import torch as d2l

    folder = Path(tempfile.mkdtemp(prefix="bench-d2l-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "data").symlink_to(DATA_DIR)
    (folder / "here").mkdir()
    os.chdir(folder / "here")
    resize = None if work.image_size == 28 else work.image_size
    return (d2l, *d2l.load_data_fashion_mnist(work.batch_size, resize=resize))


def train(work: Work, clock: Clock) -> None:
    """Run `d2l.train_ch6`."""
    d2l, train_iter, test_iter = _load(work)
    clock.watch_torch()
    d2l.train_ch6(work.network(), train_iter, test_iter, 10, work.lr, torch.device("cpu"))


def batches(work: Work) -> Iterator[Tensor]:
    """Yield what the book's loader makes."""
    _, train_iter, _ = _load(work)
    while True:
        for x, _ in train_iter:
            yield x


def predict(work: Work) -> Callable[[], Any]:
    """Return `d2l.evaluate_accuracy_gpu` of all test images."""
    d2l, _, test_iter = _load(work)
    network = work.network()
    return lambda: d2l.evaluate_accuracy_gpu(network, test_iter, torch.device("cpu"))
