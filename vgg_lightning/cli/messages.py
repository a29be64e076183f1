"""Rewrites jsonargparse's error messages for users: the option, and the values that it takes."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin

from vgg_lightning.base.errors import nearest

KINDS: dict[Any, str] = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}
GROUPS = ("model", "data", "trainer")
ALSO_CALLED = {  # what other programs call it -> ours
    "learning_rate": "--model.lr",
    "epochs": "--trainer.max_epochs",
    "gpus": "--trainer.devices",
    "seed": "--seed_everything",
    "bn": "--model.batch_norm",
    "arch": "--model.network",
    "checkpoint": "--ckpt_path",
}


def plain(message: str, hints: dict[str, Any]) -> str:
    """Return a parser's message as one line that names the option and the remedy.

    Args:
        message: of jsonargparse.
        hints: the type of every option, by its name without the dashes.
    """
    text = " ".join(message.split())
    for pattern, say in (
        (r"[Uu]nrecognized arguments: (\S+)", _unknown),
        (r"Group ['\"]([\w.]+)['\"] does not accept option ['\"]([\w.]+)['\"]", _unknown_key),
        (r"[Kk]ey ['\"]([\w.]+)['\"] is not expected|Option ['\"]([\w.]+)['\"] is not accepted", _unknown_key),
        (r"Unexpected config: (\w+)", _empty),
        (r"Linked \"([\w.]+)\" must be given via \"([\w.]+)\"", _linked),
        (r"[Aa]rgument (?:-c/)?--([\w.]+): expected (?:one|at least one) argument", _no_value),
        (r"Parser key \"([\w.]+)\".*given class_path '([^']+)': (.*?)(?: - |$)", _no_class),
        (r"Parser key \"([\w.]+)\".*? arguments are required: ([\w, ]+?) - .*class_path='([\w.]+)'", _class_needs),
        (r"Parser key \"([\w.]+)\".*? option --(\w+) is unknown(.*?) - .*NestedArg", _unknown_of_class),
        (r"Parser key \"([\w.]+)\".*Expected a dot import path string: (\S+)", _unknown_class),
        (r"Parser key \"([\w.]+)\"", _wrong_value),
    ):
        if found := re.search(pattern, text):
            return say(found, text, hints)
    return text[:300]


def unknown_option(option: str, known: Iterable[str]) -> str:
    """Say that there is no such option, and which one may be meant."""
    known = list(known)
    last = option.lstrip("-").rpartition(".")[2]
    same = [name for name in known if name.lstrip("-").rpartition(".")[2] == last]
    if meant := ALSO_CALLED.get(last) or next(iter(same), None):
        return f"option {option} is unknown (did you mean {meant}?)"
    return f"option {option} is unknown{nearest(option, known)}"


def takes(hint: Any) -> str:
    """Return what an option of the type `hint` takes, as a phrase."""
    if hint in KINDS:
        return KINDS[hint]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(str(value) for value in get_args(hint))}"
    if get_origin(hint) is list:
        return "a list such as [a, b]"
    if get_origin(hint) in (Union, types.UnionType):
        return _any_of([part for part in get_args(hint) if part is not type(None)])
    return "a class with its options" if isinstance(hint, type) else "another value"


def _any_of(parts: list[Any]) -> str:
    words = [value for part in parts if get_origin(part) is Literal for value in get_args(part)]
    # Words first, each once: some stand there as a number and as text.
    words = sorted(dict.fromkeys(str(word) for word in words), key=str.isdigit)
    phrases = [f"one of {', '.join(words)}"] if words else []
    return " or ".join(dict.fromkeys([*phrases, *(takes(p) for p in parts if get_origin(p) is not Literal)]))


def _unknown(found: re.Match[str], text: str, hints: dict[str, Any]) -> str:
    option = found[1].partition("=")[0]
    if not option.startswith("-"):
        return f"unexpected argument {option[:80]!r}: options start with --, such as --model.lr 0.1"
    return unknown_option(option, [f"--{name}" for name in hints])


def _unknown_key(found: re.Match[str], text: str, hints: dict[str, Any]) -> str:
    return unknown_option(f"--{'.'.join(filter(None, found.groups()))}", [f"--{name}" for name in hints])


def _empty(found: re.Match[str], text: str, hints: dict[str, Any]) -> str:
    return f"the group {found[1]} of the configuration is empty: write options below it, or leave it out"


def _linked(found: re.Match[str], text: str, hints: dict[str, Any]) -> str:
    return f"--{found[1]} follows --{found[2]}: give that one"


def _no_value(found: re.Match[str], text: str, hints: dict[str, Any]) -> str:
    hint = hints.get(found[1])
    return f"--{found[1]} has no value" + (f": it takes {takes(hint)}" if hint is not None else "")


def _no_class(found: re.Match[str], text: str, hints: dict[str, Any]) -> str:
    return f"--{found[1]} {found[2]}: {found[3][:150]}"


def _class_needs(found: re.Match[str], text: str, hints: dict[str, Any]) -> str:
    needed = ", ".join(f"--{found[1]}.{name.strip()}" for name in found[2].split(","))
    return f"--{found[1]} {found[3].rpartition('.')[2]} needs {needed}: give it as well"


def _unknown_of_class(found: re.Match[str], text: str, hints: dict[str, Any]) -> str:
    return f"option --{found[1]}.{found[2]} is unknown{found[3].replace('--', f'--{found[1]}.')}"


def _unknown_class(found: re.Match[str], text: str, hints: dict[str, Any]) -> str:
    key, value = found[1], found[2][:60]
    names = sorted(_classes_of(hints.get(key)))
    other = f", or {takes(bool)}" if bool in get_args(hints.get(key)) else ""
    if not names:
        return f"--{key} {value!r} is the name of no class"
    such_as = f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
    return f"--{key} {value!r} is the name of no class{nearest(value, names)}: it takes one, as {such_as}{other}"


def _classes_of(hint: Any) -> set[str]:
    """Return the names of the classes that can be given where `hint` is asked for."""
    if get_origin(hint) is not None:
        return {name for part in get_args(hint) for name in _classes_of(part)}
    if not isinstance(hint, type) or hint in (type(None), *KINDS):
        return set()
    kinds: list[type] = hint.__subclasses__()
    usable = {kind for kind in kinds if kind.__module__.startswith("lightning.") and not inspect.isabstract(kind)}
    names = {kind.__name__ for kind in usable if not kind.__name__.startswith(("_", "Dummy"))}
    return names.union(*map(_classes_of, kinds))


def _wrong_value(found: re.Match[str], text: str, hints: dict[str, Any]) -> str:
    key = found[1]
    if key in GROUPS:
        return f"--{key} takes a configuration file; single options are --{key}.NAME VALUE"
    value = re.search(r"(?:Got|Given) value: (.*)$", text)
    got = f", got {value[1][:60]!r}" if value else ""
    if value and get_origin(hints.get(key)) is Literal:
        got += nearest(value[1], get_args(hints[key]))
    return f"--{key} takes {takes(hints[key])}{got}" if hints.get(key) is not None else text[:300]
