"""Files from folders of this machine: laid by hand, or part of a package."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from vgg_lightning.data.idx import Fault
from vgg_lightning.data.progress import say
from vgg_lightning.data.store import Chunks, Job, SourceError

CHUNK = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"


def by_hand(job: Job) -> None:
    """Take .gz or raw files that the user has laid into the data folder or its folder of raw files."""
    folders = [job.folder, job.root]
    take_from(job, folders, f"files laid by hand into {job.root}")
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
                job.take(file, chunks_of(path), origin)
                break
            except Fault as fault:
                say(f"passing over {path}: it {fault}")


def chunks_of(path: Path) -> Chunks:
    """Yield the raw content of a file on disk, unpacked if it is compressed, whatever its name says.

    Raises:
        Fault: It cannot be read or unpacked.
    """
    try:
        with path.open("rb") as stream:
            if stream.peek(2).startswith(GZIP_MAGIC):
                yield from unpacked(stream)
            else:
                while chunk := stream.read(CHUNK):
                    yield chunk
    except EOFError as error:
        raise Fault("ends early") from error
    except OSError as error:
        raise Fault(f"cannot be read ({error.strerror or error})") from error


def unpacked(stream: IO[bytes]) -> Chunks:
    """Yield the content of a gzip stream in pieces of bounded size.

    Raises:
        Fault: It is no gzip data, or damaged.
        EOFError: It ends early. Errors of the stream itself pass through as well.
    """
    try:
        with gzip.GzipFile(fileobj=stream) as unpacker:
            while chunk := unpacker.read(CHUNK):
                yield chunk
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Fault(f"is no sound gzip file ({error})") from error
