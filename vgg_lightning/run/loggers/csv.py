"""The logger of metrics.csv: one row for each logged step; rows are kept when a run resumes."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from vgg_lightning.base.files import read_regular, write_whole
from vgg_lightning.base.machine import O_BINARY, O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK
from vgg_lightning.base.progress import say

FIRST = ("step", "epoch")
LARGEST = 1_000_000_000  # bytes of a metrics.csv that a resumed run reads

Row = dict[str, Any]


class RunCSV(Logger):
    """Appends to metrics.csv. Lightning's own deletes the file of the launch before.

    What the file holds is kept in memory too, about 100 bytes a row. Where it cannot be written, as on a full disk, the
    rows wait and are written with later ones; where it is gone or was cut short it is made again.

    Args:
        run_folder: where metrics.csv goes.
        step: the run resumes here; rows of this step and later ones were written after the checkpoint, and go.
    """

    def __init__(self, run_folder: Path, step: int | None = None) -> None:
        super().__init__()
        self.file = run_folder / "metrics.csv"
        self._resume_at = step
        self._columns: list[str] = []
        self._written = b""  # what the file holds
        self._pending: list[Row] = []
        self._waits = False  # that rows wait has been said

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.file.parent.parent.name

    @property
    def version(self) -> str:
        """The name of the run folder."""
        return self.file.parent.name

    @property
    def save_dir(self) -> str:
        """The folder above all runs."""
        return str(self.file.parent.parent.parent)

    @property
    def log_dir(self) -> str:
        """The run folder."""
        return str(self.file.parent)

    @property
    def unsaved(self) -> str:
        """What could not be written, or nothing."""
        if self._pending:
            return f"{len(self._pending):,} rows of {self.file}"
        return str(self.file) if self._waits else ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml and hparams.yaml have them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; where that fails, as on a full disk, it is kept to be written with a later one."""
        self._pending.append({"step": step, **metrics})
        self._try()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the rows that wait, and the file if it is gone, if that is possible now."""
        if self._pending or self._columns:
            self._try()

    def _try(self) -> None:
        try:
            self._append()
            self._waits = False
        except OSError as error:
            if not self._waits:
                say(f"{self.file} is not written: {error.strerror}; its rows wait")
            self._waits = True

    def _append(self) -> None:
        whole = not self._columns or not self._is_there()
        if not self._columns:
            self._take_over()
        new = sorted({name for row in self._pending for name in row} - set(self._columns))
        if new:
            rows = _rows(self._written.decode())
            self._columns += new
            self._written, whole = self._text(rows, header=True), True
        data = self._text(self._pending)
        if whole:
            write_whole(self.file, self._written + data)
        elif data:
            self._write_end(data)
        self._written += data
        self._pending = []

    def _take_over(self) -> None:
        """Begin with the rows of the launches before."""
        rows = self._found() if self._resume_at is not None else []
        self._columns = [name for name in rows[0] if name] if rows else list(FIRST)
        self._written = self._text([row for row in rows if _is_before(row, self._resume_at)], header=True)

    def _found(self) -> list[Row]:
        try:
            text = read_regular(self.file, LARGEST).decode(errors="surrogateescape")
        except FileNotFoundError:
            return []
        except OSError as error:
            say(f"{self.file} cannot be read: {error.strerror}; a new file is started")
            return []
        lines = text[: text.rfind("\n") + 1].splitlines()  # a killed process may leave half a row
        sound = [line for line in lines if line.isprintable()]
        if dropped := len(lines) - len(sound):
            say(f"{self.file}: {dropped:,} of its lines are not text and are skipped")
        if lines[:1] != sound[:1]:
            return []  # no names of columns, so the numbers mean nothing
        try:
            return _rows("\n".join(sound))
        except csv.Error as error:
            say(f"{self.file} is not a table: {error}; a new file is started")
            return []

    def _text(self, rows: Iterable[Row], header: bool = False) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode(errors="backslashreplace")

    def _is_there(self) -> bool:
        """Return whether the file is as it was left, and has not been replaced by a link."""
        with contextlib.suppress(OSError):
            info = os.lstat(self.file)
            if stat.S_ISREG(info.st_mode) and info.st_size == len(self._written):
                return True
        if not self._waits:
            say(f"{self.file} was removed or changed: it is made again")
        return False

    def _write_end(self, data: bytes) -> None:
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_BINARY)
        with os.fdopen(descriptor, "ab", buffering=0) as stream:
            try:
                count = stream.write(data)
            except OSError:
                stream.truncate(len(self._written))
                raise
            if count < len(data):  # a disk that fills up takes a part
                stream.truncate(len(self._written))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _rows(text: str) -> list[Row]:
    return list(csv.DictReader(text.splitlines()))


def _is_before(row: Row, step: int | None) -> bool:
    at = row.get("step") or ""
    return step is None or (at.isdecimal() and len(at) < 20 and int(at) < step)
