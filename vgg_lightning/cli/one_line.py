"""The argument parser of the subcommands that need no torch to read their options."""

from __future__ import annotations

import argparse
from typing import NoReturn

from vgg_lightning.base.errors import UserError


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are `UserError`s, of one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the message instead of ending the process."""
        raise UserError(f"{message}: see {self.prog} --help")
