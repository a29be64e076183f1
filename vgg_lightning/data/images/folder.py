"""The images of a folder for `predict`: which files they are, and a loader that reads them batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.text import printable
from vgg_lightning.data.images.decode import UnreadablePictureError, read_picture
from vgg_lightning.data.images.listing import ENDINGS, MOST_FILES, Found, TooManyError, walk

__all__ = ["MOST_FILES", "SUFFIXES", "Found", "PictureLoader", "find_pictures"]

SUFFIXES = ENDINGS
AT_A_TIME = 32  # images: what a signal to stop has to wait for


def find_pictures(path: str | Path) -> Found:
    """Return the images that `path` means: one file, or all of a folder and of the folders in it.

    Symbolic links are followed only to what lies in the folder, too.

    Raises:
        UserError: if there is nothing at `path`, or no image below it.
    """
    path = Path(path).expanduser()
    shown = printable(str(path))
    try:
        if not path.is_dir():
            path.stat()
            return Found(path.parent, [path.name])
        found = Found(path)
        walk(path, [path.resolve()], found)
    except OSError as error:
        raise UserError(f"{option('data.predict_path')} {shown} cannot be read: {error.strerror or error}") from error
    except TooManyError as error:
        raise UserError(f"{option('data.predict_path')} {error}") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{option('data.predict_path')} {shown} is not a path: {error}") from error
    if not found.names and not found.refused:
        seen = found.hidden + found.others
        raise UserError(
            f"{option('data.predict_path')} {shown} holds no image" + (f" ({seen:,} other files)" if seen else "")
        )
    return found


class PictureLoader:
    """Reads images batch by batch, so that as many as there are take no memory.

    Args:
        found: the images. Those that turn out to be unreadable or empty are added to its `refused`.
        batch_size: the most images in a batch.
    """

    def __init__(self, found: Found, batch_size: int) -> None:
        self.found = found
        self.batch_size = min(batch_size, AT_A_TIME)
        self.sampler, self.batch_sampler = None, None  # where Lightning looks for set_epoch

    def __len__(self) -> int:
        """Return the number of batches, if all images can be read."""
        return math.ceil(len(self.found.names) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (uint8 images (N, 1, 28, 28), their places in `found.names` (N,)) of those that can be read."""
        for begin in range(0, len(self.found.names), self.batch_size):
            read = [(i, image) for i in range(begin, begin + self.batch_size) if (image := self._read(i)) is not None]
            if read:
                yield torch.stack([image for _, image in read]), torch.tensor([i for i, _ in read])

    def _read(self, i: int) -> Tensor | None:
        if i >= len(self.found.names):
            return None
        name = self.found.names[i]
        try:
            return read_picture(self.found.root / name)
        except UnreadablePictureError as error:
            self.found.refused.append((name, error.reason))
            return None
