"""The options of `vgg-lightning fit` in addition to those of the model, the data and the Trainer."""

from __future__ import annotations

from lightning.pytorch.cli import LightningArgumentParser

from vgg_lightning.run.loggers.choice import LOGGERS
from vgg_lightning.show import SHOWS

# Those of them that `prepare` takes too; `--resume` has become a `--ckpt_path` by then.
NAMES = ("name", "early_stopping", "checkpoint_every_n_steps", "checkpoint_minutes", "show", "logger", "test")


def add_fit_options(parser: LightningArgumentParser) -> None:
    """Add them to the parser of fit."""
    parser.add_argument(
        "--name", type=str | None, default=None, help="Name of the run; default: that of the preset or network."
    )
    parser.add_argument(
        "--early_stopping",
        type=int,
        default=0,
        help="Stop after N validations in a row without a better val_acc (by default one follows every epoch); "
        "0 disables it.",
    )
    parser.add_argument(
        "--checkpoint_every_n_steps",
        type=int,
        default=0,
        help="Also save last.ckpt every N steps; 0 disables it.",
    )
    parser.add_argument(
        "--checkpoint_minutes",
        type=float,
        default=5.0,
        help="Also save last.ckpt every N minutes, but never so often that it slows training; 0 disables it.",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="Resume the newest run of this --name or --config; without either, the newest unfinished run. "
        "--resume auto starts a new run if there is none.",
    )
    parser.add_argument(
        "--show",
        type=str | list[str],
        default="default",
        help="Additional output in TensorBoard: all, default, none, or a list of "
        f"{', '.join(SHOWS)}; see docs/tensorboard.md.",
    )
    parser.add_argument(
        "--logger",
        type=str | list[str] | None,
        default=None,
        help=f"Where to log beside metrics.csv: one or a list of {', '.join(LOGGERS)} (by default tensorboard); see "
        "docs/loggers.md.",
    )
    parser.add_argument("--test", type=bool, default=True, help="Test the best checkpoint at the end.")
