"""What a model knows of the images that it was trained on: agreed with the data, and saved with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.progress import say
from vgg_lightning.data.batches import Batch, ImageData, check_agreement, check_input
from vgg_lightning.data.transforms import Preprocess
from vgg_lightning.loading.opened import class_names_of, preprocess_of
from vgg_lightning.run.lightning_private import attached_trainer


class ImageModel(L.LightningModule):
    """A LightningModule that knows how its images are prepared, and the names of their classes.

    A new model takes both from the data module that it is trained with. From then on they are the model's: they travel
    with its checkpoint, and another data module prepares its images as the model does.

    Attributes:
        preprocess: maps uint8 images (N, 1, 28, 28) to the input of the network.
        class_names: names of the labels, from 0; numbers until data or a checkpoint says more.
        settled: whether they are those of a training, and not to be replaced.
    """

    preprocess: Preprocess
    class_names: Sequence[str]
    settled = False

    def numbered(self) -> list[str]:
        """Return the names of classes that have none: numbers."""
        return [str(label) for label in range(self.hparams["num_classes"])]

    def meet(self, data: object, fit: bool) -> None:
        """Agree with a data module on preprocessing and class names; with what is none, there is nothing to agree on.

        Args:
            data: the data module, or None.
            fit: whether it is for training, which may give the model other classes.

        Raises:
            UserError: if its images or classes are not those of the model.
        """
        if isinstance(data, ImageData):
            check_agreement(data, self.hparams)
            if not self.settled:
                self.preprocess, self.class_names = data.preprocess, data.class_names
            self._meet_classes(list(data.class_names), fit)
            if (own := self.preprocess.describe()) != (other := data.preprocess.describe()):
                _say(f"images are {own}, as those that the model was trained on; the data alone has them {other}")
                data.preprocess = self.preprocess
        self.settled = self.settled or fit

    def given(self, batch: Any) -> Batch:
        """Return a batch as the network takes it; uint8 images of a plain loader are prepared as `predict` does it.

        Args:
            batch: a `Batch`; or a pair (images, labels), or for predict alone images, of another loader.

        Raises:
            UserError: if it is something else, or does not fit the model.
        """
        if isinstance(batch, Batch) and batch.images.is_floating_point():
            return batch
        found = Batch.of(batch)
        if not found.images.is_floating_point():
            found = found._replace(images=self.preprocess(found.images))
        return check_input(found, self.hparams, labelled=not self.trainer.predicting)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save class names and preprocessing."""
        checkpoint["class_names"] = list(self.class_names)
        checkpoint["preprocessing"] = self.preprocess.options()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore class names and preprocessing, which the data at hand follows."""
        self.class_names = class_names_of(checkpoint, self.hparams["num_classes"])
        self.preprocess = preprocess_of(checkpoint, self.hparams) or self.preprocess
        self.settled = True
        self.meet(getattr(attached_trainer(self), "datamodule", None), fit=False)

    def _meet_classes(self, names: list[str], fit: bool) -> None:
        own = list(self.class_names)
        if own == names or self.numbered() in (own, names):
            self.class_names = names if fit else own
            return
        told = f"{_first(names)}, the model was trained on {_first(own)}"
        if not fit:
            raise UserError(f"the classes of the data are {told}: give data of the same classes, in the same order")
        _say(f"the classes of the data are {told}: the model learns the new ones")
        self.class_names = names


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


_say = rank_zero_only(say)
