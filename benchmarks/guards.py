"""What the guards of a run cost: `python -m benchmarks.guards`.

An epoch of `quick`, validation and checkpoints included, is trained with its guards and without them, in turn and in
one process, after a short run that warms up. A round is a pair of both, and begins with the other one than the round
before; the share is the median over the rounds of (with - without) / without, so that a machine that slows down slows
both. Left out in one run of a pair: the look at losses, gradients and weights, the note on chance accuracy, the looks
at loaders and at what is restored, the lock of the folder, seals and read-back of checkpoints, and the checks of
options, space and memory before the run. The result goes into results/guards.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import TorchCheckpointIO

from benchmarks.machine import OtherWork, processor
from benchmarks.runner import RESULTS, in_words
from benchmarks.table import Table
from vgg_lightning import prepare as runs
from vgg_lightning.base.versions import versions
from vgg_lightning.presets import presets
from vgg_lightning.run.lock import FolderLock

COLUMNS = (
    *("preset", "batches", "seconds_with", "seconds_without", "share", "share_least", "share_most"),
    *("rounds", "threads", "quiet", "device", "versions", "command"),
)


def _nothing(*_: Any, **__: Any) -> None:
    """Check nothing."""


def _none(name: str) -> type[Callback]:
    return type(f"No{name}", (Callback,), {"__init__": _nothing})


# What is put in the place of each guard, by the name under which a run finds it.
GUARDS: dict[str, Any] = {
    **{f"training.recipe.{name}": _none(name) for name in ("FiniteGuard", "ChanceNote", "LoaderNote")},
    "run.kit.Restoring": _none("Restoring"),
    "prepare.folder.FolderLock": partial(FolderLock, free=True),
    "prepare.trainer.VerifiedCheckpointIO": TorchCheckpointIO,
    **{f"prepare.folder.{name}": _nothing for name in ("check_writable", "check_space")},
    **{f"prepare.{name}": _nothing for name in ("check_limits", "check_processes", "check_sharded")},
    "prepare.data.check_training_fits": lambda *_: 0,
    **{f"prepare.options.{name}": _nothing for name in ("check_run", "check_trainer")},
    "prepare.options.notes": lambda *_: [],
}


@contextlib.contextmanager
def without_guards() -> Iterator[None]:
    """Let runs that are prepared and fitted within have no guards."""
    with contextlib.ExitStack() as stack:
        for name, instead in GUARDS.items():
            stack.enter_context(mock.patch(f"vgg_lightning.{name}", instead))
        yield


def seconds_of(preset: str, batches: int | None, guarded: bool, data: dict[str, Any]) -> float:
    """Train one epoch in a folder of its own, and return the seconds from its options to its end.

    Args:
        preset: its name.
        batches: of the epoch; None for all.
        guarded: whether with guards.
        data: options of the data in place of the preset's.
    """
    recipe = yaml.safe_load(presets()[preset].read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        trainer = {**recipe["trainer"], "max_epochs": 1, "accelerator": "cpu", "default_root_dir": folder}
        trainer |= {"limit_train_batches": batches, "enable_progress_bar": False}
        for stream in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            stack.enter_context(stream(io.StringIO()))
        stack.enter_context(contextlib.nullcontext() if guarded else without_guards())
        begin = time.perf_counter()
        options = {**recipe["data"], **data}
        runs.fit(runs.prepare(recipe["model"], options, trainer=trainer, name="guards", seed=0, test=False))
        return time.perf_counter() - begin


def measure(
    preset: str, batches: int | None, rounds: int, data: dict[str, Any], say: Callable[[str], None] = print
) -> dict[str, str]:
    """Return the row of a preset."""
    seconds_of(preset, min(batches or 10, 10), True, data)
    watch, pairs = OtherWork(), []
    for number in range(rounds):
        order = (True, False) if number % 2 else (False, True)
        took = {guarded: seconds_of(preset, batches, guarded, data) for guarded in order}
        pairs.append((took[True], took[False]))
        say(f"round {number + 1} of {rounds}: {took[True]:.2f} s with guards, {took[False]:.2f} s without")
    shares = [with_guards / without - 1 for with_guards, without in pairs]
    medians = [statistics.median(seconds) for seconds in zip(*pairs, strict=True)]
    figures = (statistics.median(shares), min(shares), max(shares))
    share, least, most = (f"{figure:.4f}" for figure in figures)
    options = f"{preset} --batches {batches}" if batches else preset
    return {
        **{"preset": preset, "batches": str(batches or "all"), "rounds": str(rounds)},
        **{"seconds_with": f"{medians[0]:.3f}", "seconds_without": f"{medians[1]:.3f}"},
        **{"share": share, "share_least": least, "share_most": most},
        **{"threads": str(torch.get_num_threads()), "quiet": watch.quiet(), "device": processor()},
        **{"versions": in_words(versions()), "command": f"python -m benchmarks.guards {options} --rounds {rounds}"},
    }


def main(args: list[str] | None = None) -> int:
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset", nargs="?", default="quick")
    parser.add_argument("--batches", type=int, help="Of the epoch; all if not given.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--table", type=Path, default=RESULTS / "guards.csv")
    parser.add_argument("--data_dir", help="Where IDX files lie that take the place of Fashion-MNIST.")
    options = parser.parse_args(args)
    data = {"dataset": "idx", "data_dir": options.data_dir} if options.data_dir else {}
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    row = measure(options.preset, options.batches, options.rounds, data)
    Table(options.table, COLUMNS, ("preset", "batches")).put([row])
    share, least, most = (100 * float(row[name]) for name in ("share", "share_least", "share_most"))
    both = f"{row['seconds_with']} s with guards, {row['seconds_without']} s without"
    print(f"{row['preset']}: {share:.2f} % ({least:.2f} to {most:.2f} %), {both}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
