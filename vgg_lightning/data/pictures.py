"""Pictures of the usual kinds as uint8 batches of the data set's form: 28 x 28, white on black."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from vgg_lightning.errors import UserError

NATIVE_SIZE = 28
Picture = Image.Image | str | Path
Pictures = Tensor | NDArray[np.uint8] | Picture | Sequence[Picture]


def to_uint8(images: Pictures) -> Tensor:
    """Return pictures as uint8 (N, 1, 28, 28).

    Arrays and tensors pass as they are; PIL pictures and files become grey, are set on a square, and are
    inverted if their border is light, since the data set shows light clothes on black.

    Args:
        images: uint8 (N, 28, 28), (N, 1, 28, 28) or (28, 28); or PIL pictures or paths, one or a list.

    Raises:
        UserError: if a file cannot be read or an array has another shape or type.
    """
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    if isinstance(images, Tensor):
        return _checked(images)
    if isinstance(images, Image.Image | str | Path):
        images = [images]
    if not images:
        raise UserError("there is no picture to classify: give at least one")
    return torch.stack([_read(image) for image in images])


def _checked(images: Tensor) -> Tensor:
    if images.dtype != torch.uint8:
        raise UserError(f"pictures are {images.dtype}: give uint8 values from 0 to 255")
    if images.ndim == 2:
        images = images[None]
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1:] != (1, NATIVE_SIZE, NATIVE_SIZE):
        raise UserError(f"pictures have shape {tuple(images.shape)}: give (N, {NATIVE_SIZE}, {NATIVE_SIZE})")
    return images


def _read(picture: Picture) -> Tensor:
    try:
        image = picture if isinstance(picture, Image.Image) else Image.open(picture)
        image = ImageOps.exif_transpose(image)
        background = Image.new("RGBA", image.size, "white")
        grey = Image.alpha_composite(background, image.convert("RGBA")).convert("L")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read the picture {picture}: {error}") from error
    pixels = np.asarray(grey)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) > 127:
        grey = ImageOps.invert(grey)
    square = ImageOps.pad(grey, (NATIVE_SIZE, NATIVE_SIZE), Image.Resampling.BILINEAR, color=0)
    return torch.from_numpy(np.array(square))[None]
