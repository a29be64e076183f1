"""The context of a run, from its preparation to its end: signals, other processes, and suppressed warnings."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.process import seat
from vgg_lightning.run import signals
from vgg_lightning.run.checkpoints.read import one_launch
from vgg_lightning.run.parallel.launcher import together

LOUD = ("lightning.pytorch", "lightning.fabric")  # loggers
# Those that print a table for whoever asks for one: --trainer.profiler, --trainer.enable_model_summary.
TABLES = ("lightning.pytorch.profilers.profiler", "lightning.pytorch.callbacks.model_summary")
_open = False


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Handle signals, end all processes of a run together, and keep notes that ask nothing of the user off the screen.

    Within another session it changes nothing, so that what prepares a run and what runs it can each open one.

    Raises:
        UserError: instead of Lightning's error for options that do not go together.
        Interrupted: if a signal has come.
    """
    try:
        with contextlib.nullcontext() if _open else _outermost():
            yield
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error


@contextlib.contextmanager
def _outermost() -> Iterator[None]:
    global _open
    speaks: contextlib.AbstractContextManager[Any] = contextlib.nullcontext() if seat().rank == 0 else silence()
    _open = True
    try:
        with signals.handled(), _plain_checkpoints(), _quietly(), speaks, together(), one_launch():
            yield
    finally:
        _open = False


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what a process prints off the screen. Its standard output is still one that can be asked and flushed."""
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        yield


def quiet() -> None:
    """Keep Lightning's notes that ask nothing of the user off the screen."""
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in TABLES:
        logging.getLogger(name).setLevel(logging.INFO)
    for note in (
        r".*directory .* exists and is not empty",  # config.yaml is in it
        r".*WeightAveraging state cannot be restored",  # nor need it be, to test
        r".*isinstance\(treespec, LeafSpec\)",
        r".*smaller than the logging interval",
        r".*requested to overfit but enabled",  # the loader reads a fixed order then
        r".*callbacks used to create the checkpoint need to be provided",  # to fit; this is test or predict
        r".*sync_dist=True.*",  # the metrics have been added up over the processes already
        r".*torch.jit.trace.*",  # how TensorBoard draws the graph
        r".*Total length of `list` across ranks is zero",  # no validation was asked for
    ):
        warnings.filterwarnings("ignore", note)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in (*LOUD, *TABLES)}
    try:
        with warnings.catch_warnings():
            quiet()
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _plain_checkpoints() -> Iterator[None]:
    """Let nothing in a checkpoint run, also where Lightning's own callbacks load one."""
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
