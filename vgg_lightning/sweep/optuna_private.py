"""All that this package uses of Optuna beyond its public interface, as seen to work in Optuna 5.0.

tests/test_private.py holds each function against the installed version.
"""

from __future__ import annotations

from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial


def trial_id(trial: Trial) -> int:
    """Return the number by which the storage knows a trial, and with which another process opens it as a Trial."""
    return trial._trial_id


def give_sign_of_life(study: Study, trial: Trial) -> None:
    """Note that a trial still runs. Optuna does so in a thread of `optimize`, and has nothing for `ask` and `tell`."""
    storage: Any = study._storage
    storage.record_heartbeat(trial._trial_id)


def stored(study: Study, trial: Trial) -> FrozenTrial:
    """Return a trial as the storage has it now: a Trial does not see what other processes have written."""
    return study._storage.get_trial(trial._trial_id)
