"""The Optuna study in its storage: shared by several processes, and resumed after a kill."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import open_own
from vgg_lightning.base.machine import hold
from vgg_lightning.base.seeds import derive_seed
from vgg_lightning.sweep.space import Space

HEARTBEAT = 10  # seconds between signs of life of a running trial
GRACE = 60  # seconds without one after which another process takes a trial over
SQLITE_WAIT = 60  # seconds to wait for another process that writes
UNPRUNED = 5  # trials that always run to their end, and with which later ones are compared
PATIENCE = 3  # seconds
BUSY = (TrialState.RUNNING, TrialState.WAITING)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # so it has been since Optuna 2.8
    retry = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)


class SeededSampler(BaseSampler):
    """TPE whose draw for a trial follows from (seed, trial, finished trials), not from what this process drew before.

    So a search that was stopped draws what it would have drawn, and two processes never draw the same.

    Args:
        seed: of the search.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._sampler = TPESampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin anew for this trial; one that is tried again is no new trial."""
        earlier = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number]
        number = sum(not retry.retry_history(t) for t in earlier)
        self._sampler = TPESampler(seed=derive_seed(self.seed, number) % 2**32)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return TPE's."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return TPE's."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return TPE's."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def quiet() -> None:
    """Keep Optuna's own lines off the screen: the command prints one for each trial."""
    optuna.logging.set_verbosity(logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_storage(address: str) -> RDBStorage:
    """Open or make the storage.

    Raises:
        UserError: if it cannot be reached, or the address is none.
    """
    connect = {"timeout": SQLITE_WAIT} if address.startswith("sqlite") else {}
    try:
        return RDBStorage(
            address,
            engine_kwargs={"connect_args": connect},
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=retry,
        )
    except Exception as error:  # Optuna's, SQLAlchemy's and those of the database's own package
        text = " ".join(str(error.__cause__ or error).split())[:150]
        raise UserError(
            f"--storage {address} cannot be opened: {text}; it takes an address such as sqlite:///FILE.db"
        ) from error


def open_study(folder: Path, address: str, name: str, seed: int, prune: bool) -> Study:
    """Open or make the study `name`; a process that does the same at this moment waits."""
    pruner = optuna.pruners.MedianPruner(UNPRUNED, 1) if prune else optuna.pruners.NopPruner()
    with lock(folder):
        return optuna.create_study(
            storage=open_storage(address),
            sampler=SeededSampler(seed),
            pruner=pruner,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
        )


def remember(study: Study, key: str, value: Any) -> None:
    """Note in the study what must not change between launches.

    Raises:
        UserError: if it has changed.
    """
    known = study.user_attrs.get(key)
    if known is None:
        study.set_user_attr(key, value)
    elif known != value:
        raise UserError(
            f"the study {study.study_name!r} was begun with {'another space' if key == 'space' else 'other options'}: "
            "repeat them, or give a new --name"
        )


def lock(folder: Path) -> FileLock:
    """Return the lock under which the processes of this machine count and begin trials."""
    os.close(open_own(folder / ".lock", os.O_RDWR))  # no link, whatever was there
    return FileLock(folder / ".lock")


def hold_alive(folder: Path, exclusive: bool) -> IO[str] | None:
    """Take part in the search until the file returned is closed; the kernel also notices a kill.

    Args:
        folder: of the search.
        exclusive: whether to be the only one; None is returned where another process of this machine takes part.
    """
    file = os.fdopen(open_own(folder / ".alive", os.O_RDWR), "r+")
    if hold(file, exclusive):
        return file
    file.close()
    return None


@contextmanager
def taking_part(study: Study, folder: Path, owns_storage: bool) -> Iterator[None]:
    """Put back what killed processes left, if this is the only process left; and be seen by others within."""
    for _ in range(PATIENCE if running(study) else 1):  # a trial whose search was killed needs a moment to save
        if only := hold_alive(folder, exclusive=True):
            with only:
                if owns_storage:
                    put_back_all(study)
                hold(only, exclusive=False)
                yield
            return
        time.sleep(1)
    with hold_alive(folder, exclusive=False) or nullcontext():
        yield


def trials(study: Study) -> list[FrozenTrial]:
    """Return the trials without those that another one resumed."""
    found = study.get_trials(deepcopy=False)
    superseded = {number for trial in found for number in retry.retry_history(trial)}
    return [trial for trial in found if trial.number not in superseded]


def put_back(study: Study, number: int) -> None:
    """Let a trial that was cut off be the next to be run: here, or in another process."""
    frozen = study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
    if frozen.number not in {n for trial in study.get_trials(deepcopy=False) for n in retry.retry_history(trial)}:
        retry(study, frozen)


def put_back_all(study: Study) -> None:
    """Put back what killed processes have left running, if there is no other process."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        put_back(study, trial.number)


def next_trial(study: Study, folder: Path, space: Space, wanted: int) -> Trial | None:
    """Begin a trial: one that was cut off, or a new one while there are fewer than `wanted`; else return None."""
    with lock(folder):
        fail_stale_trials(study)
        found = trials(study)
        if len(found) >= wanted and not any(trial.state == TrialState.WAITING for trial in found):
            return None
        return study.ask(fixed_distributions=space)


def running(study: Study) -> int:
    """Return the number of trials that some process is at."""
    return sum(trial.state in BUSY for trial in trials(study))
