"""Data modules and loaders from elsewhere: whether what they give fits the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.data.batches import Batch
from vgg_lightning.data.transforms import Preprocess


@runtime_checkable
class ImageData(Protocol):
    """A data module whose preprocessing and class names a Classifier takes over, as `FashionMNISTDataModule`.

    Attributes:
        preprocess: maps uint8 images to the input of the network.
        class_names: names of the labels, from 0.
    """

    preprocess: Preprocess
    class_names: Sequence[str]


def check_agreement(data: ImageData, options: Mapping[str, Any]) -> None:
    """Raise UserError if the images or the classes of `data` are not those of a network with these options."""
    num_classes = options["num_classes"]
    if len(data.class_names) != num_classes:
        raise UserError(
            f"the data has {len(data.class_names)} classes, the model {num_classes}: "
            f"leave {option('model.num_classes')} out, or give {len(data.class_names)}"
        )
    for name in ("image_size", "in_channels"):
        has, asked = getattr(data.preprocess, name), options[name]
        if has != asked:
            raise UserError(f"the data has {name} {has}, the model {asked}: give both the same")


def check_input(batch: Batch, options: Mapping[str, Any], labelled: bool) -> Batch:
    """Return a batch of another loader, with whole numbers as labels, if it fits a network with these options.

    Args:
        batch: preprocessed images and their labels.
        options: of the model.
        labelled: whether the labels matter.

    Raises:
        UserError: if it does not fit.
    """
    x, y = batch.images, batch.labels
    channels, size, classes = (options[name] for name in ("in_channels", "image_size", "num_classes"))
    if x.shape[1:] != (channels, size, size):
        takes = f"(N, {channels}, {size}, {size})"
        raise UserError(f"the loader gives images of the shape {tuple(x.shape)}, the model takes {takes}")
    if not labelled:
        return batch
    if len(y) != len(x) or not (y.ndim == 1 or y.shape[1:] == (classes,)) or y.is_floating_point() != (y.ndim == 2):
        raise UserError(
            f"the loader gives {len(x)} images and labels of the shape {tuple(y.shape)} and type {y.dtype}: "
            f"give whole numbers (N,), or shares of the classes (N, {classes})"
        )
    if y.ndim == 2:
        return batch
    low, high = map(int, y.aminmax()) if y.is_cpu and len(y) else (0, 0)  # a GPU would have to be waited for
    if high == -1:
        raise UserError("the loader gives images without labels: give pairs (images, labels)")
    if low < 0 or high >= classes:
        raise UserError(f"the loader gives labels from {low} to {high}, the model takes 0 to {classes - 1}")
    return batch._replace(labels=y.long())


def images_method(data: Any) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """Return the method `images` of a data module, or `pictures` (its former name); None if it has neither."""
    methods = (getattr(data, name, None) for name in ("images", "pictures"))
    return next((method for method in methods if callable(method)), None)
