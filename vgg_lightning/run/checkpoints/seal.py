"""The seal of a checkpoint file: a SHA-256 of all of it in the comment of its zip archive, to detect any change.

torch.load checks no checksum at all, and those of the zip format leave its headers out. A sealed file stays an
ordinary checkpoint that torch.load and Lightning open.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from vgg_lightning.base.files import open_regular

_MARK = b"vgg-lightning sha256 "
_COMMENT = len(_MARK) + 64
_TAIL = 2 + _COMMENT  # the last field of a zip archive is the length of its comment, then the comment
_CHUNK = 1 << 20


class SealedWriter:
    """A file for torch.save that hashes what it is given.

    The first error is kept for `seal` to raise: inside torch.save it would surface as one that hides the reason.

    Args:
        stream: an empty file, open for reading and writing in binary.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write and hash `data`."""
        if self._error is None:
            try:
                self._hash.update(data)
                self._stream.write(data)
            except OSError as error:
                self._error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Do nothing: `seal` flushes."""

    def seal(self) -> None:
        """Append the digest. Raises the OSError of a write that failed."""
        if self._error is not None:
            raise self._error
        self._stream.seek(-2, 2)
        self._stream.write(struct.pack("<H", _COMMENT) + _MARK + self._hash.hexdigest().encode())
        self._stream.flush()


def damage_of(file: Path) -> str | None:
    """Return what is wrong with a checkpoint file, or None if it is as it was written.

    A file without a seal, as Lightning writes them, is checked by the checksums of its archive. Only an ordinary file
    is opened, and no more is read than it held then.

    Raises:
        OSError: if it is no ordinary file, or cannot be read.
    """
    return verify(file)[0]


def verify(file: Path) -> tuple[str | None, str | None]:
    """Return what is wrong with a checkpoint file, as `damage_of`, and the SHA-256 of all of it if it has a seal.

    Raises:
        OSError: if it is no ordinary file, or cannot be read.
    """
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(size - _TAIL, 0))
        tail = stream.read(_TAIL)
        sealed = re.fullmatch(rb"(..)" + re.escape(_MARK) + rb"([0-9a-f]{64})", tail, re.DOTALL)
        if not sealed:
            return _damage_of_unsealed(stream, tail, size), None
        digest = _hash(stream, size - _TAIL)
    unsealed = digest.copy()
    unsealed.update(b"\0\0")  # the length of the comment, before it was sealed
    if sealed[1] != struct.pack("<H", _COMMENT) or unsealed.hexdigest() != sealed[2].decode():
        return "its SHA-256 is wrong", None
    digest.update(tail)
    return None, digest.hexdigest()


def _hash(stream: IO[bytes], length: int) -> Any:
    stream.seek(0)
    digest = hashlib.sha256()
    while length > 0 and (chunk := stream.read(min(_CHUNK, length))):
        digest.update(chunk)
        length -= len(chunk)
    return digest


def _damage_of_unsealed(stream: IO[bytes], tail: bytes, size: int) -> str | None:
    end = tail[-22:]
    if not (end.startswith(b"PK\5\6") and end.endswith(b"\0\0")):
        return "it is not a checkpoint, or its end is missing"
    try:
        with zipfile.ZipFile(stream) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                return "its archive is compressed"
            if sum(part.file_size for part in parts) > size:
                return "its parts are larger than the file"
            wrong = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        return "its archive cannot be read"
    return f"the checksum of {wrong} is wrong" if wrong else None
