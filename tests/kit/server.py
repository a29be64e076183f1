"""Starts Python programs that use the run kit: imports the kit once, then forks one process for every request.

A request is a line of JSON on stdin: {"cwd": ..., "program": file, "at": {"place": ..., "count": ..., "signal": ...}}.
The answers are those of `forks`.
The project above the kit cannot be imported here.
"""

import os
import runpy
import signal
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import torch
from lightning.pytorch.strategies import Strategy

sys.path.append(str(Path(__file__).parents[1] / "reliability"))
import forks

PROJECT = ("networks", "data", "training", "loading", "classifier", "show", "prepare", "cli", "presets", "find")
PLACES = {
    "training": (Strategy, "training_step"),
    "validation": (Strategy, "validation_step"),
    "written": (os, "fsync"),  # the new file is written under another name, and neither verified nor renamed
    "renamed": (os, "replace"),  # before the new file, or the link to the old one, gets its name
}


class Forbidden(MetaPathFinder):
    """Refuses the project."""

    def find_spec(self, fullname, path, target=None):
        package, _, name = fullname.partition(".")
        if package == "vgg_lightning" and name.partition(".")[0] in PROJECT:
            raise ImportError(f"the run kit imports {fullname}")


def strike_at(place, count, signal):
    """Send this process a signal at the beginning of the `count`-th call of a function."""
    owner, name = PLACES[place]
    original, calls = getattr(owner, name), iter(range(1, 1 << 30))

    def patched(*args, **kwargs):
        if next(calls) == count:
            os.kill(os.getpid(), signal)
        return original(*args, **kwargs)

    setattr(owner, name, patched)


def child(request):
    sys.orig_argv = ["python", request["program"]]
    sys.path[:0] = request.get("path", [])
    if request.get("at"):
        strike_at(**request["at"])
    code = 0
    try:
        runpy.run_path(request["program"], run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 99
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.meta_path.insert(0, Forbidden())
    torch.set_num_threads(1)
    import vgg_lightning.run.kit

    assert vgg_lightning.run.kit
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forks.serve(child)
