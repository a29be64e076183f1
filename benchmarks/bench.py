"""This project beside what people use in its place, measured in turn on this machine: `make bench`.

    python -m benchmarks.bench                        everything
    python -m benchmarks.bench --only load train      some parts, such as start load overhead
    python -m benchmarks.bench --works vgg11-r4-96    some works
    python -m benchmarks.bench --only tricks          what might make a step faster, each alone
    python -m benchmarks.bench --only command since --rounds 5    beside the project as it was at commit c70e37a

Every measurement is a process of its own. The contenders of a row take turns, round after round, and a ratio is that
of two measurements of the same round. The rounds are kept in lightning_logs/benchmarks/peers/rounds.csv until all are
done, so that an interrupted benchmark goes on; what they say is benchmarks/results/peers.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.machine import OtherWork
from benchmarks.peers.bare import TRICKS
from benchmarks.peers.summary import SUMMARY_COLUMNS, printed, summary
from benchmarks.peers.work import WORKS
from benchmarks.peers.worker import job_of
from benchmarks.plan import BEFORE, COMMIT, EXTRA, PARTS, PROJECT, ROWS, Row
from benchmarks.runner import RESULTS, ROOT, RUNS, environment, stop_on_sigterm
from benchmarks.table import Row as Line
from benchmarks.table import Table

FIGURES = ("wall", "step", "steps", "seconds", "share", "matrix_peak", "flops", "peak_bytes")
KEY = ("part", "work", "contender", "round")
FACTOR = 20  # times its rough cost that a measurement may take before it counts as hung


class Measurement:
    """One turn of one contender."""

    def __init__(self, row: Row, contender: str, number: int) -> None:
        self.row, self.contender, self.round = row, contender, number

    @property
    def key(self) -> Line:
        """What tells its line of the table of rounds apart."""
        return dict(zip(KEY, (self.row.part, self.row.work, self.contender, str(self.round)), strict=True))


def measurements(rows: list[Row], rounds: int) -> Iterator[Measurement]:
    """Yield all turns: the contenders of a row one after the other, round after round."""
    for row in rows:
        for number in range(1, min(rounds, row.rounds) + 1):
            for contender in row.contenders:
                if number <= row.rounds_of(contender):
                    yield Measurement(row, contender, number)


def take(turn: Measurement, seconds: float, threads: int) -> Line:
    """Measure, and return the line of the table of rounds; one that fails says why."""
    watch = OtherWork()
    begin = time.time()
    command = command_of(turn, seconds, threads)
    limit, variables = FACTOR * turn.row.cost + 60, _environment(turn.contender)
    try:
        place = _before() if turn.contender == BEFORE else ROOT
        done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=place, timeout=limit)
    except subprocess.TimeoutExpired:
        return turn.key | {"error": f"not done after {limit:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return turn.key | {"error": (lines[-1] if lines else f"exit code {done.returncode}")[:200]}
    prints = turn.contender not in ("help", "import") and turn.row.part != "command"
    figures = json.loads(done.stdout.strip().splitlines()[-1]) if prints else {}
    if turn.row.measure == "seconds" and "seconds" not in figures:
        figures["seconds"] = figures.pop("first_step_at", time.time()) - begin
    if turn.row.measure == "share":
        figures["share"] = figures["flops"] / figures["matrix_peak"]
    numbers = {name: f"{figures[name]:.6g}" for name in FIGURES if name in figures}
    return turn.key | numbers | {"quiet": watch.quiet()}


def command_of(turn: Measurement, seconds: float, threads: int) -> list[str]:
    """Return the command of a turn."""
    if turn.contender == "help":
        return [sys.executable, "-m", "vgg_lightning", "--help"]
    if turn.contender == "import":
        build = "Classifier(ratio=4, batch_norm=True, head='gap')"
        return [sys.executable, "-c", f"import lightning; from vgg_lightning import Classifier; {build}"]
    if turn.row.part == "command":
        place = ("--name", f"{turn.row.work}-{turn.contender}", "--trainer.default_root_dir", str(RUNS / "command"))
        return [sys.executable, "-m", "vgg_lightning", "fit", *WORKS[turn.row.work].arguments, *place]
    first = turn.contender == "first_step"
    part, contender, work = (
        ("first_step", "project", "quick") if first else (_part(turn), turn.contender, turn.row.work)
    )
    job = job_of(part, PROJECT if contender == BEFORE else contender, work, seconds, threads)
    if contender == BEFORE:
        own = {name: value for name, value in job.changes.items() if not name.startswith("trainer.")}
        job = replace(job, changes=own)
    return [sys.executable, "-m", "benchmarks.peers.worker", json.dumps(asdict(job))]


def _part(turn: Measurement) -> str:
    alike = {"overhead": "train", "tricks": "train", "since": "train", "int8": "predict", "predict_bf16": "predict"}
    return alike.get(turn.row.part, turn.row.part)


def _environment(contender: str) -> dict[str, str]:
    """Return the environment of all contenders, without windows or warnings, and what a trick adds to it."""
    added = TRICKS.get(contender.partition(":")[2], {})
    added = {"PYTHONPATH": str(_before())} if contender == BEFORE else added
    return {**environment(), "MPLBACKEND": "agg", "KERAS_BACKEND": "torch", "PYTHONWARNINGS": "ignore", **added}


def _before() -> Path:
    """Return a worktree with the project as it was, which is made where there is none."""
    folder = RUNS / "peers" / COMMIT
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        add = ["git", "worktree", "add", "--detach", str(folder), COMMIT]
        subprocess.run(add, cwd=ROOT, check=True, capture_output=True)
    return folder


def main(args: list[str] | None = None) -> int:
    """Measure what has no line yet, write the summary and print it; return 0, or 130 if interrupted."""
    own = _parse(args)
    rows = [row for row in (*ROWS, *EXTRA) if row.part in own.only and (not own.works or row.work in own.works)]
    rounds = Table(own.rounds_file, (*KEY, *FIGURES, "quiet", "error"), KEY)
    turns = [turn for turn in measurements(rows, own.rounds) if not own.contenders or turn.contender in own.contenders]
    try:
        _measure(turns, rounds, own)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    finally:
        lines = [line for line in rounds.rows() if any(line["part"] == row.part for row in rows)]
        Table(own.table, SUMMARY_COLUMNS, ("part", "work", "contender")).put(summary(rows, lines, own.threads))
    print(printed(Table(own.table, SUMMARY_COLUMNS, ("part", "work", "contender")).rows()))
    print(f"all of it: {own.table}")
    own.rounds_file.replace(own.rounds_file.with_name("rounds.done.csv"))  # the next call measures anew
    return 0


def _measure(turns: list[Measurement], rounds: Table, own: argparse.Namespace) -> None:
    planned = sum(turn.row.cost for turn in turns)
    spent = expected = 0.0
    for number, turn in enumerate(turns, start=1):
        planned -= turn.row.cost
        done = rounds.find(turn.key)
        if done is not None and not done["error"]:
            continue
        begin = time.monotonic()
        line = take(turn, own.seconds, own.threads)
        rounds.put([line])
        spent, expected = spent + time.monotonic() - begin, expected + turn.row.cost
        _say(f"{number}/{len(turns)}", line, turn, planned * spent / expected)


def _say(count: str, line: Line, turn: Measurement, left: float) -> None:
    found = line.get("error") or f"{turn.row.measure} {float(line[turn.row.measure]):.5g}"
    name = f"{turn.row.part:<10} {turn.row.work:<16} {turn.contender:<16} round {turn.round}"
    print(f"{count:>8}  {name}  {found:<22}  {left / 60:.1f} min left", flush=True)


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default={row.part for row in ROWS}, metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--works", nargs="+", metavar="WORK", help=", ".join(dict.fromkeys(row.work for row in ROWS)))
    parser.add_argument("--contenders", nargs="+", metavar="CONTENDER", help="project, d2l_book...; by default all")
    parser.add_argument("--rounds", type=int, default=3, help="at most so many; peers without a goal have one")
    parser.add_argument("--seconds", type=float, default=4.0, help="to measure, after warming up")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch, in every process")
    parser.add_argument("--table", type=Path, default=RESULTS / "peers.csv", help="the csv file")
    parser.add_argument("--rounds_file", type=Path, default=RUNS / "peers" / "rounds.csv", help="what is done so far")
    return parser.parse_args(args)


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
