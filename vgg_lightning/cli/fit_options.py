"""The options of `vgg-lightning fit` beside those of the model, the data and the Trainer."""

from __future__ import annotations

from lightning.pytorch.cli import LightningArgumentParser

from vgg_lightning.run.loggers.choice import LOGGERS
from vgg_lightning.show import SHOWS

# Those of them that `prepare` takes too; `--resume` has become a `--ckpt_path` by then.
NAMES = ("name", "early_stopping", "checkpoint_every_n_steps", "checkpoint_minutes", "show", "logger", "test")


def add_fit_options(parser: LightningArgumentParser) -> None:
    """Add them to the parser of fit."""
    parser.add_argument("--name", type=str | None, default=None, help="Name of the run; else preset or network.")
    parser.add_argument(
        "--early_stopping",
        type=int,
        default=0,
        help="Stop after so many validations in a row (by default one follows every epoch) without a better "
        "val_acc; 0 never stops early.",
    )
    parser.add_argument(
        "--checkpoint_every_n_steps",
        type=int,
        default=0,
        help="Save last.ckpt also whenever so many steps are done; 0 does not.",
    )
    parser.add_argument(
        "--checkpoint_minutes",
        type=float,
        default=5.0,
        help="Save last.ckpt also when it is so old, in minutes, but not so often that it costs time; 0 does not.",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="Resume the newest run of this --name or --config; without either, the newest run that is not finished. "
        "--resume auto starts the run where there is none yet.",
    )
    parser.add_argument(
        "--show",
        type=str | list[str],
        default="default",
        help="What to show in TensorBoard beside the curves: all, default, none, or a list of "
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
