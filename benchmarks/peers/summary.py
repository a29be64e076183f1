"""From single measurements to the table of the benchmark: medians, spreads, and ratios within rounds."""

from __future__ import annotations

import platform
import statistics
from importlib.metadata import PackageNotFoundError, distributions, version

from benchmarks.machine import instruction_set, processor
from benchmarks.peers.worker import PACKAGES
from benchmarks.plan import Row
from benchmarks.runner import NOT_MEASURED
from benchmarks.table import Row as Line

SUMMARY_COLUMNS = (
    *("part", "work", "contender", "measure", "median", "least", "most", "step_median", "rounds"),
    *(
        "ratio",
        "ratio_least",
        "ratio_most",
        "goal",
        "peak_mb",
        "quiet",
        "device",
        "instruction_set",
        "versions",
        "command",
    ),
)
PACKAGE_OF = {
    "d2l_book": "d2l",
    "fastai_learner": "fastai",
    "keras_model": "keras",
    "plain_lightning": "lightning",
}


def summary(rows: list[Row], lines: list[Line], threads: int) -> list[Line]:
    """Return one line for each contender of each row; those without a measurement say so."""
    found = []
    for row in rows:
        own = [line for line in lines if (line["part"], line["work"]) == (row.part, row.work)]
        for contender in row.contenders:
            found.append(_line(row, contender, own, threads))
    return found


def _line(row: Row, contender: str, lines: list[Line], threads: int) -> Line:
    mine = [line for line in lines if line["contender"] == contender]
    good = [line for line in mine if line[row.measure]]
    line = {
        **dict.fromkeys(SUMMARY_COLUMNS, ""),
        **{"part": row.part, "work": row.work, "contender": contender, "measure": row.measure},
        **{"goal": goal_of(row, contender), "command": f"make bench (part {row.part})"},
    }
    if not good:
        reason = next((other["error"] for other in mine if other["error"]), "")
        return line | {"median": NOT_MEASURED, "quiet": reason}
    values = [float(one[row.measure]) for one in good]
    steps = [float(one["step"]) for one in good if one["step"]]
    peaks = [float(one["peak_bytes"]) for one in good if one["peak_bytes"]]
    return line | {
        **_spread(values, "median", "least", "most"),
        **_spread(ratios(row, contender, lines), "ratio", "ratio_least", "ratio_most"),
        "step_median": f"{statistics.median(steps):.5g}" if steps else "",
        "rounds": str(len(good)),
        "peak_mb": f"{statistics.median(peaks) / 1e6:.0f}" if peaks else "",
        "quiet": "yes" if all(one["quiet"] == "yes" for one in good) else good[0]["quiet"] if len(good) == 1 else "no",
        "device": f"{processor()}, {threads} threads",
        "instruction_set": instruction_set(),
        "versions": versions_of(contender),
    }


def ratios(row: Row, contender: str, lines: list[Line]) -> list[float]:
    """Return by how much the first contender of a row is faster than `contender`, one ratio a round."""
    if contender == row.contenders[0]:
        return []
    by_round: dict[str, dict[str, float]] = {}
    for line in lines:
        if line[row.measure]:
            by_round.setdefault(line["round"], {})[line["contender"]] = float(line[row.measure])
    pairs = [
        (one[row.contenders[0]], one[contender])
        for one in by_round.values()
        if {row.contenders[0], contender} <= {*one}
    ]
    return [
        theirs / first if row.measure == "seconds" and row.part in ("epoch", "command") else first / theirs
        for first, theirs in pairs
    ]


def goal_of(row: Row, contender: str) -> str:
    """Return the goal in words, nothing if there is none."""
    bound = dict(row.goals).get(contender)
    if bound is None:
        return ""
    at_most = row.part in ("overhead", "start")
    return f"{'at most' if at_most else 'at least'} {bound:g}"


def reached(line: Line) -> str:
    """Return "yes" or "no" for a line with a goal."""
    value = line["ratio"] or line["median"]
    if not line["goal"] or value == NOT_MEASURED:
        return ""
    words = line["goal"].split()
    return "yes" if (float(value) <= float(words[-1])) == (words[1] == "most") else "no"


def versions_of(contender: str) -> str:
    """Return the versions of what a contender stands on."""
    names = [name for name in (PACKAGE_OF.get(contender),) if name]
    apart = {d.metadata["Name"]: d.version for d in distributions(path=[str(PACKAGES)])}
    found = [f"{name} {apart.get(name) or _version(name)}" for name in names]
    return " ".join([*found, f"python {platform.python_version()}", f"torch {_version('torch')}"])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _spread(values: list[float], *names: str) -> Line:
    if not values:
        return {}
    found = (statistics.median(values), min(values), max(values))
    return {name: f"{value:.5g}" for name, value in zip(names, found, strict=True)}


def printed(lines: list[Line]) -> str:
    """Return the table as text."""
    head = f"{'part':<10} {'work':<16} {'contender':<16} {'':>7} {'median':>12} {'ratio':>6} {'spread':>13}  goal"
    body = []
    for line in lines:
        spread = f"{line['ratio_least']}-{line['ratio_most']}" if line["ratio"] else ""
        goal = f"{line['goal']}: {reached(line)}" if reached(line) else line["goal"]
        body.append(
            f"{line['part']:<10} {line['work']:<16} {line['contender']:<16} {line['measure']:>7} "
            f"{line['median']:>12} {line['ratio']:>6} {spread:>13}  {goal}"
        )
    return "\n".join([head, *body])
