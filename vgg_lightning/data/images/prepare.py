"""Pictures of the usual kinds as uint8 batches of the data set's form: 28 x 28, grey, a light thing on black.

A picture of another size goes the way on which the makers of Fashion-MNIST made theirs from the photographs of a shop
(https://arxiv.org/abs/1708.07747, section 2): take the background's grey from the corners, cut the margin off, bring
the longer edge to 28 pixels, set the result in the middle of a square, and let the background be black.

Where theirs was always white, any plain background will do here: a pixel becomes the distance of its grey from that of
the background, so white, grey and black backgrounds all become black. Transparent pictures need no guess: they are set
on white, as in the shop; or on black, if they would vanish on white.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.images.decode import (
    LARGEST,
    UnreadablePictureError,
    check_size,
    eight_bits,
    open_picture,
    reading,
)

if TYPE_CHECKING:  # torch is loaded by what makes tensors: to look at a folder of images takes none
    from torch import Tensor

NATIVE_SIZE = 28
LONGEST = 4 * NATIVE_SIZE  # pixels of the longer edge beyond which a picture is shrunk first, which averages noise
FAINT = 13  # grey levels, 5 % of all, within which a margin counts as background
SHADOW = 80  # grey levels by which the corners of one background may differ
ALMOST_WHITE = 230  # mean grey level from which something would vanish on white
TRANSPARENT = 0.02  # share of the pixels from which transparency says what is background
Picture = Image.Image | str | Path | bytes
Pictures: TypeAlias = "Tensor | NDArray[np.uint8] | Picture | Sequence[Picture]"
Grey = NDArray[np.uint8]
Levels = NDArray[np.float64]


class EmptyPictureError(UnreadablePictureError):
    """An image shows nothing: no pixel of it differs from its background.

    Attributes:
        pixels: what it becomes, uint8 (28, 28).
    """

    def __init__(self, picture: object, pixels: Grey) -> None:
        super().__init__(picture, "it is empty: nothing in it differs from its background")
        self.pixels = pixels


def to_uint8(images: Pictures) -> Tensor:
    """Return pictures as uint8 (N, 1, 28, 28).

    Arrays and tensors pass as they are. PIL pictures and files become grey and take the data set's form, unless they
    have 28 x 28 pixels already: these are inverted if they are dark on white, and else pass as they are.

    Args:
        images: uint8 (N, 28, 28), (N, 1, 28, 28) or (28, 28); or PIL pictures, paths or the bytes of
            files, one or a list.

    Raises:
        UserError: if a file cannot be read, a file or PIL image is empty, or an array has another shape or type.
    """
    import torch

    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    if isinstance(images, torch.Tensor):
        return _checked(images)
    if isinstance(images, Image.Image | str | Path | bytes):
        images = [images]
    if not images:
        raise UserError("there is no picture to classify: give at least one")
    return torch.stack([read_picture(image) for image in images])


def read_picture(picture: Picture) -> Tensor:
    """Return one picture as uint8 (1, 28, 28).

    Raises:
        UnreadablePictureError: a UserError with the reason.
    """
    import torch

    return torch.from_numpy(pixels_of(picture))[None]


class Look(NamedTuple):
    """What an image is, and what it becomes.

    Attributes:
        pixels: what it becomes, uint8 (28, 28).
        shows: whether there is anything but background on it.
        size: its width and height.
        colour: whether it has colours, which are not among its pixels.
    """

    pixels: Grey
    shows: bool
    size: tuple[int, int]
    colour: bool


def look_at(picture: Picture) -> Look:
    """Return what an image is and becomes. Raises UnreadablePictureError, a UserError with the reason."""
    with reading(picture):
        image = picture if isinstance(picture, Image.Image) else open_picture(picture)
        check_size(image)
        grey, background, colour = _grey(ImageOps.exif_transpose(image))
        pixels, shows = _in_form(grey, background)
        return Look(pixels.copy(), shows, image.size, colour)


def pixels_of(picture: Picture) -> Grey:
    """Return one picture as uint8 (28, 28).

    Raises:
        UnreadablePictureError: a UserError with the reason.
        EmptyPictureError: one of them; the picture shows nothing but a background.
    """
    look = look_at(picture)
    if not look.shows:
        raise EmptyPictureError(picture, look.pixels)
    return look.pixels


def _checked(images: Tensor) -> Tensor:
    import torch

    if images.dtype != torch.uint8:
        raise UserError(f"pictures are {images.dtype}: give uint8 values from 0 to 255")
    if images.ndim == 2:
        images = images[None]
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1:] != (1, NATIVE_SIZE, NATIVE_SIZE):
        raise UserError(f"pictures have shape {tuple(images.shape)}: give (N, {NATIVE_SIZE}, {NATIVE_SIZE})")
    return images


def _grey(image: Image.Image) -> tuple[Image.Image, int | None, bool]:
    """Return a picture as grey levels of 8 bits, the background's level if transparency tells, and if it has colour."""
    if image.mode[0] in "IF":
        return _shrunk(Image.fromarray(eight_bits(np.asarray(image)))), None, False
    if not image.has_transparency_data:
        image = _shrunk(image if image.mode == "L" else image.convert("RGB"))
        return image.convert("L"), None, _has_colour(image)
    straight = image.convert("LA") if image.mode == "La" else image  # from which Pillow goes no other way
    image = _shrunk(straight.convert("RGBA"))
    colour = _has_colour(image)
    alpha = np.asarray(image.getchannel("A"), dtype=np.float64)
    if (alpha < LARGEST // 2).mean() < TRANSPARENT:
        return _on(image, LARGEST), None, colour
    light = np.asarray(image.convert("L"), dtype=np.float64)
    background = 0 if (light * alpha).sum() > ALMOST_WHITE * alpha.sum() else LARGEST
    return _on(image, background), background, colour


def _has_colour(image: Image.Image) -> bool:
    """Return whether red, green and blue differ anywhere by more than what a file of a grey image loses."""
    return image.mode != "L" and bool((np.ptp(np.asarray(image)[..., :3], axis=-1) > FAINT).any())


def _on(image: Image.Image, level: int) -> Image.Image:
    background = Image.new("RGBA", image.size, (level, level, level, LARGEST))
    return Image.alpha_composite(background, image).convert("L")


def _shrunk(image: Image.Image) -> Image.Image:
    """Return a picture whose longer edge has at most about `LONGEST` pixels, each the mean of those it stands for."""
    factor = max(image.size) // LONGEST
    return image.reduce(factor) if factor > 1 else image


def _in_form(image: Image.Image, background: int | None) -> tuple[Grey, bool]:
    """Return a picture in the data set's form, and whether there is anything on it."""
    grey: Grey = np.asarray(image)
    levels = _corners(grey) if background is None else np.full((2, 2), background, dtype=np.float64)
    if image.size == (NATIVE_SIZE, NATIVE_SIZE):
        return LARGEST - grey if np.median(levels) > LARGEST // 2 else grey, bool(np.ptp(grey) > FAINT)
    distance = _from_background(grey, levels)
    return _square(_trimmed(distance)), bool((distance > FAINT).any())


def _corners(grey: Grey) -> Levels:
    """Return the grey levels of the background in the four corners (2, 2), each 1/20 of the shorter edge wide.

    Corners that differ by no more than a shadow makes are taken as they are, else the thing covers some of them.
    """
    n = max(1, min(grey.shape) // 20)
    levels = np.array([[np.median(rows[:, :n]), np.median(rows[:, -n:])] for rows in (grey[:n], grey[-n:])])
    return levels if np.ptp(levels) <= SHADOW else np.full((2, 2), np.median(levels))


def _from_background(grey: Grey, levels: Levels) -> Grey:
    """Return how far each pixel is from the background, scaled so that the farthest there can be is white.

    Between the corners the background's level is interpolated, which takes most of a shadow away.
    """
    down, right = (np.linspace(0, 1, length) for length in grey.shape)
    background = np.outer(1 - down, 1 - right) * levels[0, 0] + np.outer(1 - down, right) * levels[0, 1]
    background += np.outer(down, 1 - right) * levels[1, 0] + np.outer(down, right) * levels[1, 1]
    distance = np.abs(grey - background)
    scaled: Levels = np.rint(distance * (LARGEST / np.maximum(background, LARGEST - background)))
    return scaled.astype(np.uint8)


def _trimmed(grey: Grey) -> Grey:
    """Return a picture without its black margin; an empty one as it is."""
    rows, columns = (np.flatnonzero((grey > FAINT).any(axis=axis)) for axis in (1, 0))
    return grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else grey


def _square(grey: Grey) -> Grey:
    """Return a picture with its longer edge brought to 28 pixels, in the middle of a black square."""
    height, width = grey.shape
    scale = NATIVE_SIZE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.zeros((NATIVE_SIZE, NATIVE_SIZE), dtype=np.uint8)
    top, left = (NATIVE_SIZE - size[1]) // 2, (NATIVE_SIZE - size[0]) // 2
    small = Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)
    square[top : top + size[1], left : left + size[0]] = np.asarray(small)
    return square
