"""What a run does by its options, worked out without the package: steps, epochs, examples, validations, learning rates.

All functions take the options as on the command line: {"--trainer.max_epochs": "2", ...}.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

Options = dict[str, str]
Place = tuple[int, int]  # step and epoch, both from 0


class Sizes(NamedTuple):
    """How many images a data set has to train on and to test."""

    train: int
    test: int


class Run(NamedTuple):
    """What a run has done at its end."""

    steps: int
    epochs: list[int]  # the examples of each one, of which the last may end early
    ends: list[Place]  # of the epochs: where their means are logged
    validations: list[Place]  # the step is that to which the batch before belongs
    validated: list[int]  # how many steps each validation has behind it
    groups: list[list[int]]  # of the batches of each step, how many examples they have


def value(options: Options, name: str, default: Any = None) -> Any:
    """Return the value of an option, as YAML reads it."""
    return yaml.safe_load(options[name]) if name in options else default


def batches(options: Options, split: str, examples: int) -> list[int]:
    """Return how many examples the batches of a split have that are read."""
    size, limit = value(options, "--data.batch_size"), value(options, f"--trainer.limit_{split}_batches", 1.0)
    all_of_them = [min(size, examples - begin) for begin in range(0, examples, size)]
    return all_of_them[: int(len(all_of_them) * limit) if isinstance(limit, float) else limit]


def train_batches(options: Options, sizes: Sizes) -> list[int]:
    return batches(options, "train", sizes.train - value(options, "--data.val_size"))


def val_batches(options: Options) -> list[int]:
    return batches(options, "val", value(options, "--data.val_size"))


def test_batches(options: Options, sizes: Sizes) -> list[int]:
    return batches(options, "test", sizes.test)


def steps_of_an_epoch(options: Options, sizes: Sizes) -> int:
    return math.ceil(len(train_batches(options, sizes)) / value(options, "--trainer.accumulate_grad_batches", 1))


def max_seconds(options: Options) -> int:
    """Return how many batches a run may take, one a second; with two processes the clock is the real one."""
    if "--trainer.max_time" not in options or options["--trainer.devices"] == "2":
        return -1
    days, hours, minutes, seconds = map(int, options["--trainer.max_time"].split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def is_refused(options: Options, sizes: Sizes) -> bool:
    """Return whether no run can do what is asked for."""
    count, every = len(train_batches(options, sizes)), value(options, "--trainer.val_check_interval", 1.0)
    splits = {"train": sizes.train - value(options, "--data.val_size"), "val": value(options, "--data.val_size")}
    splits |= {"test": sizes.test}
    none_of_some = any(
        value(options, f"--trainer.limit_{split}_batches", 1.0) and examples and not batches(options, split, examples)
        for split, examples in splits.items()
    )
    half = value(options, "--trainer.precision") in ("bf16-true", "16-true")
    return (
        none_of_some
        or (half and ("--model.ema_decay" in options or "--model.sam_rho" in options))  # too small for it to tell
        or ("--model.sam_rho" in options and value(options, "--trainer.accumulate_grad_batches", 1) > 1)
        or ("--early_stopping" in options and not val_batches(options))
        or (isinstance(every, int) and every > count and options.get("--trainer.limit_val_batches") != "0")
    )


def run(options: Options, sizes: Sizes, accuracies: Sequence[float]) -> Run:
    """Return what a run has done at its end.

    Args:
        options: of the run.
        sizes: of the data set.
        accuracies: on the validation images, one for each validation. Only early stopping asks for them.
    """
    each, accumulate = train_batches(options, sizes), value(options, "--trainer.accumulate_grad_batches", 1)
    epochs, max_steps = value(options, "--trainer.max_epochs"), value(options, "--trainer.max_steps", -1)
    interval, nth = (
        value(options, "--trainer.val_check_interval", 1.0),
        value(options, "--trainer.check_val_every_n_epoch", 1),
    )
    every = max(1, int(interval * len(each)) if isinstance(interval, float) else interval)
    patience, limit = value(options, "--early_stopping", 0), max_seconds(options)
    seconds = limit
    done = Run(0, [], [], [], [], [])
    steps, stop, group = 0, False, []
    while not stop and len(done.epochs) != epochs and steps != max_steps:
        epoch = len(done.epochs)
        done.epochs.append(0)
        for i, examples in enumerate(each):
            done.epochs[-1] += examples
            group.append(examples)
            step = steps
            if (i + 1) % accumulate == 0 or i + 1 == len(each):
                steps += 1
                done.groups.append(group)
                group = []
            seconds -= 1
            stop = seconds <= 0 <= limit and not group  # not amid the gradients of a step
            if val_batches(options) and (epoch + 1) % nth == 0 and ((i + 1) % every == 0 or stop):
                done.validations.append((step, epoch))
                done.validated.append(steps)
                seen = accuracies[: len(done.validations)]
                stop = stop or bool(patience and len(seen) - 1 - seen.index(max(seen)) >= patience)
            if steps == max_steps or stop:
                break
        done.ends.append((max(steps - 1, 0), epoch))
    return done._replace(steps=steps)


def rates(options: Options, sizes: Sizes, steps: int) -> list[float]:
    """Return the learning rate of the weights in each step."""
    epoch = steps_of_an_epoch(options, sizes)
    epochs, max_steps = value(options, "--trainer.max_epochs"), value(options, "--trainer.max_steps", -1)
    total = min(limit for limit in (epochs * epoch, max_steps) if limit > 0)
    warm_up = round(value(options, "--model.warmup_epochs", 0.0) * epoch)
    end, schedule = value(options, "--model.schedule_end", 0.0), options.get("--model.schedule", "constant")
    found = []
    for step in range(steps):
        progress = (step - warm_up) / max(total - warm_up, 1)
        fall = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[schedule]
        share = (step + 1) / (warm_up + 1) if step < warm_up else end + (1 - end) * fall
        found.append(value(options, "--model.lr") * share)
    return found
