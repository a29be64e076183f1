"""The logger of metrics.csv: a row for everything that is logged, kept when a run goes on."""

from __future__ import annotations

import csv
import errno
import io
import os
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

FIRST = ("step", "epoch")


class RunCSV(Logger):
    """Appends to metrics.csv. Lightning's own deletes the file of the launch before.

    Args:
        run_folder: where metrics.csv goes.
        step: the run goes on here; rows of this step and later ones were written after the checkpoint, and go.
    """

    def __init__(self, run_folder: Path, step: int | None = None) -> None:
        super().__init__()
        self.file = run_folder / "metrics.csv"
        self._resume_at = step
        self._columns: list[str] = []
        self._pending: list[dict[str, Any]] = []

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

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml and hparams.yaml have them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; where that fails, as on a full disk, it is kept to be written with a later one."""
        self._pending.append({"step": step, **metrics})
        try:
            self._append()
        except OSError as error:
            if len(self._pending) == 1:
                print(f"{self.file} is not written: {error.strerror}; its rows wait", file=sys.stderr)

    def _append(self) -> None:
        if not self._columns:
            self._open()
        new = sorted({name for row in self._pending for name in row} - set(self._columns))
        if new:
            self._write([*self._columns, *new], self._read())
        rows = io.StringIO(newline="")
        csv.DictWriter(rows, self._columns).writerows(self._pending)
        data, size = rows.getvalue().encode(), self.file.stat().st_size
        with self.file.open("ab", buffering=0) as stream:
            if stream.write(data) < len(data):  # a disk that fills up takes a part
                stream.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._pending = []

    def _open(self) -> None:
        rows = self._read() if self._resume_at is not None and self.file.is_file() else []
        columns = [name for name in rows[0] if name] if rows else list(FIRST)
        self._write(columns, [row for row in rows if _is_before(row, self._resume_at)])

    def _read(self) -> list[dict[str, str]]:
        text = self.file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a killed process may leave half a row
        return list(csv.DictReader(whole.splitlines()))

    def _write(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        part = self.file.with_name(".metrics.csv.part")
        with part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, self.file)
        self._columns = columns


def _is_before(row: dict[str, str], step: int | None) -> bool:
    return step is None or (bool(row.get("step", "").isdigit()) and int(row["step"]) < step)
