"""Files that are written whole or not at all, and read only if they are ordinary ones.

A run folder may come from elsewhere, and hold a link, a pipe or a device where a file is expected. What is written
never goes through a link, and nothing waits for a pipe or reads a device without end.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import platform
import re
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.machine import O_BINARY, O_CLOEXEC, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, lives

HOST = re.sub(r"[^\w-]", "-", platform.node())[:40]
FORGOTTEN = 86_400  # seconds after which a partial file of another machine is taken for one of a dead process
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_BINARY
KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def part_of(file: Path) -> Path:
    """Return a hidden name beside `file` to write it under at first, which no other process has or guesses."""
    return file.with_name(f"{_part_stem(file)}.{HOST}.{os.getpid()}.{secrets.token_hex(4)}.part")


def remove_parts_of(file: Path) -> None:
    """Remove what dead processes have left half written under the names that `part_of` gives."""
    for part in file.parent.glob(f"{glob.escape(_part_stem(file))}.*.part"):
        found = re.fullmatch(r"\.([\w-]+)\.(\d+)\.[0-9a-f]{8}\.part", part.name.removeprefix(_part_stem(file)))
        with contextlib.suppress(OSError):  # another process was faster
            dead = found and found[1] == HOST and not lives(int(found[2]))
            if dead or (found and time.time() - part.lstat().st_mtime > FORGOTTEN):
                part.unlink()


def remove_parts(folder: Path) -> None:
    """Remove all that was left half written in a folder into which this process alone writes."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):  # a folder of that name is not ours
            part.unlink()


def _part_stem(file: Path) -> str:
    return f".{file.name[:40]}"


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, also through a power cut.

    A link of that name is replaced; what it points to is left alone. Text is written in UTF-8.

    Raises:
        OSError: if it cannot be written; the previous file is then untouched.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    _fill(file, lambda part: part.write_bytes(data))


def replace(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new file beside `file`, then give it that name, as `write_whole` does.

    Raises:
        UserError: if that cannot be done.
    """
    try:
        _fill(file, write)
    except OSError as error:
        elsewhere = f"choose another place with {option('output')}"
        raise UserError(f"cannot write {file}: {error.strerror}; {elsewhere}") from error


def _fill(file: Path, write: Callable[[Path], object]) -> None:
    remove_parts_of(file)
    part = part_of(file)
    try:
        os.close(os.open(part, NEW, 0o666))
        write(part)
        with part.open("r+b") as stream:  # not every system syncs what is open for reading alone
            os.fsync(stream.fileno())
        os.replace(part, file)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not every file system syncs a folder
        sync_folder(file.parent)


def check_place(folder: Path) -> None:
    """Make a folder if it is missing, and write a byte there. Raises OSError if that cannot be done."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = part_of(folder / "probe")
    try:
        with os.fdopen(os.open(probe, NEW, 0o666), "wb", buffering=0) as stream:
            stream.write(b"\0")
    finally:
        probe.unlink(missing_ok=True)


def open_own(file: Path, flags: int) -> int:
    """Open an ordinary file that has this one name, made if it is missing; what else has the name is removed.

    Args:
        file: such as a lock.
        flags: of os.open.

    Returns:
        Its descriptor, which no program that is started inherits.

    Raises:
        OSError: if that cannot be done, as where a folder has the name.
    """
    with contextlib.suppress(FileNotFoundError):
        info = os.lstat(file)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
            file.unlink()
    descriptor = os.open(file, flags | os.O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_BINARY, 0o666)
    try:
        _check_regular(os.fstat(descriptor), file)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_regular(file: Path) -> BinaryIO:
    """Open an ordinary file for reading, also through a link, without waiting for what is none.

    Raises:
        OSError: if it is a folder, a pipe, a socket or a device, or cannot be opened.
    """
    _check_regular(os.stat(file), file)  # first, since to open a device can do something
    descriptor = os.open(file, os.O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_BINARY)
    try:
        _check_regular(os.fstat(descriptor), file)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_regular(file: Path, most: int) -> bytes:
    """Return what an ordinary file holds.

    Args:
        file: the file.
        most: bytes that are read at most.

    Raises:
        OSError: if it is no ordinary file, is larger, or cannot be read.
    """
    with open_regular(file) as stream:
        if os.fstat(stream.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it is too large: more than {most:,} bytes", str(file))
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is too large: more than {most:,} bytes", str(file))
    return content


def _check_regular(info: os.stat_result, file: Path) -> None:
    if not stat.S_ISREG(info.st_mode):
        kind = next((name for test, name in KINDS if test(info.st_mode)), "a device")
        raise OSError(errno.EINVAL, f"it is {kind}, no ordinary file", str(file))
