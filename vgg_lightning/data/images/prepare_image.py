"""From an image file to the 28 x 28 grey levels, light on black, that the network was trained on.

This file needs numpy and Pillow alone. `vgg-lightning export --format onnx` puts a copy of it beside the model, so that
a program without torch and without vgg_lightning prepares images exactly as `vgg-lightning predict` does:

    import onnxruntime
    from prepare_image import prepare

    session = onnxruntime.InferenceSession("vgg.onnx")
    logits, probabilities = session.run(None, {"images": prepare("boot.png")})

An image of another size than 28 x 28 goes the way on which the makers of Fashion-MNIST made theirs from the photographs
of a shop (https://arxiv.org/abs/1708.07747, section 2): take the background's grey from the corners, cut the margin
off, bring the longer edge to 28 pixels, set the result in the middle of a square, and let the background be black.

Where theirs was always white, any plain background will do here: a pixel becomes the distance of its grey from that of
the background, so white, grey and black backgrounds all become black. Light that falls off across the page is taken for
background too, and the contrast of a pale thing is stretched. Transparent images need no guess: they are set on white,
as in the shop; or on black, if they would vanish on white.
"""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

__all__ = ["EmptyImageError", "ImageNote", "prepare"]

NATIVE_SIZE = 28  # height and width, in pixels
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MOST_PIXELS = 64_000_000  # those of a large camera; while one is decoded it takes 4 bytes a pixel, twice
LONGEST = 4 * NATIVE_SIZE  # pixels of the longer edge beyond which an image is shrunk first, which averages noise
LARGEST = 255  # grey level
FAINT = 13  # grey levels, 5 % of all, within which a margin counts as background
SHADOW = 80  # grey levels by which the corners of one background may differ
EVEN = 0.7  # share of the edge's pixels which must lie between the corners if light alone lets these differ by more
DIM = 0.35  # the least share of the light of the lightest corner that light alone leaves of the darkest
PALE = 100  # grey levels; a thing that differs less from its background is stretched
STRETCHED = 180  # to this
ALMOST_WHITE = 230  # mean grey level from which something would vanish on white
TRANSPARENT = 0.02  # share of the pixels from which transparency says what is background
# Of pixels of 16 bits in these forms Pillow keeps the upper 8. Each has a form under which it keeps the lower ones, in
# these channels.
LOWER_BITS: dict[str, tuple[str, slice]] = {
    **{f"{mode};16B": (f"{mode};16L", slice(3)) for mode in ("RGB", "RGBA", "RGBX")},
    **{f"{mode};16L": (f"{mode};16B", slice(3)) for mode in ("RGB", "RGBA", "RGBX")},
    "LA;16B": ("RGBA", slice(1, 2)),
}
RANGES = (1, 255, 1023, 4095, 16383, 65535)  # white in images of 1, 8, 10, 12, 14 and 16 bits
FEW_UPPER = 64  # upper bytes below this are those of 14 bits or fewer in 16
Grey = NDArray[np.uint8]
Levels = NDArray[np.float64]


class EmptyImageError(ValueError):
    """An image shows nothing: no pixel of it differs from its background.

    Attributes:
        pixels: what it becomes, uint8 (28, 28).
    """

    def __init__(self, pixels: Grey) -> None:
        super().__init__("it is empty: nothing in it differs from its background")
        self.pixels = pixels


class ImageNote(UserWarning):
    """What had to be guessed of an image."""


def prepare(image: str | Path | bytes | Image.Image) -> Grey:
    """Return an image as uint8 (1, 1, 28, 28), light on black. Several are joined by `numpy.concatenate`.

    Args:
        image: a file, its content, or an image that Pillow has opened. One of 28 x 28 pixels only has its background
            turned to black: it is taken for one of the data set.

    Raises:
        EmptyImageError: a ValueError; the image shows nothing but a background.
        ValueError: it is not an image in a supported format, is damaged or too large.
        OSError: the file cannot be read, or breaks off.
    """
    given = Path(image).expanduser().read_bytes() if isinstance(image, str | Path) else image
    try:
        return pixels_of(given)[None, None]
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:  # whatever a broken file makes the decoders do wrong
        raise ValueError(str(error) or type(error).__name__) from error


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


