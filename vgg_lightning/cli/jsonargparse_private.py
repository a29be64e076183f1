"""All that this package uses of jsonargparse and argparse beyond their public interface: seen in 4.53, Python 3.11.

tests/test_private.py holds it against the installed version.
"""

from __future__ import annotations

import argparse
from typing import Any


def options(parser: argparse.ArgumentParser) -> list[str]:
    """Return all options as one types them, such as --help: no method lists them."""
    return [option for action in parser._actions for option in action.option_strings]


def explained(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return option -> its text, in the parser's order, without those that ask for help: no method lists them."""
    return {
        action.dest: action.help or ""
        for action in parser._actions
        if f"--{action.dest}" in action.option_strings
        and action.help != argparse.SUPPRESS
        and not type(action).__name__.startswith(("_ActionHelp", "_Help", "_ActionConfigLoad"))
    }


def type_hints(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return option -> type hint, also of the subcommands, or None where an option has none: no method lists them."""
    actions = [*parser._actions]
    for action in parser._actions:
        if hasattr(action, "_name_parser_map"):
            for subparser in (getattr(action, "choices", None) or {}).values():
                actions += subparser._actions
    return {
        option[2:]: getattr(action, "_typehint", None)
        for action in actions
        for option in action.option_strings
        if option.startswith("--")
    }
