"""The results of a search: a table, trials.csv, TensorBoard's HPARAMS tab, and the best configuration as a preset."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from vgg_lightning.base import text as render
from vgg_lightning.base.files import write_whole
from vgg_lightning.run.tensorboard_private import add_summary
from vgg_lightning.sweep.space import argument
from vgg_lightning.sweep.study import trials

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def ranked(study: Study) -> list[FrozenTrial]:
    """Return the trials: complete ones, best first, then those that were pruned, then the rest."""
    order = list(STATES)
    return sorted(trials(study), key=lambda t: (order.index(t.state), -(t.value or 0.0), t.number))


def best_of(study: Study) -> FrozenTrial | None:
    """Return the complete trial with the highest val_acc, the earliest of equals."""
    return next((trial for trial in ranked(study) if trial.state == TrialState.COMPLETE), None)


def chosen(params: dict[str, Any]) -> str:
    """Return the values of a trial in one line."""
    return ", ".join(f"{name} {_short(params[full])}" for name, full in zip(_brief([*params]), params, strict=True))


def epochs_of(trial: FrozenTrial) -> int:
    """Return the number of epochs that were validated."""
    return int(trial.user_attrs.get("epochs") or len(trial.intermediate_values))


def table(study: Study) -> str:
    """Return the trials as a table for a screen of 100 columns, best first."""
    names = _names(study)
    rows = [
        (
            str(trial.number),
            STATES[trial.state],
            None if trial.value is None else f"{trial.value:.4f}",
            str(epochs_of(trial)),
            *(_short(trial.params[name]) if name in trial.params else None for name in names),
        )
        for trial in ranked(study)
    ]
    header = ("trial", "state", "val_acc", "epochs", *_brief(names))
    return render.narrow_table(header, rows, render.WIDTH, "trials.csv")


def write_csv(study: Study, file: Path) -> None:
    """Write the same with more columns and digits."""
    names = _names(study)
    header = ("trial", "state", "val_acc", "epochs", "seconds", *names, "run_folder", "note")
    rows = [
        (
            trial.number,
            STATES[trial.state],
            trial.value,
            epochs_of(trial),
            trial.user_attrs.get("seconds"),
            *(trial.params.get(name) for name in names),
            trial.user_attrs.get("run_folder"),
            trial.user_attrs.get("note"),
        )
        for trial in ranked(study)
    ]
    write_whole(file, render.csv_text(header, rows) + "\n")


def write_hparams(study: Study, folder: Path) -> None:
    """Write for each trial what TensorBoard's HPARAMS tab shows: the options searched, best val_acc, epochs, its curve.

    They have a folder of their own, since TensorBoard takes the columns of one run for all.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for trial in trials(study):
        if not trial.intermediate_values:
            continue
        curve = sorted(trial.intermediate_values.items())
        best = max(trial.value or 0.0, *trial.intermediate_values.values())
        metrics: dict[str, float] = {"best_val_acc": best, "epochs": epochs_of(trial)}
        values = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in trial.params.items()}
        with SummaryWriter(folder / f"trial_{trial.number}") as writer:
            for summary in hparams(values, metrics):  # type: ignore[no-untyped-call]
                add_summary(writer, summary)
            for step, value in curve:
                writer.add_scalar("val_acc", value, step)
            for name, value in metrics.items():
                writer.add_scalar(name, value, 0)


def write_preset(study: Study, best: FrozenTrial, options: dict[str, Any], file: Path) -> None:
    """Write the best configuration in the form of a preset.

    Args:
        study: from which it comes.
        best: the trial.
        options: what differs from the defaults, by group.
        file: where to.
    """
    found = trials(study)
    counts = ", ".join(
        f"{number} {name}" for state, name in STATES.items() if (number := sum(t.state == state for t in found))
    )
    attrs = best.user_attrs
    lines = [
        f"# The best of {len(found)} trials of the search {study.study_name} ({counts}): {chosen(best.params)}.",
        f"# command: vgg-lightning fit --config {_below(file)}",
        f"# cost: {attrs.get('seconds')} seconds of fit without the test, {epochs_of(best)} epochs, "
        f"on {attrs.get('device')}, threads: {attrs.get('threads')}",
        f"# reaches: {100 * float(best.value or 0):.2f} % on the validation images in its best epoch, trial "
        f"{best.number}, one seed; the best of all trials, so a new seed will reach less; not measured on the test "
        "images",
    ]
    write_whole(file, "\n".join(lines) + "\n" + yaml.safe_dump(options, sort_keys=False))


def _names(study: Study) -> list[str]:
    return list(dict.fromkeys(name for trial in trials(study) for name in trial.params))


def _brief(names: list[str]) -> list[str]:
    """Return the names of options without their group, unless two would be the same."""
    last = [name.rpartition(".")[2] for name in names]
    return last if len(set(last)) == len(last) else names


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else argument(value)


def _below(file: Path) -> str:
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
