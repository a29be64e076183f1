"""README.md tells of every subcommand and of every room; that what it says works is looked at in test_docs.py."""

import re
from pathlib import Path

import vgg_lightning
from vgg_lightning.__main__ import SUBCOMMANDS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = Path(vgg_lightning.__file__).parent
NOT_ROOMS = {"__init__.py", "__main__.py", "version.py", "py.typed"}


def tree():
    """Return the names of the tree: those of the package, and those beside it."""
    (block,) = re.findall(r"```text\n(vgg_lightning/\n.*?)```", TEXT, re.DOTALL)
    rows = [re.match(r"( *)((?:[\w./]+ )+)", line + " ") for line in block.splitlines()]
    names = [(len(row[1]), name) for row in rows if row for name in row[2].split() if "/" in name or ".py" in name]
    return {name for indent, name in names if indent == 2}, {name for indent, name in names if indent == 0}


def test_every_subcommand_is_told_of():
    told = set(re.findall(r"`vgg-lightning ([a-z]+)", TEXT))
    assert set(SUBCOMMANDS) - told <= {"validate"}


def test_the_tree_has_every_room_and_no_other():
    rooms, _ = tree()
    there = {path.name + "/" * path.is_dir() for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert rooms == there - NOT_ROOMS


def test_the_tree_names_the_folders_beside_the_package():
    _, beside = tree()
    assert beside == {"vgg_lightning/", "tests/", "notebooks/", "benchmarks/", "lightning_logs/", "docs/"}
    assert all((ROOT / name).is_dir() for name in beside)
