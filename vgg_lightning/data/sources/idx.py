"""IDX files, the format of MNIST and its kin: a big-endian header, then the bytes of one uint8 array.

The header is a magic number (0x00000803 for images, 0x00000801 for labels) and the length of each dimension.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["images", "labels"]

MAGIC: dict[Kind, bytes] = {"images": b"\x00\x00\x08\x03", "labels": b"\x00\x00\x08\x01"}
SIDE = 28


class Fault(Exception):  # noqa: N818 - it is a finding about a file, which another source may mend
    """What is wrong with a file: the end of a sentence that begins with the file's name."""


@dataclass(frozen=True)
class IdxFile:
    """What one IDX file has to be.

    Attributes:
        name: The name of the raw file; the compressed one adds ".gz".
        kind: Images of 28x28 pixels, or labels.
        count: How many of them; None accepts any number but zero.
        sha256: The checksum of the raw file; None accepts any.
        md5: The checksum of the compressed file; None accepts any.
        labels: The labels that may occur.
    """

    name: str
    kind: Kind
    count: int | None = None
    sha256: str | None = None
    md5: str | None = None
    labels: range = range(10)

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of one item: (28, 28) for an image, () for a label."""
        return (SIDE, SIDE) if self.kind == "images" else ()

    @property
    def header_size(self) -> int:
        """Bytes before the data: the magic number and the lengths of the dimensions."""
        return 4 + 4 * (1 + len(self.item_shape))

    @property
    def size(self) -> int | None:
        """Bytes of the whole raw file; None where any count is accepted."""
        return None if self.count is None else self.header_size + self.count * math.prod(self.item_shape)


def verify(path: Path, file: IdxFile) -> str:
    """Return the SHA-256 of the file at `path`, after checking that and the structure.

    Raises:
        Fault: The first thing found wrong, the most telling first: no file, no IDX data, ..., the checksum.
    """
    with _reading(path):
        if file.size not in (None, path.stat().st_size):
            read(path, file)  # which names the fault without hashing what may be huge
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != file.sha256:
        read(path, file)
    if file.sha256 not in (None, digest):
        raise Fault(f"is damaged: its SHA-256 is {digest[:12]}..., not {str(file.sha256)[:12]}...")
    return digest


def read(path: Path, file: IdxFile) -> NDArray[np.uint8]:
    """Return the array in an IDX file, (N, 28, 28) for images and (N,) for labels, writable, read just once.

    Raises:
        Fault: The magic number, a length, the file's size or a label is not what `file` asks for.
    """
    shape = read_shape(path, file)
    size = file.header_size + math.prod(shape)
    with _reading(path):
        if path.stat().st_size != size:
            raise Fault(f"is {path.stat().st_size} bytes long, not {size}")
        array = np.fromfile(path, dtype=np.uint8, offset=file.header_size)
    if file.kind == "labels":
        _check_labels(array, file.labels)
    return array.reshape(shape)


def _check_labels(array: NDArray[np.uint8], labels: range) -> None:
    """Raise a Fault unless all labels are among those that may occur."""
    for extreme in (int(array.max()), int(array.min())):
        if extreme not in labels:
            raise Fault(f"holds the label {extreme}, labels go from {labels[0]} to {labels[-1]}")


def read_shape(path: Path, file: IdxFile) -> tuple[int, ...]:
    """Return the shape that the header of an IDX file tells, after checking it."""
    with _reading(path), path.open("rb") as stream:
        header = stream.read(file.header_size)
    if header[:4] != MAGIC[file.kind]:
        raise Fault(_describe(header, file.kind))
    if len(header) < file.header_size:
        raise Fault("ends inside its header")
    shape = struct.unpack(f">{len(header) // 4 - 1}I", header[4:])
    _check_shape(shape, file)
    return shape


def _check_shape(shape: tuple[int, ...], file: IdxFile) -> None:
    """Raise a Fault unless the lengths told by a header are those that `file` asks for."""
    if shape[1:] != file.item_shape:
        raise Fault(f"holds images of {shape[1]}x{shape[2]} pixels, not {SIDE}x{SIDE}")
    if shape[0] != (shape[0] if file.count is None else file.count):
        raise Fault(f"says that it holds {shape[0]} {file.kind}, not {file.count}")
    if shape[0] == 0:
        raise Fault(f"holds no {file.kind}")


def _describe(header: bytes, kind: Kind) -> str:
    """Say what a file is that does not begin with the magic number of its kind."""
    if not header:
        return "is empty"
    if header.startswith(b"\x1f\x8b"):
        return "is still compressed (gunzip it, or end its name in .gz)"
    if header.lstrip().startswith(b"<"):
        return "holds a web page, not IDX data"
    for other, magic in MAGIC.items():
        if header.startswith(magic):
            return f"holds {other}, not {kind}"
    return f"begins with {header[:4].hex()}, not with {MAGIC[kind].hex()}, the IDX number of {kind}"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the file system says into a Fault; keep away from folders and pipes, which would block."""
    if os.path.isdir(path):
        raise Fault("is a folder")
    if not os.path.isfile(path):
        raise Fault("is missing" if not os.path.lexists(path) else "is no regular file")
    try:
        yield
    except OSError as error:
        raise Fault(f"cannot be read ({error.strerror or error})") from error
