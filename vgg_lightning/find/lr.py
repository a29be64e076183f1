"""`vgg-lightning find lr`: a range test of the learning rate, by Lightning's Tuner."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.tuner.tuning import Tuner

from vgg_lightning.base import text as render
from vgg_lightning.base.errors import UserError
from vgg_lightning.find.finder import ready, scratch, write_plot, write_points

SKIPPED = 10  # steps at the start, in which the smoothed loss settles
SHOWN = 12  # rows of the table
BETA = 0.98  # of Lightning's running average of the loss
MARGIN = 4.0  # how far the suggestion stays below a rate that undoes the training

Points = list[tuple[float, float]]


def run(options: list[str], folder: Path | None, min_lr: float, max_lr: float, steps: float) -> int:
    """Print rate and loss as a table, the suggestion, and the command that uses it; write csv and plot."""
    if min_lr >= max_lr:
        raise UserError(f"--min_lr {min_lr:g} is not below --max_lr {max_lr:g}")
    if steps < 3 * SKIPPED:
        raise UserError(f"--steps {steps:g} is too few: use {3 * SKIPPED} or more")
    with scratch() as place:
        run = ready(options, place, int(steps))
        points = range_test(run.model, run.data, run.trainer, min_lr, max_lr, int(steps))
    lr = suggestion(points)
    shown = points[SKIPPED :: max(1, (len(points) - SKIPPED) // SHOWN)]
    print(render.table(["learning rate", "smoothed loss"], [[f"{rate:.2g}", f"{loss:.4f}"] for rate, loss in shown]))
    print(f"\nsuggested lr   {lr:.2g}, as the peak of the schedule")
    print(f"use it         vgg-lightning fit {shlex.join([*options, '--model.lr', f'{lr:.2g}'])}")
    if folder is not None:
        print("written       ", write_points(folder, "lr_finder", ["lr", "smoothed_loss"], points))
        print("written       ", write_plot(folder, "lr_finder", lambda axes: _draw(axes, points, lr)))
    return 0


def range_test(
    model: L.LightningModule, data: L.LightningDataModule, trainer: L.Trainer, min_lr: float, max_lr: float, steps: int
) -> Points:
    """Return rate and smoothed loss of every step; model, optimizer and data are left as they were.

    It ends when the loss is four times the lowest one. Averages of the weights have no part in it.

    Args:
        model: to train for the test.
        data: to train on.
        trainer: without logger and checkpoints.
        min_lr: the first rate.
        max_lr: the last rate; in between it grows by the same factor with every step.
        steps: their number.
    """
    # Lightning's bar is for a terminal; elsewhere it is noise.
    screen: contextlib.AbstractContextManager[Any]
    screen = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    with screen:
        finder = Tuner(trainer).lr_find(
            model, datamodule=data, min_lr=min_lr, max_lr=max_lr, num_training=steps, update_attr=False
        )
    assert finder is not None
    found = zip(finder.results["lr"], finder.results["loss"], strict=False)
    return [(float(lr), float(loss)) for lr, loss in found if math.isfinite(loss)]


def suggestion(points: Points) -> float:
    """Return the rate at which the smoothed loss is lowest, or a quarter of the one that undoes the training if less.

    The loss is smoothed over some 50 steps, so this is the rate up to which training has gone well for a while;
    without BatchNorm that can be just below the rate that undoes it, which no run survives for long.

    Raises:
        UserError: if the loss never falls.
    """
    rates, losses = [rate for rate, _ in points[SKIPPED:]], [loss for _, loss in points[SKIPPED:]]
    if len(losses) < SKIPPED or min(losses) > 0.98 * losses[0]:
        raise UserError("find lr: the loss falls at no rate: raise --max_lr or --steps, or look at the network")
    lowest = losses.index(min(losses))
    undone = (rate for (rate, _), loss in zip(points, unsmoothed(points), strict=True) if loss > losses[0])
    edge = next((rate for rate in undone if rate > rates[lowest]), math.inf)
    return float(min(rates[lowest], edge / MARGIN))


def unsmoothed(points: Points) -> list[float]:
    """Return the losses of the single steps, which Lightning gives as a running average, as means of 7 neighbours."""
    averages = [0.0, *(loss * (1 - BETA ** (i + 2)) for i, (_, loss) in enumerate(points))]
    single = [(now - BETA * before) / (1 - BETA) for before, now in itertools.pairwise(averages)]
    return [statistics.fmean(single[max(0, i - 3) : i + 4]) for i in range(len(single))]


def _draw(axes: Any, points: Points, lr: float) -> None:
    rates, losses = zip(*points, strict=True)
    axes.plot(rates, losses)
    axes.axvline(lr, color="tab:red", linestyle="--", label=f"suggested: {lr:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed training loss")
    axes.set_ylim(min(losses) * 0.9, min(max(losses[SKIPPED:]), 2 * losses[SKIPPED]) * 1.05)
    axes.legend()
