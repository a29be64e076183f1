"""What is said of data that trains less well than it might."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from vgg_lightning.base.errors import option
from vgg_lightning.base.progress import say
from vgg_lightning.base.text import printable
from vgg_lightning.data.sources.catalogue import DATASETS, mirror_note


@rank_zero_only
def tell_of_lost_classes(labels: Tensor, train: Tensor, class_names: Sequence[str], val_size: int) -> None:
    """Say if all images of a class are held out, as may happen to a class of one or two.

    Args:
        labels: of all training images, int64 (N,).
        train: of those that are left for training.
        class_names: names of the labels.
        val_size: the option that holds them out.
    """
    before, left = (found.bincount(minlength=len(class_names)) for found in (labels, train))
    lost = [name for name, b, t in zip(class_names, before, left, strict=True) if b and not t]
    if lost:
        named = ", ".join(printable(name) for name in lost[:3]) + (", ..." if len(lost) > 3 else "")
        remedy = f"add images, or lower {option('data.val_size')} {val_size}"
        say(f"note: all training images of {named} are held out for validation: {remedy}")


@rank_zero_only
def advise(data: Mapping[str, Any], model: L.LightningModule | None) -> None:
    """Say what options of the data, or of the model that is trained on it, do not do what one may expect of them."""
    views = model.hparams.get("tta", "none") if model is not None else "none"
    if note := mirror_note(DATASETS[data["dataset"]], data["augment"] or [], views):
        say(note)
    if (channels := data["in_channels"]) > 1:
        say(f"note: {option('model.in_channels')} {channels}: the images are grey, each channel repeats them")
