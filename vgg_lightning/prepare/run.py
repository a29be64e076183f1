"""A prepared run, and the session in which it is prepared and runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L

from vgg_lightning.base.errors import LostProcessError, UserError
from vgg_lightning.base.process import SHARED, Seat, own_environment
from vgg_lightning.classifier import Classifier
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.run.folders import discard_run_folder
from vgg_lightning.run.lock import FolderLock
from vgg_lightning.run.session import session

Stage = Literal["fit", "validate", "test", "predict"]
Options = dict[str, Any]


class Asked(NamedTuple):
    """What the command line knows of a run that it prepares.

    Attributes:
        command: the subcommand and its options, with which the other processes of a run are started.
        default_name: of the run, if its options have none.
        save_config: writes config.yaml into a file, given what differs from the options as they were typed.
    """

    command: Sequence[str]
    default_name: str
    save_config: Callable[[Path, Options], None]


@dataclass
class Run:
    """A run that is ready: give it to `fit`, `validate`, `test` or `predict`, the one that it was prepared for.

    Attributes:
        stage: what it was prepared for.
        model: the network and how it is trained.
        data: the images.
        trainer: Lightning's, with all callbacks, loggers and plugins.
        options: of the run, by name as in config.yaml, complete.
        folder: where it writes; None if it leaves no trace.
        step: at which a resumed run starts, else None.
        problems: what failed without ending the run, such as a checkpoint that could not be written.
    """

    stage: Stage
    options: Options
    asked: Asked | None
    seat: Seat
    model: Classifier = field(init=False)
    data: FashionMNISTDataModule = field(init=False)
    trainer: L.Trainer = field(init=False)
    folder: Path | None = None
    step: int | None = None
    problems: list[str] = field(default_factory=list)
    from_options: bool = True  # whether `prepare` has built the model
    fresh_folder: Path | None = None  # made by `prepare`, and removed again if the options are at fault
    lock: FolderLock | None = None  # of the folder, held from `prepare` to the end of `fit`


@contextlib.contextmanager
def session_of(run: Run, stage: Stage | None = None) -> Iterator[None]:
    """Hold a session; on bad input, remove the folder that was made for the run, and speak of arguments in Python."""
    if stage not in (None, run.stage):
        raise UserError(f"this run is prepared to {run.stage}: prepare another one with stage={stage!r}")
    done = False
    try:
        with session(), own_environment():
            if run.folder:
                os.environ[SHARED] = str(run.folder)  # for the processes that the Trainer starts
            yield
            done = True
    except (UserError, LostProcessError) as error:
        if run.fresh_folder and getattr(error, "code", 2) == 2:  # bad input, here or in another process
            discard_run_folder(run.fresh_folder)
        raise
    finally:
        if run.lock and not done:
            run.lock.release()
