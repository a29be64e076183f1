"""Find a learning rate or a batch size before a run: `vgg-lightning find lr`, `find batch_size`."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.base.text import install_line

USAGE = """usage: vgg-lightning find lr|batch_size [options]

Nothing is saved: no run folder is written, and the test images are not looked at.

find lr trains for some steps with a learning rate that grows, then tries rates about the one at which the loss was
lowest, each in a short training with the schedule of the run, and suggests the largest of the best:
  --min_lr X      the first rate (default: 0.0001)
  --max_lr X      the last rate (default: 10)
  --steps N       steps between them (default: 150)
  --trial_steps N steps of each short training (default: 100)

find batch_size measures training steps with batches of 8, 16, 32, ... and stops before the memory is used up:
  --max_size N    the largest batch to try (default: 4096)
  --memory X      share of the free memory that a step may take (default: 0.5)

both:
  --output DIR    write the points (.csv) and a plot (.png) into this folder

All options of fit are taken too, such as --config quick --model.network vgg16: see vgg-lightning fit --help"""

# What is found -> (the module that finds it, its options with their defaults)
FINDERS: dict[str, tuple[str, dict[str, float]]] = {
    "lr": ("vgg_lightning.find.lr", {"min_lr": 1e-4, "max_lr": 10.0, "steps": 150, "trial_steps": 100}),
    "batch_size": ("vgg_lightning.find.batch_size", {"max_size": 4096, "memory": 0.5}),
}


def main(args: list[str]) -> int:
    """Run `vgg-lightning find` and return the exit code.

    Raises:
        UserError: a wrong option, or a network for which nothing can be found.
    """
    if not args or {"-h", "--help"} & set(args):
        print(USAGE)
        return 0 if args else 2
    what, *rest = args
    if what not in FINDERS:
        raise UserError(f"find {what!r} is unknown{nearest(what, FINDERS)}: use one of {', '.join(FINDERS)}")
    module, defaults = FINDERS[what]
    folder, own, options = _split(rest, defaults)
    _check_folder(folder)
    code: int = importlib.import_module(module).run(options, folder, **own)
    return code


def _split(args: Sequence[str], defaults: dict[str, float]) -> tuple[Path | None, dict[str, float], list[str]]:
    """Return the folder of --output, the finder's own options, and those of fit."""
    folder: Path | None = None
    own, options = dict(defaults), list[str]()
    words = iter(args)
    for word in words:
        option, equals, given = word.partition("=")
        name = option.removeprefix("--")
        if not option.startswith("--") or name not in (*defaults, "output"):
            options.append(word)
            continue
        value = given if equals else next(words, None)
        if value is None:
            raise UserError(f"{option} has no value")
        if name == "output":
            folder = Path(value).expanduser()
        else:
            own[name] = _number(option, value, whole=isinstance(defaults[name], int))
    return folder, own, options


def _number(option: str, text: str, whole: bool) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise UserError(f"{option} takes a {'whole ' if whole else ''}number, got {text[:40]!r}") from None
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{option} {text[:40]} is out of range: it takes a number above 0")
    return value


def _check_folder(folder: Path | None) -> None:
    """Refuse, before the work, a place where nothing can be written."""
    if folder is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"--output needs matplotlib for the plot: {install_line('plots')}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--output {folder} cannot be written: {error.strerror}; choose another folder") from error
