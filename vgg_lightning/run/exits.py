"""The exit codes of a run, for whatever starts it: 2 invalid input, 3 NaN or Inf, 128 + the number of a signal."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from vgg_lightning.base.errors import LostProcessError, NonFiniteError, UserError
from vgg_lightning.base.process import seat
from vgg_lightning.base.progress import say
from vgg_lightning.base.text import printable
from vgg_lightning.run import signals


def exit_code(run: Callable[[], int | None], debug: bool = False) -> int:
    """Return what `run` returns (0 for None), or the exit code of how it was stopped, of which one line is printed.

    Signals are handled meanwhile. What is none of the known ends, such as a fault of the program, is raised.

    Args:
        run: the program.
        debug: print the traceback above the line.
    """
    try:
        with signals.handled():
            return run() or 0
    except signals.Interrupted as stop:
        return report(str(stop), debug, stop.code, everywhere=True)
    except UserError as error:
        return report(f"error: {error}", debug, code=2, everywhere=error.everywhere)
    except NonFiniteError as error:
        return report(f"error: {error}", debug, code=3, everywhere=True)
    except LostProcessError as error:
        return report(f"error: {error}" if str(error) else "", debug, error.code, everywhere=True)


def report(line: str, debug: bool, code: int, everywhere: bool = False) -> int:
    """Print a line, and return the code. What all processes of a run say at once is said by the first one."""
    try:
        rank = seat().rank
    except UserError:  # which is what is said
        rank = 0
    if debug:
        traceback.print_exc()
    if line and not (rank and everywhere):
        say(printable(f"rank {rank}: {line}" if rank else line))
    return code
