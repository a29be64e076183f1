"""The lock of a run folder: one process at a time writes into it.

The operating system keeps the lock (flock), so that it is let go with the process that holds it, whatever ends that;
Linux does so on NFS too, for all machines. It belongs to one process of a run, the first: those that it starts or
forks, such as the workers of a loader, hold nothing, and may outlive it without being in the way of a resume. One that
has only just been forked still has to let go, so a folder counts as in use only if it stays so for a moment.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import HOST, open_own, remove_parts
from vgg_lightning.base.machine import after_fork_in_child, lock_file
from vgg_lightning.base.process import seat
from vgg_lightning.base.progress import say

NAME = ".lock"
REMEDY = "wait for its end, or stop it"
MOMENT = 1.0  # seconds
THIS = "this process"


class FolderLock:
    """Holds a folder for this process, from `acquire` to `release` or to the end of the process.

    A second one of the same folder is refused: in another process, and in this one while the first is at work. One that
    was taken but is not yet at work, such as that of a run which was prepared in a notebook and never begun, gives
    way to the second, and is refused from then on.

    Args:
        folder: that is written into.
        remedy: what to do where it is in use, said after "run FOLDER is in use by process N on host H: ".
        free: hold nothing: another process does that for this one.
    """

    _descriptor: int | None = None

    def __init__(self, folder: Path, remedy: str = REMEDY, free: bool = False) -> None:
        self.folder, self.remedy = folder, remedy
        self._users = 0  # how many times `at_work` has been entered
        self._superseded = False
        self._free = free or not _is_first()
        _locks.add(self)

    def acquire(self) -> None:
        """Take the folder, unless that was done.

        Raises:
            UserError: if it is in use.
        """
        if self._superseded:
            raise UserError(f"run {self.folder} was prepared once more since: prepare it anew")
        end = time.monotonic() + MOMENT
        while self._descriptor is None and not self._free:
            try:
                self._descriptor = self._take(last=time.monotonic() > end)
            except OSError as error:
                say(f"{self.folder} cannot be locked: {error.strerror}; see to it that no other process writes there")
                self._free = True

    def release(self) -> None:
        """Let the folder go."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold the folder within, and let it go afterwards. Raises UserError as `acquire`."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        """Enter `at_work`."""
        self.acquire()
        self._users += 1

    def end(self) -> None:
        """Leave `at_work`."""
        self._users = max(self._users - 1, 0)
        if not self._users:
            self.release()

    def _take(self, last: bool) -> int | None:
        """Return the descriptor that holds the folder; None if it is to be tried again, unless this is the last try."""
        file = self.folder / NAME
        try:
            descriptor = open_own(file, os.O_RDWR)
        except PermissionError:  # another user's run was here first; the folder is shared
            descriptor = open_own(file, os.O_RDONLY)
        try:
            lock_file(descriptor, exclusive=True)
            if not os.path.samestat(os.fstat(descriptor), os.stat(file)):
                raise FileNotFoundError
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} {HOST}\n".encode())
        except BlockingIOError:
            holder = _holder(os.read(descriptor, 200))
            gave_way = sum(lock.give_way(descriptor) for lock in list(_locks))
            os.close(descriptor)
            if not gave_way and (last or holder == THIS):
                raise UserError(f"run {self.folder} is in use by {holder}: {self.remedy}") from None
            time.sleep(0 if gave_way else MOMENT / 20)
            return None
        except FileNotFoundError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        for place in (self.folder, self.folder / "checkpoints"):
            remove_parts(place)  # of processes that were killed: nobody else writes here
        return descriptor

    def give_way(self, descriptor: int) -> bool:
        """Let the folder go for good, if it is the one that `descriptor` is about and nobody is at work in it."""
        own = self._descriptor
        if own is None or self._users or not os.path.samestat(os.fstat(own), os.fstat(descriptor)):
            return False
        self.release()
        self._superseded = True
        return True

    def forget(self) -> None:
        """Hold nothing in a process that was forked: the one that has forked it holds the folder for both."""
        self.release()
        self._free = True

    def __reduce__(self) -> tuple[type[FolderLock], tuple[Path, str, bool]]:
        """Hold nothing in a copy, nor in a process that this one sends it to."""
        return FolderLock, (self.folder, self.remedy, True)

    def __del__(self) -> None:
        self.release()


_locks: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_locks):
        lock.forget()


after_fork_in_child(_forget_all)


def _is_first() -> bool:
    """Return whether this is the process of its run that writes."""
    return seat().rank == 0 and os.environ.get("NODE_RANK", "0") in ("", "0")


def _holder(text: bytes) -> str:
    found = re.fullmatch(rb"(\d{1,10}) ([\w-]{1,40})\n", text)
    if not found:
        return "another process"
    if found[1] == str(os.getpid()).encode() and found[2] == HOST.encode():
        return THIS
    return f"process {found[1].decode()} on host {found[2].decode()}"
