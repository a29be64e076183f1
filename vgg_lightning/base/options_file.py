"""Read a YAML file of options that may come from anywhere: bounded before anything is built from it.

A few hundred bytes of YAML can stand for more than a memory holds, since an alias repeats what it names, and a text
of brackets or of numbers with colons can keep the reader busy for hours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import read_regular


class BrokenFileError(UserError):
    """A file of options is unreadable, empty or cut off; it does not ask for anything that is refused."""


LARGEST = 1_000_000  # bytes
DEEPEST = 20  # lists and tables within each other
MOST = 1_000_000  # characters and entries, each alias counted as what it repeats
LONGEST = 1000  # characters of a number or a word without quotes


def read_options(
    file: Path, name: str = "", largest: int = LARGEST, deepest: int = DEEPEST, aliases: bool = True
) -> Any:
    """Return what a YAML file holds, as plain values.

    Args:
        file: an ordinary file.
        name: what a message calls it; by default its path.
        largest: bytes that it may have.
        deepest: how many lists and tables it may have within each other.
        aliases: whether it may have * aliases.

    Raises:
        BrokenFileError: if it cannot be read, is no ordinary file, or is no YAML.
        UserError: if it stands for more than options can be, or names what is none.
    """
    name = name or str(file)
    try:
        text = read_regular(file, largest).decode()
        if reason := _excess(text, deepest, aliases):
            raise UserError(f"{name} is refused: {reason}")
        return yaml.safe_load(text)
    except UserError:
        raise
    except OSError as error:
        raise BrokenFileError(f"{name} cannot be read: {error.strerror or error}") from error
    except (yaml.reader.ReaderError, yaml.scanner.ScannerError, yaml.parser.ParserError, UnicodeDecodeError) as error:
        raise BrokenFileError(f"{name} is not YAML: {' '.join(str(error).split())[:200]}") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{name} is not YAML: {' '.join(str(error).split())[:200]}") from error


def _excess(text: str, deepest: int, aliases: bool) -> str:
    """Return what is too much in the form of a text, or nothing, before a value is built."""
    sizes: dict[str, int] = {}  # anchor -> what an alias of it stands for
    begun: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text):
        if isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, 1))
            if len(begun) > deepest + 1:
                return "write plain lists and tables, without deep nesting"
            continue
        anchor, size = None, 0
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = begun.pop()
        elif isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), MOST) if aliases else MOST  # one within what it names has no end
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1 + len(event.value)
            if size > LONGEST and event.style is None:
                return f"it has a word of more than {LONGEST:,} characters: put a text in quotes"
        if anchor is not None:
            sizes[anchor] = size
        begun[-1] = (begun[-1][0], begun[-1][1] + size)
        if begun[-1][1] >= MOST:
            return "write plain lists and tables, without * aliases"
    return ""
