"""fastai's Learner over DataLoaders of torchvision's data set, with one worker a core, as fastai itself takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from benchmarks.peers.clock import Clock
from benchmarks.peers.work import DATA_DIR, Work


def _loaders(work: Work) -> Any:
    from fastai.data.core import DataLoaders

    steps: list[Any] = [] if work.image_size == 28 else [transforms.Resize(work.image_size)]
    transform = transforms.Compose([*steps, transforms.ToTensor()])
    sets = [FashionMNIST(str(DATA_DIR), train=train, transform=transform) for train in (True, False)]
    return DataLoaders.from_dsets(*sets, bs=work.batch_size, device="cpu")


def _learner(work: Work, callbacks: Any = None) -> Any:
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from fastai.metrics import accuracy
    from fastai.optimizer import SGD, Adam

    options = work.options["model"]
    kinds = {"adam": Adam, "sgd": SGD}
    loss, kind = CrossEntropyLossFlat(), kinds[options.get("optimizer", "sgd")]
    return Learner(
        *(_loaders(work), work.network()),
        **{"loss_func": loss, "opt_func": kind, "metrics": accuracy, "cbs": callbacks},
    )


def train(work: Work, clock: Clock) -> None:
    """Run `Learner.fit`."""
    from fastai.callback.core import Callback

    class Watch(Callback):  # type: ignore[misc]
        def before_batch(self) -> None:
            clock.start()

        def after_batch(self) -> None:
            clock.stop()

    _learner(work, [Watch()]).fit(1, work.lr)


def batches(work: Work) -> Iterator[Tensor]:
    """Yield what the DataLoader makes."""
    loaders = _loaders(work)
    while True:
        for x, _ in loaders.train:
            yield x


def predict(work: Work) -> Callable[[], Any]:
    """Return `Learner.get_preds` of all test images."""
    learner = _learner(work)
    return lambda: learner.get_preds()[0].argmax(dim=1)
