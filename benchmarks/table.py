"""A table in a csv file that can be read at any moment: every change replaces the file as a whole."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from filelock import FileLock

Row = dict[str, str]


class Table:
    """Rows in a csv file, of which some columns are the key.

    Args:
        file: where it lies; made with the first row.
        columns: all columns, in order.
        key: the columns that tell rows apart.
    """

    def __init__(self, file: Path, columns: Sequence[str], key: Sequence[str]) -> None:
        self.file = file
        self.columns = list(columns)
        self.key = list(key)

    def rows(self) -> list[Row]:
        """Return the rows of the file, none if it is not there."""
        if not self.file.is_file():
            return []
        with self.file.open(encoding="utf-8", newline="") as stream:
            return [{column: row.get(column) or "" for column in self.columns} for row in csv.DictReader(stream)]

    def find(self, row: Row) -> Row | None:
        """Return the stored row with the key of `row`."""
        return next((found for found in self.rows() if self.key_of(found) == self.key_of(row)), None)

    def key_of(self, row: Row) -> tuple[str, ...]:
        """Return the values of the key's columns."""
        return tuple(row[column] for column in self.key)

    def put(self, rows: Iterable[Row], overwrite: bool = True) -> None:
        """Store rows in place of those with the same key; without `overwrite`, add only those that are missing."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.file.with_name(f".{self.file.name}.part")):
            stored = {self.key_of(row): row for row in self.rows()}
            for row in rows:
                if overwrite or self.key_of(row) not in stored:
                    stored[self.key_of(row)] = row
            self._write(list(stored.values()))

    def _write(self, rows: list[Row]) -> None:
        temporary = self.file.with_name(f".{self.file.name}.{os.getpid()}.part")
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.file)
