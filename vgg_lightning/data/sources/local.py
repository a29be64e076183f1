"""Files from folders of this machine: placed by hand, or part of a package."""

from __future__ import annotations

import gzip
import hashlib
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from vgg_lightning.base.progress import say
from vgg_lightning.data.sources.idx import Fault
from vgg_lightning.data.sources.store import Chunks, Job, SourceError

CHUNK = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"


def by_hand(job: Job) -> None:
    """Take .gz or raw files that the user has laid into the data folder or its folder of raw files."""
    folders, origin = [job.folder, job.root], f"files laid by hand into {job.root}"
    take_from(job, folders, origin)
    archives = [folder / job.dataset.archive.name for folder in folders if job.dataset.archive]
    for path in archives:
        if job.wanted and os.path.isfile(path):
            try:
                take_from_archive(job, path, origin)
            except Fault as fault:
                say(f"passing over {path}: it {fault}")
    if job.wanted:
        places = f"{job.folder} or {job.root}"
        raise SourceError(f"no sound {job.wanted[0].name} in {places}: put the four .gz or raw files there")


def take_from(job: Job, folders: Sequence[Path], origin: str) -> None:
    """Take the wanted files that lie in `folders`; pass over faulty ones with a line that says why."""
    for file in job.wanted:
        paths = [folder / name for folder in folders for name in (f"{file.name}.gz", file.name)]
        for path in paths:
            if path == job.folder / file.name or not os.path.isfile(path):
                continue
            try:
                job.take(file, chunks_of(path, file.md5), origin)
                break
            except Fault as fault:
                say(f"passing over {path}: it {fault}")


def take_from_archive(job: Job, path: Path, origin: str) -> None:
    """Take the wanted files out of the zip file that the data set's mirrors have.

    Raises:
        Fault: It is damaged, or not that file.
    """
    assert job.dataset.archive is not None
    with path.open("rb") as stream:
        md5 = hashlib.file_digest(stream, "md5").hexdigest()
    if md5 != job.dataset.archive.md5:
        raise Fault(f"is damaged or another file: its MD5 is {md5}, not {job.dataset.archive.md5}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.rpartition("/")[2]: name for name in archive.namelist()}
            for file in job.wanted:
                if member := members.get(f"{file.name}.gz"):
                    with archive.open(member) as packed:
                        job.take(file, unpacked(packed), origin)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise Fault(f"is not a valid zip file ({error})") from error


def chunks_of(path: Path, md5: str | None = None) -> Chunks:
    """Yield the raw content of a file on disk, unpacked if it is compressed, whatever its name says.

    Args:
        path: The file.
        md5: The checksum that it has to have if it is compressed.

    Raises:
        Fault: It cannot be read or unpacked.
    """
    try:
        with path.open("rb") as stream:
            if stream.peek(2).startswith(GZIP_MAGIC):
                yield from unpacked(stream, md5)
            else:
                while chunk := stream.read(CHUNK):
                    yield chunk
    except EOFError as error:
        raise Fault("ends early") from error
    except OSError as error:
        raise Fault(f"cannot be read ({error.strerror or error})") from error


class _Hashed:
    """A readable stream that knows the MD5 of what was read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.digest = hashlib.md5(usedforsecurity=False)

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, none at the end."""
        data = self.stream.read(size)
        self.digest.update(data)
        return data


def unpacked(stream: IO[bytes], md5: str | None = None) -> Chunks:
    """Yield the content of a gzip stream in pieces of bounded size.

    Args:
        stream: The compressed file.
        md5: Its checksum, looked at when all has been read; None accepts any.

    Raises:
        Fault: It is no gzip data, or damaged, or has another checksum.
        EOFError: It ends early. Errors of the stream itself pass through as well.
    """
    hashed = _Hashed(stream)
    try:
        with gzip.GzipFile(fileobj=cast(IO[bytes], hashed)) as unpacker:
            while chunk := unpacker.read(CHUNK):
                yield chunk
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Fault(f"is not a valid gzip file ({error})") from error
    if md5 not in (None, hashed.digest.hexdigest()):
        raise Fault(f"is damaged or another file: its MD5 is {hashed.digest.hexdigest()}, not {md5}")
