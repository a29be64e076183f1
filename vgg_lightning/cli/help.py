"""`vgg-lightning fit --help`: the options that people use, each with the value that this command line would use.

`--help all` lists every option, `--help model`, `data`, `trainer` or `run` those of one group.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.cli import messages
from vgg_lightning.training.run_options import row

WIDTH = 100
COLUMN = 34  # where the explanations begin
GROUPS = ("run", "model", "data", "trainer")
WHAT = ("all", *GROUPS)

_WEIGHTS = ("ckpt_path", "data.dataset", "data.data_dir", "data.batch_size")
_MACHINE = ("trainer.accelerator", "trainer.devices", "trainer.precision")
# subcommand -> the options of its short help, by group
SHORT: dict[str, tuple[str, ...]] = {
    "fit": (
        *("config", "name", "resume", "early_stopping", "seed_everything"),
        *("model.network", "model.ratio", "model.batch_norm", "model.head", "model.weights", "model.optimizer"),
        *("model.lr", "model.weight_decay", "model.schedule", "model.label_smoothing"),
        *("data.dataset", "data.data_dir", "data.image_size", "data.batch_size", "data.val_size", "data.augment"),
        *("trainer.max_epochs", *_MACHINE, "trainer.default_root_dir"),
    ),
    "validate": (*_WEIGHTS, *_MACHINE),
    "test": (*_WEIGHTS, *_MACHINE),
    "predict": (*_WEIGHTS, "data.predict_path", "output", "top_k", *_MACHINE),
}
ABOUT = {
    "fit": "Train, and test the best checkpoint.",
    "validate": "Accuracy of a checkpoint on the validation images.",
    "test": "Accuracy of a checkpoint on the test images.",
    "predict": "Classes of your own images, or of the test images.",
}
TEXTS = {  # where an option's own text is too long for two lines, or says more than this program takes
    "config": "a preset (`vgg-lightning presets` lists them) or a YAML file; several add up",
    "ckpt_path": "a checkpoint or a run folder",
    "resume": "resume the newest unfinished run, or the one given by --name",
    "data.dataset": "fashion_mnist, mnist, kmnist, emnist_letters, ...; idx or folder for your own images",
    "data.val_size": "training images that are held out for validation",
    "data.augment": "list of augmentations, such as [flip, crop:2]",
    "seed_everything": "seed of weights, order and augmentation",
    "trainer.accelerator": '"cpu", "gpu", "mps" or "auto"',
    "trainer.devices": "number of devices, a list of their indices, or auto",
    "trainer.precision": "32-true, bf16-mixed, 16-mixed ...; auto is bf16-mixed where a CPU has instructions for it",
    "trainer.default_root_dir": "folder of lightning_logs/; by default the current folder",
}

RESUMED = {  # what fit adds to the options that a resumed run does not obey
    "kept": "; fixed by a checkpoint",
    "refused": "; fixed in a resumed run",
    "ignored": "; without effect in a resumed run",
}


class Option(NamedTuple):
    """An option as a parser knows it: its name without dashes, its text, its type hint."""

    name: str
    text: str
    hint: Any


def asked(options: Sequence[str]) -> tuple[str, list[str]]:
    """Return what kind of help is asked for, an empty string if none is, and the other options.

    Returns "short" for a bare --help, else one of `WHAT`.

    Raises:
        UserError: if --help is followed by another word.
    """
    rest = list(options)
    where = next((i for i, option in enumerate(rest) if option in ("-h", "--help")), None)
    if where is None:
        return "", rest
    del rest[where]
    if where == len(rest) or rest[where].startswith("-"):
        return "short", rest
    what = rest.pop(where)
    if what not in WHAT:
        raise UserError(f"--help {what}{nearest(what, WHAT)}: it takes nothing or one of {', '.join(WHAT)}")
    return what, rest


def text(subcommand: str, what: str, options: Sequence[Option], value_of: Callable[[str], Any]) -> str:
    """Return the help of a subcommand.

    Args:
        subcommand: the subcommand.
        what: "short" or one of `WHAT`.
        options: of its parser.
        value_of: returns the value that an option would have.
    """
    lines = [f"usage: vgg-lightning {subcommand} [--config PRESET or FILE] [--OPTION VALUE ...]", "", ABOUT[subcommand]]
    if subcommand != "fit":
        lines[0] = f"usage: vgg-lightning {subcommand} --ckpt_path RUN_FOLDER [--OPTION VALUE ...]"
    lines[3:] = ["Each option is shown with the value that this command would use."]
    known = {option.name: option for option in options}
    names = [name for name in SHORT[subcommand] if name in known] if what == "short" else list(known)
    if what == "short" and subcommand == "fit":
        names += [name for name in known if name.startswith("model.options.")]
    for group in GROUPS if what in ("short", "all") else (what,):
        found = [known[name] for name in names if _group(name) == group]
        if found:
            lines += ["", f"{group}:"]
            fits = subcommand == "fit"
            lines += [line for option in found for line in _lines(option, value_of(option.name), what, fits)]
    if what == "short":
        rest = len(known) - len(names)
        lines += ["", f"{rest} more options: vgg-lightning {subcommand} --help all, or --help {', '.join(GROUPS)}"]
        lines += ["--import MODULE: a network, a data set or a callback of your own; see docs/extend.md"]
    return "\n".join(lines)


def _group(name: str) -> str:
    first, dot, _ = name.partition(".")
    return first if dot else "run"


def _lines(option: Option, value: Any, what: str, resumes: bool) -> Iterator[str]:
    shown = in_words(value)
    head = f"  --{option.name}{f' {shown}' if shown else ''}"
    about = TEXTS.get(option.name) or _sentence(option.text, whole=what != "short")
    if what != "short":
        takes = _takes(option)
        about += f" ({takes})" if takes else ""
        about += RESUMED.get(row(option.name).resumed, "") if resumes else ""
    wrapped = textwrap.wrap(about, WIDTH - COLUMN) or [""]
    if len(head) > COLUMN - 2:
        yield head
        head = ""
    for line in wrapped:
        yield f"{head:<{COLUMN}}{line}".rstrip()
        head = ""


def _sentence(about: str, whole: bool) -> str:
    """Return an option's text in one line, without the defaults that Lightning names; else its first sentence."""
    about = re.split(r"\s*Default(?:s to)?:?\s*``", " ".join(about.split()))[0].replace("``", "")
    return about.rstrip(".") if whole else re.split(r"[.;](?: |$)", about)[0]


def _takes(option: Option) -> str:
    """Return the values that an option takes, from its row or else its type, if that says anything."""
    known = row(option.name)
    if known.takes:
        return known.takes.phrase
    if known.choices:
        return f"one of {', '.join(known.choices)}"
    phrase = messages.takes(option.hint) if option.hint is not None else ""
    return "" if phrase in ("another value", "a class with its options") else phrase


def in_words(value: Any) -> str:
    """Return a value as one types it; an empty string for none."""
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def choices(option: Option) -> list[str]:
    """Return the words among which an option chooses; none if it takes other values."""
    return [*row(option.name).choices] or _words(option.hint)


def _words(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [word for word in get_args(hint) if isinstance(word, str)]
    return ["true", "false"] if hint is bool else [word for part in get_args(hint) for word in _words(part)]
