"""Open picture files that may come from anywhere: bounded in bytes and pixels, in a few formats, from ordinary files.

Nothing here trusts a file's name, its header or its length. The file is opened without waiting (a pipe would wait for
its writer for ever), must be an ordinary one, and is read once, up to the length that it had then.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import os
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.process import seat
from vgg_lightning.base.text import printable, say

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MOST_BYTES = 100_000_000
MOST_PIXELS = 64_000_000  # those of a large camera; while one is decoded it takes 4 bytes a pixel, twice
LARGEST = 255  # grey level
# Of pixels of 16 bits in these forms Pillow keeps the upper 8. Each has a form under which it keeps the lower ones, in
# these channels.
LOWER_BITS: dict[str, tuple[str, slice]] = {
    **{f"{mode};16B": (f"{mode};16L", slice(3)) for mode in ("RGB", "RGBA", "RGBX")},
    **{f"{mode};16L": (f"{mode};16B", slice(3)) for mode in ("RGB", "RGBA", "RGBX")},
    "LA;16B": ("RGBA", slice(1, 2)),
}
RANGES = (1, 255, 1023, 4095, 16383, 65535)  # white in images of 1, 8, 10, 12, 14 and 16 bits
FEW_UPPER = 64  # upper bytes below this are those of 14 bits or fewer in 16

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs of broken files is in the reasons here


class UnreadablePictureError(UserError):
    """An image cannot be read; `reason` says why.

    Args:
        picture: the file, or what else was given.
        reason: in words.
    """

    def __init__(self, picture: object, reason: str) -> None:
        name = "" if isinstance(picture, bytes) else f" {printable(str(picture))}"
        super().__init__(f"cannot read the image{name}: {reason}")
        self.reason = reason


@contextmanager
def reading(picture: object) -> Iterator[None]:
    """Let all that goes wrong within be an `UnreadablePictureError`, and keep what PIL says off the screen."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnreadablePictureError:
        raise
    except MemoryError as error:
        raise UnreadablePictureError(picture, "there is too little memory for it") from error
    except OSError as error:
        raise UnreadablePictureError(picture, _reason(error.strerror or str(error))) from error
    except Exception as error:  # whatever a broken or hostile file makes the decoders do wrong
        raise UnreadablePictureError(picture, _reason(str(error) or type(error).__name__)) from error


def open_picture(path: str | Path | bytes) -> Image.Image:
    """Return the image in a file, or in the bytes of one: its size checked, not yet decoded if it has 8 bits.

    If the file holds several, it is the first.

    Raises:
        UnreadablePictureError: if it is no ordinary file or is too large; see `reading` for what else can go wrong.
    """
    content = path if isinstance(path, bytes) else bytes_of(Path(path).expanduser())
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        known = "PNG, JPEG, WebP, GIF, BMP, TIFF"
        raise UnreadablePictureError(
            path, f"it is no picture of a format that is read here ({known}), or damaged"
        ) from error
    check_size(image)
    if image.format == "TIFF" and image.info.get("compression") != "raw":  # libtiff prints, and is often attacked
        raise UnreadablePictureError(path, "it is a compressed TIFF, which is not decoded here: save it as PNG")
    _keep_lower_bits(image, content)
    return image


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
    images of 10 or 12 bits are kept in files of 16. A line says so, once, where it is a guess.

    - Whole numbers: 8 bits that were spread over 16 (multiples of 257) have their white at 65,535; else it is the
      smallest of 1, 255, 1,023, 4,095, 16,383 and 65,535 that no value exceeds.
    - Fractions: 0 to 1, if that is where they lie.
    - Anything else, as negative numbers: the smallest value becomes black, the largest white.

    Raises:
        ValueError: A value is no finite number.
    """
    numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError("it holds values that are no finite numbers")
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
            tell(
                f"note: an image file of 16 or more bits a pixel, all values up to {white:,}, is read as one of {bits}"
            )
        return 0.0, float(white)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    tell("note: in an image file of numbers without a known range, the smallest becomes black, the largest white")
    return low, high


@functools.cache
def tell(text: str) -> None:
    """Say it once, however many images it is true of."""
    if seat().rank == 0:
        say(text, sys.stderr)


def check_size(image: Image.Image) -> None:
    """Raise ValueError if a picture has more pixels than are decoded here."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"it has {width:,} x {height:,} pixels; at most {MOST_PIXELS // 10**6} million are decoded")
    if not width * height:
        raise ValueError("it has no pixels")


def bytes_of(path: Path) -> bytes:
    """Return the content of an ordinary file of bounded size. Raises OSError or ValueError; see `reading`."""
    _check_file(os.stat(path))  # first, since to open a device can do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        _check_file(info)
        content = file.read(info.st_size + 1)
    if len(content) != info.st_size:
        raise ValueError("it changes while it is read")
    return content


def _check_file(info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise ValueError(f"it is {_kind(info.st_mode)}, no ordinary file")
    if info.st_size > MOST_BYTES:
        raise ValueError(f"it has {info.st_size:,} bytes; at most {MOST_BYTES // 10**6} million are read")
    if not info.st_size:
        raise ValueError("it is empty")


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")


def _reason(text: str) -> str:
    return printable(" ".join(text.split()))[:200]
