"""Runs draws and collects what does not hold of them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import struct
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import arithmetic
import harness
import numpy as np
import small
import torch
from arithmetic import Options, Sizes
from draws import Draw
from lightning.pytorch.callbacks import timer
from PIL import Image

from vgg_lightning.classifier import Classifier
from vgg_lightning.run.checkpoints.io import VerifiedCheckpointIO

SIZES = {"idx": Sizes(150, 44), "folder": Sizes(45, 18)}
SIGNALS = {signal.SIGTERM: 143, signal.SIGUSR1: 138}
Rows = list[dict[str, str]]


def make_data(folder: Path) -> Path:
    """Write two small data sets that are easy to learn: `idx` of 10 classes, and `folder` of 3."""
    chance = np.random.default_rng(0)

    def images(labels: Any) -> Any:
        found = chance.integers(0, 120, (len(labels), 28, 28)).astype(np.uint8)
        for image, label in zip(found, labels, strict=True):
            image[:, 2 * label : 2 * label + 4] += 90
        return found

    (folder / "idx").mkdir(parents=True)
    for split, name, count in (("train", "train", SIZES["idx"].train), ("test", "t10k", SIZES["idx"].test)):
        labels = np.arange(count) % 10
        head = struct.pack(">4I", 0x803, count, 28, 28)
        (folder / "idx" / f"{name}-images-idx3-ubyte").write_bytes(head + images(labels).tobytes())
        head = struct.pack(">2I", 0x801, count)
        (folder / "idx" / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())
        labels = np.arange(getattr(SIZES["folder"], split)) % 3
        for i, image in enumerate(images(3 * labels)):
            place = folder / "folder" / split / "abc"[labels[i]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - image).resize((28 + 2 * (i % 4), 30)).save(place / f"{i}.png")
    return folder


class Runner:
    """Runs draws in a folder.

    Args:
        folder: for data and runs.
        ranks: runs a command in two processes, given a folder, arguments, and what else `ranks.py` is asked for;
            returns exit code and output.
    """

    def __init__(self, folder: Path, ranks: Callable[[Path, list[str], dict[str, Any]], tuple[int, str]]) -> None:
        self.folder, self.ranks = folder, ranks
        self.data = make_data(folder / "data")
        self.teacher = functools.cache(self._teacher)

    def examine(self, draw: Draw) -> tuple[bool, list[str]]:
        """Return whether a draw was refused, and what does not hold of it."""
        folder = self.folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        options = self.with_paths(draw)
        try:
            return self._examine(draw, options, folder)
        except Exception:  # such as a file that is not there
            return False, [traceback.format_exc()[-1500:]]

    def _examine(self, draw: Draw, options: Options, folder: Path) -> tuple[bool, list[str]]:
        sizes = SIZES[options["--data.dataset"]]
        two = options["--trainer.devices"] == "2"
        (folder / "whole").mkdir()
        if arithmetic.is_refused(options, sizes):
            return True, list(refusal(folder / "whole", *self.launch(folder / "whole", options)))
        if "--model.compile" in options:
            torch.compiler.reset()  # which compiles the same function only so many times in a process
        request = {"snapshots": str(folder / "snapshots")} if two else {}
        with spied() as seen, snapshots(folder / "snapshots"):
            code, text = self.launch(folder / "whole", options, **request)
        if code:
            return code == 2, [f"exit code {code}: {text[-1500:]}"]
        whole = harness.only_run(folder / "whole")
        found = [*counts(whole, options, sizes), *([] if two else images_seen(seen, options, sizes, whole))]
        found += self.agreement(whole, options)
        if two:
            (folder / "one").mkdir()
            one = {name: given for name, given in options.items() if name != "--trainer.max_time"}  # see max_seconds
            self.launch(folder / "one", one | {"--trainer.devices": "1"})
            found += same_to_rounding(harness.only_run(folder / "one"), whole, options)
        if "resume" in draw.values:
            found += self.resumed(draw, options, folder, whole)
        return False, found

    def with_paths(self, draw: Draw) -> Options:
        """Return all options of a draw."""
        options = draw.arguments()
        options["--data.data_dir"] = str(self.data / options["--data.dataset"])
        if "--model.distill" in options:
            names = ("--data.dataset", "--data.image_size", "--model.in_channels", "--data.normalize")
            of_data = {"--data.image_size": "32"} | {name: options[name] for name in names if name in options}
            options["--model.teacher"] = self.teacher(tuple(of_data.items()))
        return options

    def _teacher(self, data: tuple[tuple[str, str], ...]) -> str:
        folder = self.folder / f"teacher_{len(list(self.folder.glob('teacher_*')))}"
        folder.mkdir()
        options = {**Draw("lenet", {}, 0).arguments(), **dict(data), "--data.val_size": "12", "--test": "false"}
        options |= {"--data.data_dir": str(self.data / options["--data.dataset"]), "--model.lr": "0.2"}
        code, text = self.launch(folder, options)
        assert code == 0, text
        return str(harness.only_run(folder))

    def launch(self, folder: Path, options: Options, subcommand: str = "fit", **request: Any) -> tuple[int, str]:
        """Run a subcommand to its end; return its exit code and what it printed."""
        first = ["--config", "{}"] if subcommand == "fit" else []  # {}: no preset
        args = [subcommand, *first, *itertools.chain.from_iterable(options.items())]
        if options.get("--trainer.devices") == "2":
            return self.ranks(folder, args, request)
        with seconds_by_batch():
            launched = small.launch(args, folder)
        return launched.code, launched.out + launched.err

    def agreement(self, run: Path, options: Options) -> Iterator[str]:
        """Yield what validate and test say of the best checkpoint that fit says otherwise."""
        results = json.loads((run / "results.json").read_text())
        accuracies = column(harness.rows(run / "metrics.csv"), "val_acc")
        names = ("limit_val_batches", "limit_test_batches", "accelerator", "enable_progress_bar")
        names = ("--data.data_dir", *(f"--trainer.{name}" for name in names))
        kept = {name: options[name] for name in names if name in options} | {"--trainer.devices": "1"}
        if accuracies:
            best = run / "checkpoints" / "best.ckpt"
            _, text = self.launch(run, {"--ckpt_path": str(best), **kept}, "validate")
            yield from unequal("validate of best.ckpt", printed(text, "validation"), percent(max(accuracies)))
            yield from unequal("val_acc in results.json", results["val_acc"], max(accuracies))
        if options.get("--test") == "false":
            yield from unequal("test_acc without a test", results["test_acc"], None)
            return
        yield from unequal("checkpoint", results["checkpoint"], f"checkpoints/{'best' if accuracies else 'last'}.ckpt")
        _, text = self.launch(run, {"--ckpt_path": str(run / results["checkpoint"]), **kept}, "test")
        yield from unequal("test of the checkpoint", printed(text, "test accuracy"), percent(results["test_acc"]))
        loss = printed(text, "test loss")
        if abs(float(loss) - results["test_loss"]) > 6e-5:  # it is printed with four digits
            yield f"loss of the test of the checkpoint: {loss}, expected {results['test_loss']}"

    def resumed(self, draw: Draw, options: Options, folder: Path, whole: Path) -> Iterator[str]:
        """Break a run, resume it, and yield what differs from the whole one."""
        chance = random.Random(draw.seed)
        if draw.values["resume"] == "stopped by a signal":
            signum, step = chance.choice(list(SIGNALS)), chance.randint(1, batches_of(whole, options))
            (folder / "broken").mkdir()
            code, text = self.stopped(folder / "broken", options, step, signum)
            print(f"stopped by {signum.name} in batch {step}")
            yield from unequal(f"exit code after {signum.name} in batch {step}", code, SIGNALS[signum])
            yield from unequal("what is said of it", "saved after step" in text, True)
            run = harness.only_run(folder / "broken")
        else:
            run = folder / "broken" / "lightning_logs" / "draw" / "version_0"
            chosen = chance.choice(sorted((folder / "snapshots").iterdir()))
            print(f"killed after {chosen.name} was written")
            shutil.copytree(chosen, run)
        code, text = self.launch(run, options | {"--ckpt_path": str(run)})
        if code:
            yield f"exit code of the resumed run {code}: {text[-1500:]}"
            return
        if 0 < arithmetic.max_seconds(options) <= batches_of(whole, options):
            return  # max_time is that of a launch, so the resumed run goes further
        differences = harness.differences(harness.everything(whole), harness.everything(run))
        yield from (f"resumed {place}" for place in differences)

    def stopped(self, folder: Path, options: Options, step: int, signum: signal.Signals) -> tuple[int, str]:
        """Send a run a signal within so manyth call of training_step."""
        if options["--trainer.devices"] == "2":
            return self.launch(folder, options, at={"hook": "training_step", "count": step, "signal": signum})
        with striking(step, signum):
            return self.launch(folder, options)


@contextlib.contextmanager
def patched(owner: type, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let `function(original, *args)` take the place of a method for a while."""
    original = getattr(owner, name)
    with patched_name(owner, name, lambda *args, **kwargs: function(original, *args, **kwargs)):
        yield


