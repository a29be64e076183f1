"""What is asked of the LightningModule that is trained, predicts or teaches: `Classifier` has it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor, nn

from vgg_lightning.data.transforms import Preprocess


class Trained(Protocol):
    """A LightningModule with one network, and with what its pictures and classes are.

    Attributes:
        network: maps preprocessed pictures to logits (N, num_classes).
        preprocess: maps uint8 pictures to preprocessed ones.
        class_names: of the labels, from 0 on.
        teacher: what it learns from beside the labels, or None.
        training: the mode it is in.
    """

    network: nn.Module
    preprocess: Preprocess
    class_names: Sequence[str]
    teacher: Any
    training: bool
    __call__: Callable[..., Any]

    @property
    def hparams(self) -> Mapping[str, Any]:
        """Its options by name."""

    @property
    def trainer(self) -> L.Trainer:
        """The Trainer that it is attached to."""

    @property
    def device(self) -> torch.device:
        """The device that it is on."""

    @property
    def current_epoch(self) -> int:
        """The epoch under way, from 0 on."""

    @property
    def global_rank(self) -> int:
        """The number of this process in its run."""

    def build(self) -> nn.Module:
        """Return a new network of the kind that the options name."""

    def average(self, x: Tensor) -> Tensor:
        """Return the logits of preprocessed pictures, averaged over the views of test-time augmentation."""

    def train(self, mode: bool = True) -> Any:
        """Enter training mode, or leave it."""

    def eval(self) -> Any:
        """Enter evaluation mode."""

    def to(self, device: torch.device) -> Any:
        """Move it to a device."""
