"""Writes files into the data folder: limited in size, verified and atomic. No other module writes there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import sync_folder
from vgg_lightning.data.sources.catalogue import Dataset
from vgg_lightning.data.sources.idx import Fault, IdxFile, verify

ELSEWHERE = "choose another folder with data_dir or VGG_LIGHTNING_DATA"

LARGEST = 1 << 30  # bytes of a raw file whose size is not known; EMNIST's largest has half of that

Chunks = Generator[bytes, None, None]


class SourceError(Exception):
    """Why a source did not bring all that was wanted, and what to do, in one line."""


@dataclass
class Job:
    """What the sources are to bring.

    Attributes:
        dataset: The data set.
        root: The data folder, where users may lay files by hand.
        folder: Where the raw files go.
        faults: The files still wanted, by name, and what is wrong with what lies in their place.
        origins: Where files have come from so far, as phrases for people.
    """

    dataset: Dataset
    root: Path
    folder: Path
    faults: dict[str, str]
    origins: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> list[IdxFile]:
        """The files still missing or wrong."""
        return [file for file in self.dataset.files if file.name in self.faults]

    def take(self, file: IdxFile, chunks: Chunks, origin: str) -> None:
        """Store a wanted file.

        Args:
            file: The file that the chunks are to be.
            chunks: Its raw content, piece by piece; may raise Fault.
            origin: Where it comes from.

        Raises:
            Fault: The content is not that file.
            UserError: The folder cannot be written to.
        """
        store(chunks, file, self.folder)
        del self.faults[file.name]
        if origin not in self.origins:
            self.origins.append(origin)


def store(chunks: Chunks, file: IdxFile, folder: Path) -> None:
    """Write `chunks` under a temporary name, verify that they are `file`, then give the final name."""
    target = folder / file.name
    part = folder / f".{file.name}.{os.getpid()}.part"
    try:
        _require_room(target)
        _write(chunks, part, file.size or LARGEST)
        verify(part, file)
        if target.is_dir() and not target.is_symlink():
            target.rmdir()
        os.replace(part, target)
        sync_folder(folder)
    except OSError as error:  # of writing: what reads raises Fault
        reason = error.strerror or error
        raise UserError(f"cannot write {target} ({reason}): make room, or {ELSEWHERE}") from error
    finally:
        part.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process has left; call it with the lock held."""
    for path in leftovers(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files of `store` and temporary folders of the package archive in `folder`."""
    return [path for pattern in (".*-ubyte.*.part", ".*.zip.*.part", ".apt.*.part") for path in folder.glob(pattern)]


def _write(chunks: Chunks, part: Path, limit: int) -> None:
    """Write the chunks through to the disk, and no more than `limit` bytes of them."""
    written = 0
    with closing(chunks), part.open("wb") as stream:
        for chunk in chunks:
            written += len(chunk)
            if written > limit:
                raise Fault(f"unpacks to more than {limit} bytes")
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())


def _require_room(target: Path) -> None:
    """Refuse, before anything is fetched, to put a file where a folder with content lies."""
    if target.is_dir() and not target.is_symlink() and any(target.iterdir()):
        raise UserError(f"{target} is a folder that is not empty: move it away, a file belongs there")