@contextlib.contextmanager
def patched_name(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Let a value take the place of another for a while."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


class Clock:
    """A clock that stands still unless a test moves it."""

    def __init__(self) -> None:
        self.seconds = 0

    def monotonic(self) -> int:
        return self.seconds


@contextlib.contextmanager
def seconds_by_batch() -> Iterator[None]:
    """Let max_time count a second for every batch, whatever the machine takes for it."""
    clock = Clock()

    def training_step(original: Any, self: Classifier, *args: Any) -> Any:
        clock.seconds += not self.sharpness.again
        return original(self, *args)

    with patched(Classifier, "training_step", training_step), patched_name(timer, "time", clock):
        yield


@contextlib.contextmanager
def spied() -> Iterator[dict[str, list[Any]]]:
    """Note which images are trained on, and how many are in the batches that are validated and tested."""
    seen: dict[str, list[Any]] = {"train": [], "val": [], "test": []}

    def training_step(original: Any, self: Classifier, batch: Any, index: int) -> Any:
        if not self.sharpness.again:
            seen["train"].append((batch.epoch, batch.indices[: batch.share.own].tolist()))
        return original(self, batch, index)

    def evaluate(original: Any, self: Classifier, batch: Any, index: int) -> Any:
        seen["test" if self.trainer.testing else "val"].append(len(batch.labels))
        return original(self, batch, index)

    with (
        patched(Classifier, "training_step", training_step),
        patched(Classifier, "validation_step", evaluate),
        patched(Classifier, "test_step", evaluate),
    ):
        yield seen


@contextlib.contextmanager
def snapshots(folder: Path) -> Iterator[None]:
    """Copy the run folder after every checkpoint: what a kill at that moment would leave."""
    numbers = itertools.count()

    def save(original: Any, self: Any, checkpoint: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        original(self, checkpoint, path, *args, **kwargs)
        shutil.copytree(Path(path).parent.parent, folder / f"{next(numbers):03}_{Path(path).stem}")

    with patched(VerifiedCheckpointIO, "save_checkpoint", save):
        yield


@contextlib.contextmanager
def striking(count: int, signum: signal.Signals) -> Iterator[None]:
    """Send this process a signal within so manyth training step."""
    calls = itertools.count(1)

    def training_step(original: Any, *args: Any) -> Any:
        if next(calls) == count:
            os.kill(os.getpid(), signum)
        return original(*args)

    with patched(Classifier, "training_step", training_step):
        yield


# What must hold. All of these yield what does not.


def batches_of(run: Path, options: Options) -> int:
    """Return how many batches a finished run has trained on."""
    accuracies = column(harness.rows(run / "metrics.csv"), "val_acc")
    return sum(map(len, arithmetic.run(options, SIZES[options["--data.dataset"]], accuracies).groups))


def unequal(what: str, found: Any, expected: Any) -> Iterator[str]:
    near = isinstance(found, float) and isinstance(expected, float)
    if not (math.isclose(found, expected, rel_tol=1e-6) if near else found == expected):
        yield f"{what}: {found}, expected {expected}"


def column(rows: Rows, name: str) -> list[float]:
    return [float(row[name]) for row in rows if name in row]


def places(rows: Rows, name: str) -> list[tuple[int, int]]:
    return [(int(row["step"]), int(row["epoch"])) for row in rows if name in row]


def printed(text: str, name: str) -> str:
    """Return the number behind a name at the beginning of a line."""
    found = re.search(rf"^{name} +([\d.]+)", text, re.MULTILINE)
    return found[1] if found else f"nothing in {text[-500:]}"


def percent(accuracy: float) -> str:
    return f"{100 * accuracy:.2f}"


def refusal(folder: Path, code: int, text: str) -> Iterator[str]:
    """A run that cannot be is refused in one line with code 2, and leaves no folder."""
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    if code != 2 or len(lines) != 1 or "Traceback" in text:
        yield f"not refused, or not in one line; exit code {code}: {text[-1500:]}"
    if (folder / "lightning_logs").exists():
        yield f"the refusal leaves {[str(path.relative_to(folder)) for path in folder.rglob('*')]}"


def counts(run: Path, options: Options, sizes: Sizes) -> Iterator[str]:
    """Steps, epochs, examples, validations, rows of metrics.csv and learning rates are those of the arithmetic."""
    results, rows = json.loads((run / "results.json").read_text()), harness.rows(run / "metrics.csv")
    accuracies = column(rows, "val_acc")
    last = harness.essence(run / "checkpoints" / "last.ckpt")
    expected = arithmetic.run(options, sizes, accuracies)
    yield from unequal("steps", results["steps"], expected.steps)
    whole = sum(arithmetic.train_batches(options, sizes))
    yield from unequal("whole epochs", results["epochs"], sum(examples == whole for examples in expected.epochs))
    yield from unequal("steps of last.ckpt", last["global_step"], expected.steps)
    (report,) = (state for key, state in last["callbacks"].items() if key.startswith("RunReport"))
    yield from unequal("examples", report["examples"], sum(expected.epochs))
    yield from unequal("validations", places(rows, "val_acc"), expected.validations)
    yield from unequal("ends of epochs", places(rows, "train_acc"), expected.ends)
    every = arithmetic.value(options, "--trainer.log_every_n_steps")
    logged = [step for step in range(expected.steps) if (step + 1) % every == 0]
    losses = [step for step, _ in places(rows, "train_loss_step")]
    if arithmetic.max_seconds(options) > 0 and losses[-1:] == [expected.steps - 1] != logged[-1:]:
        losses.pop()  # Lightning logs the step at which a run is told to stop
    yield from unequal("logged steps", losses, logged)
    name = next((name for row in rows for name in row if name.startswith("lr-")), "none")
    found = [(int(row["step"]), float(row[name])) for row in rows if name in row]
    yield from unequal("steps with a learning rate", [step for step, _ in found], logged)
    rates = arithmetic.rates(options, sizes, expected.steps)
    for step, rate in found:
        yield from unequal(f"learning rate of step {step}", rate, rates[step] if step < len(rates) else None)
    tested = options.get("--test") != "false"
    yield from unequal("tests", [step for step, _ in places(rows, "test_acc")], [expected.steps] if tested else [])
    validated, examples = sum(arithmetic.val_batches(options)), sum(arithmetic.test_batches(options, sizes))
    right = [(column(rows, "train_acc"), expected.epochs), (accuracies, [validated] * len(accuracies))]
    right += [(column(rows, "test_acc"), [examples])]
    for found_accuracies, examples in right:
        for accuracy, number in zip(found_accuracies, examples, strict=False):
            if abs(accuracy * number - round(accuracy * number)) > 1e-3:
                yield f"accuracy {accuracy} of {number} examples"
    views = [name for name in ("val_acc_tta", "test_acc_tta") if name in results]
    asked = ["val_acc_tta"] * bool(accuracies) + ["test_acc_tta"] * tested if "--model.tta" in options else []
    yield from unequal("accuracies with test-time augmentation", views, asked)
    if accuracies:
        best = harness.essence(run / "checkpoints" / "best.ckpt")
        first = accuracies.index(max(accuracies))  # of several equal ones
        place = expected.validated[first], expected.validations[first][1]
        yield from unequal("steps and epoch of best.ckpt", (best["global_step"], best["epoch"]), place)
    elif (run / "checkpoints" / "best.ckpt").exists():
        yield "best.ckpt without a validation"


def images_seen(seen: dict[str, list[Any]], options: Options, sizes: Sizes, run: Path) -> Iterator[str]:
    """Each image is trained on once an epoch, and all that are asked for are validated and tested."""
    accuracies = column(harness.rows(run / "metrics.csv"), "val_acc")
    expected = arithmetic.run(options, sizes, accuracies)
    for epoch, examples in enumerate(expected.epochs):
        trained = [index for number, indices in seen["train"] if number == epoch for index in indices]
        yield from unequal(f"images of epoch {epoch}", (len(trained), len(set(trained))), (examples, examples))
    validated = arithmetic.val_batches(options) * len(expected.validations)
    yield from unequal("batches of validation", seen["val"], validated)
    tested = arithmetic.test_batches(options, sizes) if options.get("--test") != "false" else []
    yield from unequal("batches of the test", seen["test"], tested)


def same_to_rounding(one: Path, two: Path, options: Options) -> Iterator[str]:
    """Two processes learn what one learns, where chance and the precision allow to tell."""
    a, b = harness.everything(one), harness.everything(two)
    for name in ("steps", "epochs"):
        yield from unequal(f"{name} of two processes", b["results"][name], a["results"][name])
    by_chance = options.get("--data.augment", "[]") not in ("[]", "[alternating_flip]")
    if by_chance or options.get("--trainer.precision", "32-true").startswith("bf16"):
        return
    near = 1e-9 if options.get("--trainer.precision") == "64-true" else 2e-3
    for name, weight in a["last"]["state_dict"].items():
        far = float((b["last"]["state_dict"][name].double() - weight.double()).abs().max())
        if far > near:
            yield f"{name} of two processes: {far} away"
