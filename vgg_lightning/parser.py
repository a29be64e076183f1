"""The parser under the LightningCLI."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from vgg_lightning.errors import UserError
from vgg_lightning.wording import plain


class Parser(LightningArgumentParser):
    """The parser of LightningCLI, with one line for an error in place of the usage."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raise UserError with the option and what it takes."""
        hints = {
            option[2:]: getattr(action, "_typehint", None)
            for action in self._all_actions()
            for option in action.option_strings
            if option.startswith("--")
        }
        raise UserError(plain(message, hints)) from ex

    def _all_actions(self) -> list[Any]:
        actions = list(self._actions)
        for action in self._actions:
            for parser in (
                (getattr(action, "choices", None) or {}).values() if hasattr(action, "_name_parser_map") else ()
            ):
                actions += parser._actions
        return actions
