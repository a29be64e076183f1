"""Starts Python programs that use the run kit: imports the kit once, then forks one process for every request.

A request is a line of JSON on stdin: {"cwd": ..., "program": file, "at": {"place": ..., "count": ..., "signal": ...}}.
The answers are lines of JSON on stdout: {"pid": ...} at once, {"code": ...} when the process has ended.
The project above the kit cannot be imported here.
"""

import faulthandler
import json
import os
import runpy
import signal
import sys
from importlib.abc import MetaPathFinder

import torch
from lightning.pytorch.strategies import Strategy

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
    os.chdir(request["cwd"])
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
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


def answer(**values):
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    sys.meta_path.insert(0, Forbidden())
    torch.set_num_threads(1)
    import vgg_lightning.run.kit

    assert vgg_lightning.run.kit
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        answer(pid=pid)
        answer(code=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
