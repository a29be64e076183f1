"""Keras 3 on torch: `Model.fit` on the arrays, with rescaling and resizing as layers of the model, as Keras advises."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from benchmarks.peers.clock import Clock
from benchmarks.peers.work import Work
from vgg_lightning.networks.vgg import VGG_BLOCKS

os.environ["KERAS_BACKEND"] = "torch"


def _model(work: Work) -> Any:
    import keras
    from keras import layers

    options = work.options["model"]
    chain: list[Any] = [keras.Input((28, 28, 1)), layers.Rescaling(1 / 255)]
    if work.image_size != 28:
        chain.append(layers.Resizing(work.image_size, work.image_size))
    for num_convs, channels in VGG_BLOCKS[options["network"]]:
        for _ in range(num_convs):
            chain.append(layers.Conv2D(channels // options.get("ratio", 1), 3, padding="same"))
            chain += [layers.BatchNormalization()] if options.get("batch_norm") else []
            chain.append(layers.Activation("relu"))
        chain.append(layers.MaxPooling2D(2))
    if options.get("head") == "gap":
        chain.append(layers.GlobalAveragePooling2D())
    else:
        chain.append(layers.Flatten())
        for _ in range(2):
            chain += [layers.Dense(options.get("hidden_units", 4096), activation="relu"), layers.Dropout(0.5)]
    model = keras.Sequential([*chain, layers.Dense(10)])
    adam = options.get("optimizer", "sgd") == "adam"
    sgd = keras.optimizers.SGD(work.lr, options.get("momentum", 0.0), options.get("nesterov", False))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(work.lr) if adam else sgd, loss=loss, metrics=["accuracy"])
    return model


def _arrays(work: Work, train: bool) -> tuple[Any, Any]:
    images, labels = work.images(train)
    return images[:, 0, :, :, None].numpy(), labels.numpy()


def train(work: Work, clock: Clock) -> None:
    """Run `Model.fit`."""
    import keras

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            clock.start()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            clock.stop()

    model = _model(work)
    model.fit(*_arrays(work, train=True), batch_size=work.batch_size, epochs=1, callbacks=[Watch()])


def predict(work: Work) -> Callable[[], Any]:
    """Return `Model.predict` of all test images."""
    model, (images, _) = _model(work), _arrays(work, train=False)
    return lambda: model.predict(images).argmax(axis=1)
