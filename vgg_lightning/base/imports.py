"""Modules of the user's own, which the command line imports since it was told to: `--import mine`.

Only what is typed is imported, never what a checkpoint or a configuration names. The processes that a run starts are
told the same, and commands that are printed say it again.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path

from vgg_lightning.base.errors import UserError, option

_names: tuple[str, ...] = ()


@contextmanager
def imported(names: Sequence[str]) -> Iterator[None]:
    """Import modules, of the current folder or installed; within, `imports` names them.

    Args:
        names: such as "mine", for mine.py of the current folder.

    Raises:
        UserError: if there is no such module, or it raises an error.
    """
    global _names
    before, here = _names, str(Path.cwd())
    adds = bool(names) and here not in (str(Path(place).resolve()) for place in sys.path)
    _names = (*_names, *(name for name in dict.fromkeys(names) if name not in _names))
    try:
        if adds:
            sys.path.append(here)  # behind the installed ones: a file here replaces no library
        for name in names:
            _import(name)
        yield
    finally:
        _names = before
        if adds:
            sys.path.remove(here)


def imports() -> tuple[str, ...]:
    """Return the names of the modules that the command line was told to import."""
    return _names


def import_options() -> list[str]:
    """Return what tells another process of this program to import them too."""
    return [word for name in _names for word in ("--import", name)]


def _import(name: str) -> None:
    given = f"{option('import')} {name}"
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{given} is not the name of a module: that of mine.py is mine")
    top = name.partition(".")[0]
    here = next((file for file in (Path(f"{top}.py"), Path(top) / "__init__.py") if file.is_file()), None)
    found = _origin(top)
    if here and found and not (Path(found).is_file() and here.samefile(found)):
        raise UserError(f"{given}: another module of that name comes before {here}, {found}: rename {here}")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{given}: {_where(error, top)}") from error
        place = f"there is no {name.replace('.', '/')}.py in {Path.cwd()}, and no such module is installed"
        raise UserError(f"{given}: {place}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{given}: {_where(error, top)}") from error


def _origin(name: str) -> str:
    """Return the file of a module, or what it is if it has none; empty if there is no such module."""
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(name)
    except ValueError:  # one without a specification, such as __main__
        return "a module of this program"
    return (spec.origin or "") if spec else ""


def _where(error: BaseException, name: str) -> str:
    """Return an error with the line of the module in which it has come up."""
    if isinstance(error, SyntaxError):
        frame = f"{Path(error.filename or name).name}, line {error.lineno}: "
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_of(Path(f.filename), name)]
        frame = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if frames else ""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{frame}{kind}{' '.join(str(error).split())[:300]}"


def _is_of(file: Path, name: str) -> bool:
    return file.stem == name or name in file.parent.parts
