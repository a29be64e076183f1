"""SIGTERM, SIGINT, SIGUSR1 (not on Windows): the batch ends, a checkpoint is written, and 128 + the number is returned.

The first signal ends a run in order: at once while nothing is trained yet (`Interrupted` is raised where the
program stands), after the batch in hand once a Trainer has taken over (`take_over`, `stop_if_asked`, `obey`). A
second one ends the process on the spot, and so does the first one amid an import: torch's C++ imports Python modules
in places that abort on an exception, and there is nothing to save yet.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeAlias

from vgg_lightning.base.machine import STOP_SIGNALS
from vgg_lightning.base.process import seat

Handler: TypeAlias = Callable[[int, FrameType | None], Any] | int | None  # what signal.signal returns

_pending = 0  # the signal that came, until it is obeyed
_deferred = False  # a Trainer polls `_pending` between batches
_obeyed = False  # the process is ending already, because of a signal to it or to another one of the run


class Interrupted(BaseException):
    """A signal asks for the end. Like KeyboardInterrupt no Exception, so that nothing takes it for a failure.

    Args:
        signum: the signal.
        note: what to say beside its name.
    """

    def __init__(self, signum: int, note: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}" + (f": {note}" if note else ""))
        self.code = 128 + signum


def pending() -> int:
    """Return the signal that waits to be obeyed, or 0."""
    return _pending


def stop_if_asked(note: str = "") -> None:
    """Raise Interrupted if a signal has come."""
    if _pending:
        obey(_pending, note)


def obey(signum: int, note: str = "") -> NoReturn:
    """Raise Interrupted for a signal to any process of the run, and let none to this one come in between."""
    global _obeyed
    _obeyed = True
    raise Interrupted(signum, note)


def take_over() -> None:
    """Note a signal from now on, for `stop_if_asked` between batches. Call it once Lightning's handlers are set."""
    global _deferred
    _deferred = True
    _install()


def release() -> None:
    """Raise on a signal at once again. A caller that is not ending anyway calls `stop_if_asked` next."""
    global _deferred
    _deferred = False


@contextmanager
def handled() -> Iterator[None]:
    """Handle the signals within, and leave them as they were found; within another `handled` change nothing."""
    global _pending, _obeyed
    if all(signal.getsignal(signum) is _handle for signum in _signals()):
        yield
        return
    before = _install()
    try:
        yield
    finally:
        release()
        _pending, _obeyed = 0, False
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _signals() -> list[signal.Signals]:
    if threading.current_thread() is not threading.main_thread():
        return []
    return list(STOP_SIGNALS)


def _install() -> dict[signal.Signals, Handler]:
    return {signum: signal.signal(signum, _handle) for signum in _signals()}


def _handle(signum: int, frame: FrameType | None) -> None:
    global _pending
    if _pending:
        _end_at_once(signum, f"stopped at once by a second {signal.Signals(signum).name}")
    _pending = signum
    if _deferred or _obeyed:
        return
    if _is_importing(frame):
        _end_at_once(signum, "" if seat().rank else str(Interrupted(signum)))  # the first process says it for all
    raise Interrupted(signum)


def _end_at_once(signum: int, line: str) -> NoReturn:
    if line:
        os.write(2, f"{line}\n".encode())
    os._exit(128 + signum)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
