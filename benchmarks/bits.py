"""Do two checkouts train the same weights, bit for bit? `python -m benchmarks.bits --base ../other_checkout`.

Each case (see `bits_cases`) is run on this machine by both checkouts, through the command line and the public names
alone: A is the other checkout, B the one that this file belongs to. Then the SHA-256 of what the two have left are
compared: of all tensors of every checkpoint (weights, optimizers and callbacks), of the numbers of optimizers,
schedules and loops, of all of metrics.csv, and of the metrics in results.json.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from benchmarks.bits_cases import Case, all_cases, make_data
from benchmarks.runner import ROOT, stop_on_sigterm

COUNTED = ("optimizer_states", "lr_schedulers", "loops", "global_step", "epoch")  # whose plain numbers count as well
METRICS = ("train_", "val_", "test_")  # how the names of metrics in results.json begin
SAME, DIFFERENT, REFUSED = "same", "DIFFERENT", "refused alike"
REFUSED_CODE = 2


class Checkout:
    """A process with the package of one checkout in memory, which runs commands one at a time (see `warm`).

    Args:
        root: of the checkout.
        folder: in which the cases run, each in a folder of its own.
        threads: of torch.
    """

    def __init__(self, root: Path, folder: Path, threads: int) -> None:
        self.root, self.folder = root.resolve(), folder
        env = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "ignore"}
        env |= {"OMP_NUM_THREADS": str(threads), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py"))],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this command alone, which then ends all of them
        )

    def __enter__(self) -> Checkout:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def check_package(self) -> None:
        """Raise RuntimeError unless the package in memory is that of the checkout."""
        package = Path(self._answer()["package"]).resolve()
        if package.parents[1] != self.root:
            raise RuntimeError(f"{self.root} has no package vgg_lightning: the one of {package.parents[1]} was found")

    def start(self, case: Case, number: int, places: dict[str, str]) -> None:
        """Start one of the commands of a case, with `places` put in for the words that stand for folders."""
        folder = self.case_folder(case)
        folder.mkdir(parents=True, exist_ok=True)
        request = {"folder": str(folder), "args": [places.get(arg, arg) for arg in case.commands[number]]}
        assert self.process.stdin is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)

    def end(self) -> int:
        """Wait for the end of what was started, and return its exit code."""
        return int(self._answer()["code"])

    def case_folder(self, case: Case) -> Path:
        """Return the folder in which a case runs."""
        return self.folder / case.name.replace("/", "-")

    def last_line(self, case: Case) -> str:
        """Return the last line that a case has printed as an error."""
        lines = (self.case_folder(case) / "errors.txt").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.root} has ended with code {self.process.wait()}")
        return dict(json.loads(line))


def run_case(case: Case, a: Checkout, b: Checkout, places: dict[str, str]) -> tuple[str, str]:
    """Run a case in both checkouts at the same time; return the outcome in a word or two, and more about it."""
    for number in range(len(case.commands)):
        for checkout in (a, b):
            checkout.start(case, number, places)
        codes = a.end(), b.end()
        if any(codes):
            return failure(codes, (a.last_line(case), b.last_line(case)))
    found, other = digests(a.case_folder(case)), digests(b.case_folder(case))
    if not found:
        return "failed in A and B", "no checkpoint was written"
    differ = sorted(name for name in found.keys() | other.keys() if found.get(name) != other.get(name))
    return (DIFFERENT, ", ".join(differ)) if differ else (SAME, "")


def failure(codes: tuple[int, int], lines: tuple[str, str]) -> tuple[str, str]:
    """Return the outcome of a case of which A, B or both have failed, and a line about it.

    Args:
        codes: the exit codes of A and B.
        lines: the last lines that they have printed as errors.
    """
    if codes == (REFUSED_CODE, REFUSED_CODE) and lines[0] == lines[1]:
        return REFUSED, lines[0]
    failed = [name for name, code in zip("AB", codes, strict=True) if code]
    return f"failed in {' and '.join(failed)}", next(line for line, code in zip(lines, codes, strict=True) if code)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of what the runs below a folder have computed, by the name of the file."""
    readers = {".ckpt": _checkpoint, ".safetensors": _safetensors, ".csv": _metrics, ".json": _results}
    files = sorted(file for file in folder.rglob("*") if file.suffix in readers)
    parts = {
        str(file.relative_to(folder)): sorted(readers[file.suffix](file), key=lambda leaf: leaf[0]) for file in files
    }
    return {name: digest(leaves) for name, leaves in parts.items() if leaves}


