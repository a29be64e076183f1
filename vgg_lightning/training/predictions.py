"""What a classifier says of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vgg_lightning.data.images.prepare import Pictures, to_uint8
from vgg_lightning.training.trained import Trained


class Predictions(NamedTuple):
    """What a classifier says of N pictures."""

    labels: Tensor  # int64 (N,)
    names: list[str]  # the labels' class names
    probabilities: Tensor  # float32 (N, num_classes)


@torch.no_grad()
def predict(classifier: Trained, images: Pictures, batch_size: int) -> Predictions:
    """Classify pictures in evaluation mode, and leave `classifier` in the mode that it was in.

    Raises:
        UserError: if a picture cannot be read or an array has another shape or type.
    """
    was_training = classifier.training
    classifier.eval()
    chunks: Sequence[Tensor] = torch.split(to_uint8(images), batch_size)
    logits = [classifier.average(classifier.preprocess(c.to(classifier.device))).float().cpu() for c in chunks]
    classifier.train(was_training)
    probabilities = torch.cat(logits).softmax(dim=1)
    labels = probabilities.argmax(dim=1)
    return Predictions(labels, [classifier.class_names[i] for i in labels.tolist()], probabilities)
