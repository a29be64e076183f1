"""Runs `vgg-lightning fit` for one row of a table, and goes on where an earlier try stopped."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import vgg_lightning
from benchmarks.machine import OtherWork, processor

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "lightning_logs" / "benchmarks"  # not tracked
RESULTS = ROOT / "benchmarks" / "results"
NOT_MEASURED = "not measured"
INTERRUPTED = (-signal.SIGINT, -signal.SIGTERM, 130, 143, 138)
BAD_INPUT = 2  # the exit code of vgg-lightning for options that it refuses


class RowError(Exception):
    """A run ended with an error; the text is its last line."""


@dataclass(frozen=True)
class Run:
    """One call of `vgg-lightning fit`.

    Args:
        name: what the run is called; the options are told apart by a digest after it.
        options: of the command line, without those that say where the run goes.
    """

    name: str
    options: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command as one types it."""
        return shlex.join(("vgg-lightning", "fit", *self.options))

    @property
    def folder_name(self) -> str:
        """The name of the run's folder, another one for other options."""
        return f"{self.name}-{hashlib.sha256(json.dumps(self.options).encode()).hexdigest()[:8]}"

    def newest_folder(self, runs: Path) -> Path | None:
        """Return the folder of the newest try, or None."""
        tries = (runs / "lightning_logs" / self.folder_name).glob("version_*")
        numbered = {int(path.name[8:]): path for path in tries if path.name[8:].isdigit()}
        return numbered[max(numbered)] if numbered else None


@dataclass(frozen=True)
class Outcome:
    """What a finished run left: its results.json, its val_acc after each epoch, and how it was measured."""

    results: dict[str, Any]
    val_accs: tuple[float, ...]
    quiet: str

    def figures(self) -> dict[str, str]:
        """Return the columns that every table has."""
        results = self.results
        on_gpu = results["device"] == "cuda" and torch.cuda.is_available()
        device = torch.cuda.get_device_name() if on_gpu else processor()
        return {
            "seconds": str(results["seconds"]),
            "examples_per_second": str(results["examples_per_second"]),
            "quiet": self.quiet,
            "device": f"{device}, {results['threads']} threads",
            "versions": in_words(results["versions"]),
        }


def carry_out(run: Run, runs: Path = RUNS) -> Outcome:
    """Do a run, finish an interrupted one, or read the results of a finished one.

    Args:
        run: what to run.
        runs: folder below which the run folders lie.

    Raises:
        RowError: if the command fails.
        KeyboardInterrupt: if the run is interrupted; another call goes on with it.
    """
    folder = run.newest_folder(runs)
    if folder is not None and _results(folder):
        return _outcome(folder, quiet="unknown")  # finished, but its row was not written any more
    watch = OtherWork()
    where = ("--name", run.folder_name, "--trainer.default_root_dir", str(runs))
    code, last_line = BAD_INPUT, ""
    if folder is not None:
        code, last_line = _fit((*run.options, *where, "--resume"))
    resumed = code != BAD_INPUT  # which also says: there is no checkpoint yet
    if not resumed:
        code, last_line = _fit((*run.options, *where))
    if code:
        raise RowError(last_line or f"exit code {code}")
    newest = run.newest_folder(runs)
    assert newest is not None
    return _outcome(newest, "unknown" if resumed else watch.quiet())


def _fit(options: tuple[str, ...]) -> tuple[int, str]:
    """Return exit code and last line of the errors of one `vgg-lightning fit`, whose lines go to the screen."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vgg_lightning", "fit", *options],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        process_group=0,  # so that Ctrl-C reaches it once, from here
    )
    try:
        _, errors = process.communicate()
    except KeyboardInterrupt:
        process.terminate()  # it saves what it has, then ends; SIGINT is ignored in what a shell runs in the background
        process.communicate()
        raise
    if process.returncode in INTERRUPTED:
        raise KeyboardInterrupt
    lines = errors.strip().splitlines()
    return process.returncode, lines[-1].removeprefix("error: ") if lines else ""


def _results(folder: Path) -> dict[str, Any]:
    file = folder / "results.json"
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return results


def _outcome(folder: Path, quiet: str) -> Outcome:
    file = folder / "metrics.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        accs = [row["val_acc"] for row in csv.DictReader(stream) if row.get("val_acc")]
    return Outcome(_results(folder), tuple(map(float, accs)), quiet)


def in_words(versions: dict[str, str]) -> str:
    """Return versions in one line."""
    return " ".join(f"{name} {version}" for name, version in versions.items())


def environment() -> dict[str, str]:
    """Return the environment in which a new process finds the same package, installed or not."""
    package = str(Path(vgg_lightning.__file__).parents[1])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def number(value: float | None, digits: int = 4) -> str:
    """Return a measured number as text, nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"


def stop_on_sigterm() -> None:
    """Take SIGTERM as Ctrl-C: the run in progress is told to save and end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
