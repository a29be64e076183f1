"""How many images are held out, how large a batch is and how long a run is, where nobody says.

The numbers that suit the 60,000 images of Fashion-MNIST would hold out more than there are of 200 images of one's own,
or train for 10 steps: of own data they follow the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

STEPS = 400  # in all at least
FEWEST_STEPS = 10  # in an epoch at least
FEWEST_EPOCHS = 5
SMALLEST_BATCH = 8  # with which BatchNorm can still work


class Sizes(NamedTuple):
    """Number of validation images, of images in a batch, and of epochs: by default those of a known data set."""

    val_size: int = 5000
    batch_size: int = 128
    max_epochs: int = 10  # the book's

    @classmethod
    def of(
        cls, counts: Sequence[int], val_size: int | None = None, batch_size: int | None = None, steps: int = STEPS
    ) -> Self:
        """Return the sizes that suit own data.

        Args:
            counts: images of each class, of training and validation together.
            val_size: if it is said: the others follow it.
            batch_size: likewise.
            steps: of the whole run.
        """
        images, largest = sum(counts), cls()
        if val_size is None:
            one_of_each = math.ceil(images / max(min(counts), 1))  # since every class is held out in its share
            val_size = min(largest.val_size, max(images // 10, min(one_of_each, images // 4)))
        images = max(images - val_size, 1)
        if batch_size is None:
            power = int(math.log2(max(images / FEWEST_STEPS, 1)))
            batch_size = min(max(2**power, SMALLEST_BATCH), largest.batch_size)
        epochs = math.ceil(steps / math.ceil(images / batch_size))
        return cls(val_size, batch_size, max(FEWEST_EPOCHS, epochs))
