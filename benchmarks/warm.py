"""Runs Python programs quickly: this process imports the libraries once, then forks for every program.

`python benchmarks/warm.py` with a checkout of the project first in PYTHONPATH. A request is a line of JSON on standard
input, {"folder": ..., "args": ["-m", MODULE, ...] or ["-c", CODE, ...]}: what `python ARGS` would do in that folder,
whose files output.txt and errors.txt take what it prints. The answers are lines of JSON on standard output: first
{"package": ...}, where the package was found, then {"code": ...} as each program ends.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from typing import Any


def import_libraries() -> str:
    """Import what takes time, and return where the package lies. Of the package only its public names are asked for."""
    for library in ("lightning.pytorch.cli", "torchvision", "torch.utils.tensorboard"):
        importlib.import_module(library)
    import vgg_lightning

    for name in vgg_lightning.__all__:
        getattr(vgg_lightning, name)
    return str(vgg_lightning.__file__)


def run(folder: str, args: list[str]) -> None:
    """Do in this process what `python ARGS` would do in `folder`."""
    os.chdir(folder)
    for number, name in ((0, os.devnull), (1, "output.txt"), (2, "errors.txt")):
        os.dup2(os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    how, what, *sys.argv[1:] = args
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<program>", "exec"), {"__name__": "__main__"})  # noqa: S102 - as `python -c` does


def answer(**values: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    answer(package=import_libraries())
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            run(request["folder"], request["args"])
            break  # and end as a program does
        answer(code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
