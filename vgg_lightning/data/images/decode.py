"""Images of all kinds as uint8 batches of the data set's form, from files that may come from anywhere.

What is decoded, and how it takes that form, says `prepare_image`, which works without this package too. Here files are
read safely, and every fault is one line. Nothing here trusts a file's name or its length. The file is opened
without waiting (a pipe would wait for its writer for ever), must be an ordinary one, and is read once, up to the length
that it had then.
"""

from __future__ import annotations

import functools
import logging
import os
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.machine import O_BINARY, O_CLOEXEC, O_NOCTTY, O_NONBLOCK
from vgg_lightning.base.process import seat
from vgg_lightning.base.text import printable, say
from vgg_lightning.data.images import prepare_image
from vgg_lightning.data.images.prepare_image import NATIVE_SIZE, Grey, ImageNote, Look

if TYPE_CHECKING:  # torch is loaded by what makes tensors: to look at a folder of images takes none
    from torch import Tensor

MOST_BYTES = 100_000_000
Picture = Image.Image | str | Path | bytes
Pictures: TypeAlias = "Tensor | NDArray[np.uint8] | Picture | Sequence[Picture]"

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs of broken files is in the reasons here


class UnreadablePictureError(UserError):
    """An image cannot be read; `reason` says why.

    Args:
        image: the file, or what else was given.
        reason: in words.
    """

    def __init__(self, picture: object, reason: str) -> None:
        name = "" if isinstance(picture, bytes) else f" {printable(str(picture))}"
        super().__init__(f"cannot read the image{name}: {reason}")
        self.reason = reason


class EmptyPictureError(UnreadablePictureError):
    """An image shows nothing: no pixel of it differs from its background.

    Attributes:
        pixels: what it becomes, uint8 (28, 28).
    """

    def __init__(self, picture: object, pixels: Grey) -> None:
        super().__init__(picture, "it is empty: nothing in it differs from its background")
        self.pixels = pixels


@contextmanager
def reading(picture: object) -> Iterator[None]:
    """Let all that goes wrong within be an `UnreadablePictureError`, say what was guessed, and let PIL say nothing."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", ImageNote)
            try:
                yield
            finally:
                for note in caught:
                    tell(f"note: {note.message}")
    except UnreadablePictureError:
        raise
    except MemoryError as error:
        raise UnreadablePictureError(picture, "there is too little memory for it") from error
    except OSError as error:
        raise UnreadablePictureError(picture, _reason(error.strerror or str(error))) from error
    except Exception as error:  # whatever a broken or hostile file makes the decoders do wrong
        raise UnreadablePictureError(picture, _reason(str(error) or type(error).__name__)) from error


def to_uint8(images: Pictures) -> Tensor:
    """Return images as uint8 (N, 1, 28, 28).

    Arrays and tensors pass as they are. PIL images and files become grey and take the data set's form, unless they
    have 28 x 28 pixels already: these are inverted if they are dark on white, and else pass as they are.

    Args:
        images: uint8 (N, 28, 28), (N, 1, 28, 28) or (28, 28); or PIL images, paths or the bytes of
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
        raise UserError("there is no image to classify: give at least one")
    return torch.stack([read_picture(image) for image in images])


def read_picture(picture: Picture) -> Tensor:
    """Return one image as uint8 (1, 28, 28).

    Raises:
        UnreadablePictureError: a UserError with the reason.
    """
    import torch

    return torch.from_numpy(pixels_of(picture))[None]


def pixels_of(picture: Picture) -> Grey:
    """Return one image as uint8 (28, 28).

    Raises:
        UnreadablePictureError: a UserError with the reason.
        EmptyPictureError: one of them; the image shows nothing but a background.
    """
    look = look_at(picture)
    if not look.shows:
        raise EmptyPictureError(picture, look.pixels)
    return look.pixels


def look_at(picture: Picture) -> Look:
    """Return what an image is and becomes. Raises UnreadablePictureError, a UserError with the reason."""
    with reading(picture):
        return prepare_image.look_at(bytes_of(picture) if isinstance(picture, str | Path) else picture)


def _checked(images: Tensor) -> Tensor:
    import torch

    if images.dtype != torch.uint8:
        raise UserError(f"images are {images.dtype}: give uint8 values from 0 to 255")
    if images.ndim == 2:
        images = images[None]
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1:] != (1, NATIVE_SIZE, NATIVE_SIZE):
        raise UserError(f"images have shape {tuple(images.shape)}: give (N, {NATIVE_SIZE}, {NATIVE_SIZE})")
    return images


def open_picture(path: str | Path | bytes) -> Image.Image:
    """Return the image in a file, or in the bytes of one, as `prepare_image.open_image` does.

    Raises:
        UnreadablePictureError: if it is no ordinary file, is no image, is damaged or too large.
    """
    with reading(path):
        return prepare_image.open_image(path if isinstance(path, bytes) else bytes_of(path))


@functools.cache
def tell(text: str) -> None:
    """Say it once, however many images it is true of."""
    if seat().rank == 0:
        say(text, sys.stderr)


def bytes_of(path: str | Path) -> bytes:
    """Return the content of an ordinary file of bounded size. Raises OSError or ValueError; see `reading`."""
    path = Path(path).expanduser()
    _check_file(os.stat(path))  # first, since to open a device can do something
    descriptor = os.open(path, os.O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_BINARY)
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
