"""Open picture files that may come from anywhere: bounded in bytes and pixels, in a few formats, from ordinary files.

Nothing here trusts a file's name, its header or its length. The file is opened without waiting (a pipe would wait for
its writer for ever), must be an ordinary one, and is read once, up to the length that it had then.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.text import printable

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MOST_BYTES = 100_000_000
MOST_PIXELS = 64_000_000  # those of a large camera; while one is decoded it takes 4 bytes a pixel, twice
LARGEST = 255  # grey level

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs of broken files is in the reasons here


class UnreadablePictureError(UserError):
    """A picture cannot be read; `reason` says why.

    Args:
        picture: the file, or what else was given.
        reason: in words.
    """

    def __init__(self, picture: object, reason: str) -> None:
        name = "" if isinstance(picture, bytes) else f" {printable(str(picture))}"
        super().__init__(f"cannot read the picture{name}: {reason}")
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
    """Return the picture in a file, or in the bytes of one: its size checked, not yet decoded.

    If the file holds several, it is the first.

    Raises:
        UnreadablePictureError: if it is no ordinary file or is too large; see `reading` for what else can go wrong.
    """
    content = path if isinstance(path, bytes) else _bytes_of(Path(path).expanduser())
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
    return image


def check_size(image: Image.Image) -> None:
    """Raise ValueError if a picture has more pixels than are decoded here."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"it has {width:,} x {height:,} pixels; at most {MOST_PIXELS // 10**6} million are decoded")
    if not width * height:
        raise ValueError("it has no pixels")


def _bytes_of(path: Path) -> bytes:
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