def look_at(image: bytes | Image.Image) -> Look:
    """Return what an image is and becomes. Raises as `prepare`, and for damaged files whatever Pillow raises."""
    opened = image if isinstance(image, Image.Image) else open_image(image)
    check_size(opened)
    grey, background, colour = _grey(ImageOps.exif_transpose(opened))
    pixels, shows = _in_form(grey, background)
    return Look(pixels.copy(), shows, opened.size, colour)


def pixels_of(image: bytes | Image.Image) -> Grey:
    """Return an image as uint8 (28, 28). Raises as `look_at`, and EmptyImageError."""
    look = look_at(image)
    if not look.shows:
        raise EmptyImageError(look.pixels)
    return look.pixels


def open_image(content: bytes) -> Image.Image:
    """Return the image in the bytes of a file: its size checked, not yet decoded if it has 8 bits.

    If the file holds several, it is the first.

    Raises:
        ValueError: It is of no format that is read here, or too large; damaged files raise whatever Pillow does.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        known = "PNG, JPEG, WebP, GIF, BMP, TIFF"
        raise ValueError(f"it is not an image in a supported format ({known}), or damaged") from error
    check_size(image)
    if image.format == "TIFF" and image.info.get("compression") != "raw":  # libtiff prints, and is often attacked
        raise ValueError("it is a compressed TIFF, which is not decoded here: save it as PNG")
    _keep_lower_bits(image, content)
    return image


def check_size(image: Image.Image) -> None:
    """Raise ValueError if an image has more pixels than are decoded here, or none."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"it has {width:,} x {height:,} pixels; at most {MOST_PIXELS // 10**6} million are decoded")
    if not width * height:
        raise ValueError("it has no pixels")


def _keep_lower_bits(image: ImageFile.ImageFile, content: bytes) -> None:
    """Scale colours that use few of their 16 bits, as those of 12 do, before Pillow keeps the upper 8."""
    forms = {_form(tile) for tile in image.tile}
    if len(forms) != 1 or (form := forms.pop()) not in LOWER_BITS:
        return
    upper: NDArray[np.uint8] = np.asarray(image)[..., :3]
    if upper.max() >= FEW_UPPER:
        return
    lower_form, channels = LOWER_BITS[form]
    other = Image.open(io.BytesIO(content), formats=FORMATS)
    other.tile = [_with_form(tile, lower_form) for tile in other.tile]
    values = upper.astype(np.uint16) << 8 | np.asarray(other)[..., channels]
    bands = [Image.fromarray(band) for band in np.moveaxis(eight_bits(values), 2, 0)]
    image.paste(Image.merge(image.mode, [*bands, *image.split()[3:]]))


def _form(tile: Any) -> str:
    """Return the name that Pillow has for the form of the pixels in a part of a file."""
    return str(tile.args if isinstance(tile.args, str) else tile.args[0])


def _with_form(tile: Any, form: str) -> Any:
    return tile._replace(args=form if isinstance(tile.args, str) else (form, *tile.args[1:]))


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values of more than 8 bits, or of another type, as grey levels of 8.

    White is what the number of bits makes it, and that number is told by the largest value, since no format tells it:
    images of 10 or 12 bits are kept in files of 16. An `ImageNote` says so where it is a guess.

    - Whole numbers: 8 bits that were spread over 16 (multiples of 257) have their white at 65,535; else it is the
      smallest of 1, 255, 1,023, 4,095, 16,383 and 65,535 that no value exceeds.
    - Fractions: 0 to 1, if that is where they lie.
    - Anything else, as negative numbers: the smallest value becomes black, the largest white.

    Raises:
        ValueError: A value is no finite number.
    """
    numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError("it contains NaN or Inf")
    low, high = _range_of(values, float(numbers.min()), float(numbers.max()))
    levels: NDArray[np.uint8] = np.rint((numbers - low) * (LARGEST / max(high - low, 1e-30))).astype(np.uint8)
    return levels


def _range_of(values: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """Return the values of black and white."""
    whole = values.dtype.kind in "ui" or bool((values == np.rint(values)).all())
    if whole and low >= 0 and high <= RANGES[-1]:
        if high > LARGEST and not (values % 257).any():
            return 0.0, float(RANGES[-1])
        white = next(limit for limit in RANGES if high <= limit)
        if white < RANGES[-1]:
            bits = f"{round(math.log2(white + 1))} (white is {white:,})"
            warnings.warn(
                f"an image file of 16 or more bits a pixel, all values up to {white:,}, is read as one of {bits}",
                ImageNote,
                stacklevel=2,
            )
        return 0.0, float(white)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    text = "in an image file of numbers without a known range, the smallest becomes black, the largest white"
    warnings.warn(text, ImageNote, stacklevel=2)
    return low, high


def _grey(image: Image.Image) -> tuple[Image.Image, int | None, bool]:
    """Return an image as grey levels of 8 bits, the background's level if transparency tells, and if it has colour."""
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
    """Return an image whose longer edge has at most about `LONGEST` pixels, each the mean of those it stands for."""
    factor = max(image.size) // LONGEST
    return image.reduce(factor) if factor > 1 else image


def _in_form(image: Image.Image, background: int | None) -> tuple[Grey, bool]:
    """Return an image in the data set's form, and whether there is anything on it."""
    grey: Grey = np.asarray(image)
    levels = _corners(grey) if background is None else np.full((2, 2), background, dtype=np.float64)
    if image.size == (NATIVE_SIZE, NATIVE_SIZE):
        return LARGEST - grey if np.median(levels) > LARGEST // 2 else grey, bool(np.ptp(grey) > FAINT)
    distance = _from_background(grey, levels)
    if not (distance > FAINT).any():
        return _square(distance), False
    return _square(_stretched(_trimmed(distance))), True


def _corners(grey: Grey) -> Levels:
    """Return the grey levels of the background in the four corners (2, 2), each 1/20 of the shorter edge wide.

    Corners that differ by no more than a shadow makes are taken as they are, and so are others if most of the edge lies
    between them, as where light falls off; else the thing covers some of them.
    """
    n = max(1, min(grey.shape) // 20)
    levels = np.array([[np.median(rows[:, :n]), np.median(rows[:, -n:])] for rows in (grey[:n], grey[-n:])])
    return levels if np.ptp(levels) <= SHADOW or _is_even(grey, levels) else np.full((2, 2), np.median(levels))


def _is_even(grey: Grey, levels: Levels) -> bool:
    """Return whether light alone can have made the corners differ: most of the edge lies between their levels.

    Of a small image all of the edge is corners.
    """
    off = np.abs(grey - _between(levels, grey.shape))
    edge = np.concatenate([off[0], off[-1], off[:, 0], off[:, -1]])
    dim = levels.min() < DIM * levels.max()
    return min(grey.shape) > NATIVE_SIZE and not dim and bool((edge <= FAINT).mean() >= EVEN)


def _between(levels: Levels, shape: tuple[int, ...]) -> Levels:
    """Return an image of that shape whose levels are interpolated between the four corners (2, 2)."""
    down, right = (np.linspace(0, 1, length) for length in shape)
    page: Levels = np.outer(1 - down, 1 - right) * levels[0, 0] + np.outer(1 - down, right) * levels[0, 1]
    page += np.outer(down, 1 - right) * levels[1, 0] + np.outer(down, right) * levels[1, 1]
    return page


def _from_background(grey: Grey, levels: Levels) -> Grey:
    """Return how far each pixel is from the background, scaled so that the farthest there can be is white.

    Between the corners the background's level is interpolated, which takes most of a shadow away.
    """
    background = _between(levels, grey.shape)
    distance = np.abs(grey - background)
    scaled: Levels = np.rint(distance * (LARGEST / np.maximum(background, LARGEST - background)))
    return scaled.astype(np.uint8)


def _stretched(grey: Grey) -> Grey:
    """Return an image with the contrast of most things, if it has less."""
    high = float(np.percentile(grey[grey > FAINT], 95))
    if high >= PALE:
        return grey
    stretched: Grey = np.minimum(np.rint(grey * (STRETCHED / high)), LARGEST).astype(np.uint8)
    return stretched


def _trimmed(grey: Grey) -> Grey:
    """Return an image without its black margin; an empty one as it is."""
    rows, columns = (np.flatnonzero((grey > FAINT).any(axis=axis)) for axis in (1, 0))
    return grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else grey


def _square(grey: Grey) -> Grey:
    """Return an image with its longer edge brought to 28 pixels, in the middle of a black square."""
    height, width = grey.shape
    scale = NATIVE_SIZE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.zeros((NATIVE_SIZE, NATIVE_SIZE), dtype=np.uint8)
    top, left = (NATIVE_SIZE - size[1]) // 2, (NATIVE_SIZE - size[0]) // 2
    small = Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)
    square[top : top + size[1], left : left + size[0]] = np.asarray(small)
    return square
