"""The parser under the LightningCLI."""

from __future__ import annotations

import functools
import inspect
import operator
import typing
from typing import Any, Literal

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser

from vgg_lightning.base.errors import UserError
from vgg_lightning.cli.jsonargparse_private import type_hints
from vgg_lightning.cli.messages import plain


def trainer_hints() -> None:
    """Let the parser read options of the Trainer as `prepare` takes them.

    `--trainer.precision auto` is a word of this project. And `--trainer.limit_train_batches 1` is one batch, whatever
    else is installed: typing takes Optional[Union[int, float]] for Optional[Union[float, int]] if some library has
    asked for that one first; the parser would then read 1 as 1.0, which is the whole epoch.
    """
    init: Any = L.Trainer.__init__
    hints = inspect.unwrap(init).__annotations__
    for name, hint in hints.items():
        kinds = typing.get_args(hint)
        if int in kinds and float in kinds:
            ordered = sorted(kinds, key=lambda kind: (kind is type(None), kind not in (int, float), kind is float))
            hints[name] = functools.reduce(operator.or_, ordered)
    hints["precision"] = hints["precision"] | Literal["auto"]
    init.__annotations__.update(hints)


prefer_whole_numbers = trainer_hints  # the former name


class Parser(LightningArgumentParser):
    """The parser of LightningCLI, with a one-line error instead of the usage."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raise UserError with the option and what it takes."""
        raise UserError(plain(message, type_hints(self))) from ex
