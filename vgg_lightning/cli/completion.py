"""`vgg-lightning --print_shtab SHELL`: tab completion of subcommands, their options, presets and networks."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import re

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.base.text import install_line
from vgg_lightning.presets import presets

SHELLS = ("bash", "zsh")
CONFIG = "_vgg_lightning_config"  # the shell function that completes --config: presets and files
PREAMBLE = {
    "bash": CONFIG + '() {{ compgen -W "{presets}" -- "$1"; compgen -f -- "$1"; }}',
    "zsh": CONFIG + "() {{ compadd -- {presets}; _files }}",
}
NETWORK_OPTIONS = ("--model.network",)
NETWORK_VERBS = ("summary", "compare")


def main(args: list[str]) -> int:
    """Print the completion script of a shell.

    Raises:
        UserError: if the shell is unknown, or shtab is not installed.
    """
    if len(args) != 1 or args[0] not in SHELLS:
        given = args[0] if args else ""
        raise UserError(f"--print_shtab {given}{nearest(given, SHELLS)}: it takes one of {', '.join(SHELLS)}")
    if importlib.util.find_spec("shtab") is None:
        raise UserError(f"--print_shtab needs the package shtab: {install_line('completion')}")
    print(script(args[0]))
    return 0


def script(shell: str) -> str:
    """Return the completion script of "bash" or "zsh"."""
    import shtab

    preamble = PREAMBLE[shell].format(presets=" ".join(presets()))
    text: str = shtab.complete(_parser(), shell, preamble=preamble)
    return text


def options_of(subcommand: str) -> dict[str, list[str]]:
    """Return the long options of a subcommand, as its help names them, with the words among which each chooses."""
    from vgg_lightning.cli.entry import SUBCOMMANDS, TRAINER
    from vgg_lightning.data.sources.catalogue import DATASETS
    from vgg_lightning.networks import NETWORKS

    module = importlib.import_module(SUBCOMMANDS[subcommand][0])
    if module.__name__ == TRAINER:
        from vgg_lightning.cli.help import choices

        found = {f"--{option.name}": choices(option) for option in module.options_of(subcommand)}
    else:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            module.main(["--help"])
        names = re.findall(r"^ +(?:-\w(?: \S+)?, )?(--[a-z][\w.]*)", out.getvalue(), re.MULTILINE)
        found = {name: [] for name in dict.fromkeys(names) if name != "--help"}
    words = {
        **{option: [*NETWORKS] for option in NETWORK_OPTIONS},
        "--data.dataset": [*DATASETS],
        "--dataset": [*DATASETS],
    }
    return found | {name: words[name] for name in found if name in words}


def _parser() -> argparse.ArgumentParser:
    from vgg_lightning.cli.entry import SUBCOMMANDS
    from vgg_lightning.networks import NETWORKS

    parser = argparse.ArgumentParser("vgg-lightning")
    subcommands = parser.add_subparsers()
    for subcommand, (_, about) in SUBCOMMANDS.items():
        own = subcommands.add_parser(subcommand, help=about)
        for option, choices in options_of(subcommand).items():
            action = own.add_argument(option, choices=choices or None)
            if option == "--config":
                action.complete = dict.fromkeys(SHELLS, CONFIG)  # type: ignore[attr-defined]
        if subcommand in NETWORK_VERBS:
            own.add_argument("network", choices=list(NETWORKS))
        if subcommand == "find":
            own.add_argument("what", choices=["lr", "batch_size"])
    return parser
