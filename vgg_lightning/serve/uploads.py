"""The images that browsers upload: each is read once, remembered by its answer, and removed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.images.decode import MOST_BYTES

UNUSED = 60.0  # seconds for which a file stays that nothing asks for
USED = 2.0  # seconds after its answer, in which the page shows it
MOST_HELD = 2 * MOST_BYTES  # bytes of all files together
MOST_ANSWERS = 100  # that are remembered

Answer = TypeVar("Answer")


class Uploads(Generic[Answer]):
    """A folder whose files do not stay.

    An image is removed right after it was classified. Its answer is remembered for when its tab is opened again.

    Args:
        folder: into which the server writes what it is sent, and what it shows.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._used: dict[str, float] = {}  # file -> when it was classified
        self._lock = threading.Lock()

    def answer(self, path: str, classify: Callable[[str], Answer]) -> Answer:
        """Return what `classify` says of a file, or has said when it was there. Raises UserError if it is gone."""
        with self._lock:
            known = self._answers.get(path)
        try:
            if known is not None:
                return known
            if not os.path.exists(path):
                raise UserError("the image is no longer here: drop it again")
            found = classify(path)
        finally:
            with self._lock:
                self._used[path] = time.time()
        with self._lock:
            self._answers[path] = found
            while len(self._answers) > MOST_ANSWERS:
                self._answers.popitem(last=False)
        return found

    def tidy(self) -> None:
        """Remove what was used, what nothing has asked for, and the oldest of what is too much."""
        now, held = time.time(), 0
        with self._lock:
            used = dict(self._used)
        for file, info in sorted(_files(self.folder), key=lambda found: -found[1].st_mtime):
            held += info.st_size
            answered = str(file) in used and now - max(used[str(file)], info.st_mtime) > USED
            if answered or held > MOST_HELD or now - info.st_mtime > UNUSED:
                self._remove(file)
        with self._lock:
            self._used = {path: when for path, when in self._used.items() if os.path.exists(path)}

    def _remove(self, file: Path) -> None:
        with contextlib.suppress(OSError):
            file.unlink()
        parent = file.parent
        with contextlib.suppress(OSError):  # not empty
            if parent != self.folder:
                parent.rmdir()


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    found = []
    for inner, _, names in os.walk(folder):
        for file in (Path(inner, name) for name in names):
            with contextlib.suppress(OSError):  # it may be gone by now
                found.append((file, file.lstat()))
    return found
