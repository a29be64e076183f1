"""`vgg-lightning find lr`: a range test of the learning rate, by Lightning's Tuner, then short trainings.

A range test alone advises badly: the loss at a rate says how the steps before it went, at lower rates, and the rates
of biases and the schedule are not those of the run. So it only says where to begin. What decides are short trainings
of the same network, from the same weights, on the same batches, with the schedule of the run in a nutshell, at rates a
factor of two apart.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.tuner.tuning import Tuner

from vgg_lightning.base.errors import NonFiniteError, UserError
from vgg_lightning.find.finder import epochs_of, ready, scratch, write_plot, write_points
from vgg_lightning.prepare import Run

SKIPPED = 10  # steps at the start, in which the smoothed loss settles
BETA = 0.98  # of Lightning's running average of the loss
MARGIN = 4.0  # how far the first trial stays below a rate that undoes the training
FACTOR = 2.0  # between the rates that are tried
TIE = 0.05  # by how much a loss may be above the lowest one: longer trainings bear a higher rate than short ones
LAST = 0.2  # share of a short training, at its end, whose mean loss counts
MOST = 12  # short trainings
SHOWN = MOST
FALLEN = 0.8  # of the loss of random answers, above which a short training has not begun to learn

Points = list[tuple[float, float]]


def run(options: list[str], folder: Path | None, min_lr: float, max_lr: float, steps: float, trial_steps: float) -> int:
    """Print rates and losses as a table, the suggestion, and the command that uses it; write csv and plot."""
    if min_lr >= max_lr:
        raise UserError(f"--min_lr {min_lr:g} is not below --max_lr {max_lr:g}")
    for name, given in (("steps", steps), ("trial_steps", trial_steps)):
        if given < 3 * SKIPPED:
            raise UserError(f"--{name} {given:g} is too few: use {3 * SKIPPED} or more")
    with scratch() as place:
        run = ready(options, place, int(steps))
        points = range_test(run.model, run.data, run.trainer, min_lr, max_lr, int(steps))
        print(f"{'learning rate':<15}loss after {int(trial_steps)} steps")
        trials = search(start_of(points), lambda lr: _shown(lr, try_rate(options, place, run, lr, int(trial_steps))))
    lr, loss = best_of(trials)
    print(
        f"\nsuggested lr   {lr:.2g}, as the peak of the schedule: the largest rate within {TIE:.0%} of the lowest loss"
    )
    if loss > FALLEN * math.log(run.options["model"]["num_classes"]):
        print("               but the loss has hardly fallen by then: try a larger --trial_steps")
    print(f"use it         vgg-lightning fit {shlex.join([*options, '--model.lr', f'{lr:.2g}'])}")
    if folder is not None:
        print("written       ", write_points(folder, "lr_finder", ["lr", "smoothed_loss"], points[SKIPPED:]))
        print("written       ", write_points(folder, "lr_trials", ["lr", "loss"], trials))
        print("written       ", write_plot(folder, "lr_finder", lambda axes: _draw(axes, points[SKIPPED:], trials)))
    return 0


def search(start: float, loss_of: Callable[[float], float]) -> Points:
    """Return rates, sorted, and their losses: those tried on the way from `start` to the best one.

    Args:
        start: the first rate to try.
        loss_of: returns the loss with a rate; inf if it is not finite.
    """
    tried = {start: loss_of(start)}
    for factor in (FACTOR, 1 / FACTOR):
        lr = start
        while len(tried) < MOST:
            lr *= factor
            lowest = min(tried.values())
            tried[lr] = loss_of(lr)
            if tried[lr] > lowest * (1 + TIE if factor > 1 else 1) or math.isnan(tried[lr]):
                break
    return sorted(tried.items())


def best_of(trials: Points) -> tuple[float, float]:
    """Return the largest rate whose loss is within `TIE` of the lowest one, and that loss.

    Raises:
        UserError: if no loss is finite.
    """
    lowest = min(loss for _, loss in trials)
    if not math.isfinite(lowest):
        raise UserError("find lr: the loss is finite at no rate: lower --min_lr, or look at the network")
    return max((lr, loss) for lr, loss in trials if loss <= lowest * (1 + TIE))


def try_rate(options: list[str], folder: str, run: Run, lr: float, steps: int) -> float:
    """Return the loss at the end of a short training with the schedule of the run; inf if it is not finite.

    Args:
        options: of fit, as on the command line.
        folder: for what is written on the way.
        run: that is to be trained, prepared.
        lr: learning rate.
        steps: of the training.
    """
    trainer, model = run.options["trainer"], run.options["model"]
    accumulated = trainer["accumulate_grad_batches"]
    batches = math.ceil(len(run.data.images("train")[1]) / run.data.hparams["batch_size"])
    epochs = math.ceil(steps * accumulated / batches)
    share = model["warmup_epochs"] / epochs_of(options, batches / accumulated)
    losses = Losses()
    limits = {"max_epochs": epochs, "limit_train_batches": min(batches, math.ceil(steps * accumulated / epochs))}
    rate = {"lr": lr, "warmup_epochs": share * epochs}
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):  # notes of every run
        short = ready(options, folder, steps, rate, limits, [losses])
        try:
            short.trainer.fit(short.model, short.data)
        except NonFiniteError:
            return math.inf
    last = losses.values[-max(1, round(LAST * len(losses.values))) :]
    return statistics.fmean(last)


class Losses(Callback):
    """Keeps the loss of every batch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep one."""
        self.values.append(float(outputs["loss"] if isinstance(outputs, dict) else outputs))


def _shown(lr: float, loss: float) -> float:
    print(f"{lr:<15.2g}{loss:.4f}" if math.isfinite(loss) else f"{lr:<15.2g}not finite", flush=True)
    return loss


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


def start_of(points: Points) -> float:
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


suggestion = start_of  # its name before there were short trainings


def unsmoothed(points: Points) -> list[float]:
    """Return the losses of the single steps, which Lightning gives as a running average, as means of 7 neighbours."""
    averages = [0.0, *(loss * (1 - BETA ** (i + 2)) for i, (_, loss) in enumerate(points))]
    single = [(now - BETA * before) / (1 - BETA) for before, now in itertools.pairwise(averages)]
    return [statistics.fmean(single[max(0, i - 3) : i + 4]) for i in range(len(single))]


def _draw(axes: Any, points: Points, trials: Points) -> None:
    lr, loss = best_of(trials)
    finite = [(rate, value) for rate, value in trials if math.isfinite(value)]
    lowest = min(value for _, value in finite)
    axes.plot(*zip(*points, strict=True), color="silver", label="range test, smoothed: where the trials begin")
    axes.plot(*zip(*finite, strict=True), color="tab:blue", marker="o", label="loss at the end of a short training")
    axes.axhspan(lowest, lowest * (1 + TIE), color="tab:blue", alpha=0.15, label=f"within {TIE:.0%} of the lowest")
    axes.plot(lr, loss, color="tab:red", marker="o", markersize=11, linestyle="", label=f"suggested: {lr:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.set_ylim(0.9 * lowest, min(max(value for _, value in [*points, *finite]), 2 * points[0][1]) * 1.05)
    axes.legend()
