"""Data sets of a class of the user's own: one with the interface of torchvision's, `Class(root, train)[i]`.

Items are pairs (image, label). All of them are read once, and held in the form of the data set: uint8, 28 x 28.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.progress import items_bar
from vgg_lightning.data.images.decode import UnreadablePictureError, look_at
from vgg_lightning.data.images.prepare_image import NATIVE_SIZE
from vgg_lightning.data.sources.catalogue import Dataset, Split

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_items(known: Dataset, root: Path, split: Split) -> Arrays:
    """Return the images of a split, uint8 (N, 28, 28), and their labels, int64 (N,).

    Args:
        known: the row of the data set, which has a class.
        root: what the class takes for its folder.
        split: "train" or "test".

    Raises:
        UserError: if the class raises an error, or gives something else than images and labels.
    """
    assert known.kind is not None
    try:
        images, labels = _read(known.kind, root, split)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # of the user's own code
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"{known.title}, {split}: {what}") from error
    if labels.min() < 0 or labels.max() >= len(known.classes):
        found = f"labels from {labels.min()} to {labels.max()}"
        raise UserError(f"{known.title} has {found} in {split}, and names for 0 to {len(known.classes) - 1}")
    return images, labels


def checksum(arrays: Arrays) -> str:
    """Return a SHA-256 over images and labels."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@functools.lru_cache(maxsize=2)  # both splits: a launch looks at them, and then loads them
def _read(kind: Callable[..., Any], root: Path, split: Split) -> Arrays:
    items = kind(root=str(root), train=split == "train")
    number = len(items)
    if not number:
        raise UserError(f"{kind.__name__} has no item in {split}")
    images, labels = np.empty((number, NATIVE_SIZE, NATIVE_SIZE), np.uint8), np.empty(number, np.int64)
    with items_bar(f"reading the {split} images", number) as bar:
        for i in range(number):
            try:
                image, label = items[i]
                images[i], labels[i] = _pixels(image), int(label)
            except (TypeError, ValueError) as error:
                reason = error.reason if isinstance(error, UnreadablePictureError) else str(error)
                raise UserError(
                    f"item {i} of {kind.__name__} in {split} is not a pair (image, label): {reason}"
                ) from error
            bar.update()
    return images, labels


def _pixels(image: Any) -> NDArray[np.uint8]:
    """Return an image as uint8 (28, 28): an array or tensor of that size as it is, others as `predict` takes them."""
    if isinstance(image, Image.Image):
        return look_at(image).pixels
    array = np.asarray(image)
    if array.dtype != np.uint8:
        raise ValueError(f"the image is of the type {array.dtype}; give a PIL image, or uint8 from 0 to 255")
    if array.ndim == 3 and array.shape[0] in (1, 3):  # channels first, as tensors have them
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"the image has the shape {array.shape}; give (height, width), grey, or 3 colours")
    if array.shape == (NATIVE_SIZE, NATIVE_SIZE):
        return array
    return look_at(Image.fromarray(np.ascontiguousarray(array))).pixels
