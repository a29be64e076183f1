"""docs/promises.md: every promise names the tests that hold it, and these are there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "promises.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)


def promises():
    """Return the text of every promise, and of every row of a table."""
    items = re.split(r"\n(?=- |\n|#)", PAGE)
    return [" ".join(item.split()) for item in items if item.startswith("- ")]


@pytest.mark.parametrize("promise", promises(), ids=lambda promise: promise[2:60])
def test_every_promise_names_a_test(promise):
    assert re.search(r"`[\w/]+\.py::\w+`", promise)


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)), ids=lambda part: part)
def test_the_tests_that_are_named_are_there(file, name):
    found = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(found) if isinstance(node, ast.FunctionDef)}
