"""One trial: a run of `vgg-lightning fit` in a separate process, so that its failure does not end the search."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import Trial, TrialState
from tqdm import tqdm

from vgg_lightning.base.files import open_own
from vgg_lightning.base.imports import imported
from vgg_lightning.base.machine import START_METHOD, own_group, send_self
from vgg_lightning.base.text import say
from vgg_lightning.cli.defaults import with_defaults
from vgg_lightning.cli.entry import guarded
from vgg_lightning.cli.lightning import VGGLightningCLI
from vgg_lightning.prepare import fit, prepare
from vgg_lightning.run import signals
from vgg_lightning.run.checkpoints.locate import RunFinished, newest_valid
from vgg_lightning.run.session import session
from vgg_lightning.sweep.optuna_private import give_sign_of_life, stored
from vgg_lightning.sweep.study import HEARTBEAT, hold_alive, open_storage, put_back, quiet

PRUNED = 10  # exit code of a trial that was ended early
STOPPED = (130, 143, 138)


@dataclass(frozen=True)
class Job:
    """What the process of a trial needs to know.

    Attributes:
        storage: address of the storage.
        study: its name.
        trial_id: Optuna's.
        options: of `fit`.
        folder: of the search.
        output: file for what the run prints.
        imports: modules of the user that are imported first.
    """

    storage: str
    study: str
    trial_id: int
    options: tuple[str, ...]
    folder: Path
    output: Path
    cwd: Path
    pruner: optuna.pruners.BasePruner
    imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: its state, the best val_acc if it got to its end, and what to say of it."""

    state: TrialState
    value: float | None = None
    note: str = ""


def run_trial(study: Study, trial: Trial, job: Job) -> Outcome:
    """Run a trial to its end, and tell the study. If a signal stops this, the trial is saved and put back.

    Raises:
        signals.Interrupted: if a signal came.
    """
    context: Any = multiprocessing.get_context(START_METHOD)
    if START_METHOD == "forkserver":  # it imports once; each trial is a fork of it
        context.set_forkserver_preload([__name__])
    heard, stop = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job, heard))
    process.start()
    heard.close()
    try:
        code = _wait(process, study, trial)
        return _tell(study, trial, _outcome(study, trial, job, code))
    except BaseException:
        stop.close()  # which the trial hears: it saves, and ends
        process.join()
        put_back(study, trial.number)
        raise


def _wait(process: Any, study: Study, trial: Trial) -> int:
    while process.is_alive():
        give_sign_of_life(study, trial)
        process.join(HEARTBEAT)
    if process.exitcode in STOPPED:
        time.sleep(1)  # whoever stopped the trial may be about to stop this process too, and then it is put back
    return int(process.exitcode or 0)


def _outcome(study: Study, trial: Trial, job: Job, code: int) -> Outcome:
    if code == PRUNED:
        return Outcome(TrialState.PRUNED)
    fresh = stored(study, trial)  # its process has written there
    results = results_of(fresh.user_attrs)
    if code == 0 and results.get("val_acc") is not None:
        for name in ("epochs", "seconds", "device", "threads"):
            trial.set_user_attr(name, results.get(name))
        return Outcome(TrialState.COMPLETE, float(results["val_acc"]))
    if code < 0:
        return Outcome(TrialState.FAIL, note=f"killed by {signal.Signals(-code).name}, as when memory runs out")
    printed = job.output.read_text(encoding="utf-8", errors="replace") if job.output.is_file() else ""
    lines = printed.strip().splitlines()
    return Outcome(TrialState.FAIL, note=lines[-1].removeprefix("error: ")[:300] if lines else f"exit code {code}")


def _tell(study: Study, trial: Trial, outcome: Outcome) -> Outcome:
    if outcome.note:
        trial.set_user_attr("note", outcome.note)
    try:
        told = study.tell(trial, outcome.value, outcome.state)
    except ValueError:  # this machine slept, or the storage was out of reach: another process has the trial now
        return Outcome(TrialState.FAIL, note="taken over by another process, since this one gave no sign of life")
    return Outcome(told.state, told.value, outcome.note)


def results_of(user_attrs: dict[str, Any]) -> dict[str, Any]:
    """Return the results.json of a trial's run, or nothing if there is none on this machine."""
    file = Path(user_attrs.get("run_folder", "")) / "results.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def _child(job: Job, stop: Connection) -> None:
    """Be the process of a trial."""
    own_group()  # Ctrl-C reaches it once: from the search
    os.chdir(job.cwd)
    job.output.parent.mkdir(exist_ok=True)
    output = open_own(job.output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    quiet()
    tqdm.set_lock(threading.RLock())  # its own is a semaphore too, which a process that ends at once would leave behind
    threading.Thread(target=_obey, args=(stop,), daemon=True).start()
    held = hold_alive(job.folder, exclusive=False)
    code = guarded(lambda: _fit(job))
    sys.stdout.flush()
    del held
    os._exit(code)


def _fit(job: Job) -> int:
    sampler = optuna.samplers.RandomSampler(0)  # draws nothing: the search has drawn
    study = optuna.load_study(
        study_name=job.study, storage=open_storage(job.storage), sampler=sampler, pruner=job.pruner
    )
    trial = Trial(study, job.trial_id)
    options = list(job.options)
    run = trial.user_attrs.get("run_folder")
    if run and Path(run).is_dir() and newest_valid(Path(run)):
        options += ["--ckpt_path", run]  # it was interrupted, and resumes exactly
    try:
        with imported(job.imports), session():
            return fit_trial(trial, options)
    except optuna.TrialPruned:
        return PRUNED
    except RunFinished as finished:  # it was cut off once all was done
        say(str(finished))
        return 0


def fit_trial(trial: Trial, options: list[str]) -> int:
    """Fit with these options: the study is told how the trial stands after every validation, and may end it."""
    from optuna_integration import PyTorchLightningPruningCallback

    pruning = PyTorchLightningPruningCallback(trial, monitor="val_acc")
    run = prepare(**VGGLightningCLI("fit", with_defaults("fit", options)).arguments(), callbacks=[pruning])
    assert run.folder is not None
    trial.set_user_attr("run_folder", str(run.folder.resolve()))
    fit(run)
    return 1 if run.problems else 0


def _obey(stop: Connection) -> None:
    """End in order once the search closes its end, or is gone."""
    try:
        stop.recv()
    except (EOFError, OSError):
        if not signals.pending():
            send_self(signal.SIGTERM)
