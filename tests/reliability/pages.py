"""What the pages in docs/ hold: blocks of commands and of Python."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lines_of(block: str) -> Iterator[str]:
    """Yield the commands of a ```bash block, joined where a line ends in a backslash, without comments."""
    for line in block.replace("\\\n", " ").splitlines():
        yield from filter(None, map(str.strip, re.split(r"\s(?:&&|\||;)\s|\s?>\s.*", re.sub(r"(^|\s)#.*", "", line))))


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