def digest(leaves: Sequence[tuple[str, Any]]) -> str:
    """Return the SHA-256 over names and values; of tensors also over type and shape."""
    total = hashlib.sha256()
    for name, value in leaves:
        if isinstance(value, torch.Tensor):
            total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            total.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            total.update(f"{name} {value!r}\n".encode())
    return total.hexdigest()


def leaves_of(value: Any, name: str, numbers: bool) -> Iterator[tuple[str, Any]]:
    """Yield the tensors in a nested value, and its numbers if asked to, with their names."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves_of(part, f"{name}/{Path(str(key)).name}", numbers)  # some keys are paths of a run
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from leaves_of(part, f"{name}/{number}", numbers)
    elif isinstance(value, torch.Tensor) or (numbers and isinstance(value, int | float)):
        yield name, value


def _checkpoint(file: Path) -> Iterator[tuple[str, Any]]:
    content = torch.load(file, map_location="cpu", weights_only=True)
    for key in sorted(content):
        yield from leaves_of(content[key], key, numbers=key in COUNTED)


def _safetensors(file: Path) -> Iterator[tuple[str, Any]]:
    from safetensors.torch import load_file

    yield from sorted(load_file(file).items())


def _metrics(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open(encoding="utf-8", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream)):
            yield from ((f"{number}/{name}", row[name]) for name in sorted(row) if row[name])


def _results(file: Path) -> Iterator[tuple[str, Any]]:
    content = json.loads(file.read_text(encoding="utf-8"))
    if "steps" in content:  # else it is another file
        chosen = (name for name in sorted(content) if name in ("epochs", "steps") or name.startswith(METRICS))
        yield from ((name, content[name]) for name in chosen)


def compare(cases: Sequence[Case], base: Path, threads: int, keep: Path | None = None) -> Counter[str]:
    """Run the cases, print a row for each, and return how many had each outcome.

    Args:
        cases: to run.
        base: the root of the other checkout.
        threads: of torch.
        keep: folder in which everything is left; by default it is removed, case by case.
    """
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        work = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bits_")))
        work = work.resolve()
        a = stack.enter_context(Checkout(base, work / "A", threads))
        b = stack.enter_context(Checkout(ROOT, work / "B", threads))
        make_data(work / "data")
        for checkout in (a, b):
            checkout.check_package()
        print(f"A: {a.root}\nB: {b.root}\n", flush=True)
        places = {
            "DATA": str(work / "data" / "idx"),
            "PICTURES": str(work / "data" / "pictures"),
            "REFERENCE": str(ROOT / "lightning_logs" / "reference" / "version_0"),
        }
        for case in cases:
            begin = time.monotonic()
            outcome, more = run_case(case, a, b, places)
            counts[outcome] += 1
            print(f"{case.name:28} {outcome:16} {time.monotonic() - begin:5.1f} s  {more}".rstrip(), flush=True)
            if keep is None:
                for checkout in (a, b):
                    shutil.rmtree(checkout.case_folder(case), ignore_errors=True)
    return counts


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 if all cases are the same, 1 if not, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bits", description=__doc__)
    parser.add_argument("--base", type=Path, help="the other checkout")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases to run, or beginnings of their names")
    parser.add_argument("--steps", type=int, default=20, help="of a run (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--long", action="store_true", help="also 300 steps of quick, speedrun and record-cpu")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the runs in this new folder")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    options = parser.parse_args(args)
    cases = all_cases(options.steps, options.long)
    if options.only:
        unknown = [name for name in options.only if not any(case.name.startswith(name) for case in cases)]
        if unknown:
            parser.error(f"no case begins with {unknown[0]!r}: --list names them")
        cases = [case for case in cases if case.name.startswith(tuple(options.only))]
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    if options.base is None or not (options.base / "vgg_lightning").is_dir():
        parser.error(f"--base {options.base} is not a checkout of this project")
    if options.keep and options.keep.exists():
        parser.error(f"--keep {options.keep} exists: give a new folder")
    stop_on_sigterm()
    try:
        counts = compare(cases, options.base, options.threads, options.keep)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"\n{len(cases)} cases: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()))
    return 0 if counts[SAME] == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
