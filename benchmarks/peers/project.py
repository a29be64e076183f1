"""This project: `vgg-lightning fit` with all that it does, its bar included, and its data path and `predict`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from unittest import mock

from torch import Tensor

from benchmarks.peers.clock import Clock
from benchmarks.peers.work import Work


def train(work: Work, clock: Clock) -> None:
    """Run `vgg-lightning fit` as in a terminal."""
    from vgg_lightning.run.progress import Bar

    clock.watch_torch()
    with mock.patch("vgg_lightning.run.kit.progress_bar", partial(Bar, refresh_rate=10)):  # as on a terminal
        _fit(work)


def epoch(work: Work) -> None:
    """Run `vgg-lightning fit` for one epoch, with its validation, its checkpoints and its test."""
    _fit(work, "--trainer.max_epochs", "1")


def _fit(work: Work, *options: str) -> None:
    from vgg_lightning.cli.lightning import main

    with tempfile.TemporaryDirectory() as folder:
        main(["fit", *work.arguments, "--trainer.default_root_dir", folder, *options])


def batches(work: Work) -> Iterator[Tensor]:
    """Yield what the loader and the transforms of the data module make."""
    from vgg_lightning.data.datamodule import FashionMNISTDataModule

    data = FashionMNISTDataModule(image_size=work.image_size, batch_size=work.batch_size, val_size=0, normalize=False)
    data.images("train")
    loader = data.train_dataloader()
    while True:
        for batch in loader:
            yield data.on_after_batch_transfer(batch, 0)[0]
        loader.set_epoch(loader.epoch + 1)


def predict(work: Work) -> Callable[[], Tensor]:
    """Return `Classifier.predict` of all test images."""
    from vgg_lightning.classifier import Classifier

    model = dict(work.options["model"])
    classifier = Classifier(**model, image_size=work.image_size)
    images, _ = work.images(train=False)
    return lambda: classifier.predict(images).labels
