"""TensorBoard output of a run in addition to its curves: a table name -> callback, one a file, and the option --show.

Imports `networks`, `data`, `run` and `base`.
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.callbacks import Callback

from vgg_lightning.base.errors import UserError, nearest, option
from vgg_lightning.base.progress import say
from vgg_lightning.show.calibration import Calibration
from vgg_lightning.show.classes import ClassScores
from vgg_lightning.show.confusion import ConfusionMatrix
from vgg_lightning.show.curves import Curves
from vgg_lightning.show.filters import FirstLayer
from vgg_lightning.show.gradcam import GradCAM
from vgg_lightning.show.histograms import Histograms
from vgg_lightning.show.mistakes import Mistakes
from vgg_lightning.show.projector import Projector
from vgg_lightning.show.text import Text
from vgg_lightning.show.throughput import Throughput

SHOWS: dict[str, type[Callback]] = {
    "text": Text,
    "confusion": ConfusionMatrix,
    "classes": ClassScores,
    "mistakes": Mistakes,
    "gradcam": GradCAM,
    "filters": FirstLayer,
    "calibration": Calibration,
    "curves": Curves,
    "histograms": Histograms,
    "projector": Projector,
    "throughput": Throughput,
}
DEFAULT = tuple(name for name in SHOWS if name not in ("histograms", "throughput"))  # they grow with the network
WORDS: dict[str, tuple[str, ...]] = {"all": tuple(SHOWS), "default": DEFAULT, "none": ()}


GONE = ("layout",)  # names of earlier versions


def shown_names(show: str | Sequence[str] | None) -> list[str]:
    """Return the names that `--show` asks for, in the order of the table.

    Args:
        show: names or words, as a list or with commas between them; None is "none".

    Raises:
        UserError: if one is unknown.
    """
    parts = (show or "none").split(",") if isinstance(show, str) or show is None else list(show)
    chosen: set[str] = set()
    for name in (str(part).strip() for part in parts):
        if name in GONE:
            continue
        if name not in SHOWS and name not in WORDS:
            known = [*WORDS, *SHOWS]
            raise UserError(
                f"{option('show')} {name[:40]} is unknown{nearest(name, known)}: it takes {', '.join(known)}"
            )
        chosen |= set(WORDS.get(name, (name,)))
    return [name for name in SHOWS if name in chosen]


def show_callbacks(show: str | Sequence[str] | None) -> list[Callback]:
    """Return the callbacks that `--show` asks for. Raises UserError as `shown_names`."""
    if gone := [name for name in GONE if name in str(show)]:
        say(f"note: {option('show')} {gone[0]} does nothing: training and validation are in one chart without it")
    return [SHOWS[name]() for name in shown_names(show)]
