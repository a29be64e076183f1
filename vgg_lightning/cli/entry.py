"""The front door: a table from a subcommand to a command. Nothing heavy is imported before the subcommand is known.

Not called main.py: `vgg_lightning.cli.main` is the function that runs the subcommands of the Trainer.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable

from vgg_lightning.base.errors import UserError, command_line, nearest
from vgg_lightning.base.imports import imported
from vgg_lightning.base.machine import no_memory_left, out_of_memory
from vgg_lightning.base.process import follow_parent
from vgg_lightning.base.text import show_any_text
from vgg_lightning.run.exits import exit_code, report
from vgg_lightning.version import __version__

TRAINER = "vgg_lightning.cli.lightning"  # takes the subcommand too, as the first of its arguments

# subcommand -> (module that runs it, what it does)
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "fit": (TRAINER, "train; without --config, the preset quick"),
    "validate": (TRAINER, "accuracy of a checkpoint on the validation images"),
    "test": (TRAINER, "accuracy of a checkpoint on the test images"),
    "predict": (TRAINER, "classes of your own images, or of the test images"),
    "summary": ("vgg_lightning.cli.summary", "layers, shapes, parameters and multiply-adds of a network"),
    "compare": ("vgg_lightning.compare.command", "compare networks, with speed and memory measured on this machine"),
    "serve": ("vgg_lightning.serve.command", "start a local page that classifies an image you drop or draw"),
    "sweep": ("vgg_lightning.sweep.command", "search for good options, each trial a run of fit"),
    "export": ("vgg_lightning.export.command", "write a model in a format for other programs"),
    "data": ("vgg_lightning.cli.data", "download and verify a data set, or describe your own"),
    "presets": ("vgg_lightning.cli.presets", "list the shipped configurations"),
    "find": ("vgg_lightning.find.command", "find a learning rate or a batch size before a run"),
    "doctor": ("vgg_lightning.cli.doctor", "check this machine and print a fix for each problem"),
}
VERBS = SUBCOMMANDS  # the former name


def usage() -> str:
    """Return the text of a bare --help."""
    subcommands = "\n".join(f"  {subcommand:<10}{text}" for subcommand, (_, text) in SUBCOMMANDS.items())
    return (
        "usage: vgg-lightning SUBCOMMAND [options]\n\n"
        "VGG on Fashion-MNIST with PyTorch Lightning.\n\n"
        f"subcommands:\n{subcommands}\n\n"
        "options:\n"
        "  --version  print the version\n"
        "  --print_shtab bash|zsh  print the tab completion of a shell\n"
        "  --debug    print a traceback instead of a one-line error\n"
        "  --import MODULE\n"
        "             import a module of your own first, with networks, data sets or callbacks: mine for mine.py\n\n"
        "vgg-lightning SUBCOMMAND --help lists the options of a subcommand. Try: vgg-lightning fit"
    )


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 bad input, 3 NaN or Inf, 4 unread images."""
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    follow_parent()
    return guarded(lambda: _with_imports(args), debug)


def guarded(run: Callable[[], int], debug: bool = False) -> int:
    """Return what `run` returns, or the exit code of how it failed, of which one line is printed."""
    show_any_text()
    try:
        with command_line():
            return exit_code(run, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader, such as head, has left
        return 1
    except KeyboardInterrupt:
        return report("interrupted", debug, code=130)
    except Exception as error:
        if out_of_memory(error):
            with command_line():
                return report(f"error: {no_memory_left()}", debug, code=1)
        text = str(error).strip().split("\n")[0]
        return report(f"error: {type(error).__name__}: {text} (--debug shows where)", debug, code=1)


def _with_imports(args: list[str]) -> int:
    """Run the command line with the modules of the user imported."""
    names: list[str] = []
    rest: list[str] = []
    words = list(args)
    while words:
        name, equals, value = (word := words.pop(0)).partition("=")
        if name != "--import":
            rest.append(word)
            continue
        value = value if equals else words.pop(0) if words else ""
        if not value or value.startswith("-"):
            raise UserError("--import has no value: it takes the name of a module, mine for mine.py")
        names.append(value)
    with imported(names):
        return _run(rest)


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if args else 2
    if args[0] == "--version":
        print(f"vgg-lightning {__version__}")
        return 0
    subcommand, *rest = args
    if subcommand == "--print_shtab":
        return importlib.import_module("vgg_lightning.cli.completion").main(rest)  # type: ignore[no-any-return]
    if subcommand.startswith("-"):
        raise UserError(f"{subcommand} must come after the subcommand: put one of {', '.join(SUBCOMMANDS)} first")
    if subcommand not in SUBCOMMANDS:
        known = ", ".join(SUBCOMMANDS)
        raise UserError(f"subcommand {subcommand!r} is unknown{nearest(subcommand, SUBCOMMANDS)}: use one of {known}")
    module = importlib.import_module(SUBCOMMANDS[subcommand][0])
    code: int = module.main(args if SUBCOMMANDS[subcommand][0] == TRAINER else rest)
    return code
