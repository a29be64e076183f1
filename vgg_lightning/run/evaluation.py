"""Evaluation in float32 whatever the precision of training.

A model is reopened, exported and served in float32. Its validation and its test are therefore computed in float32 too,
so that a number is the same wherever it is printed; who wants another one asks for it: `test --trainer.precision`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins import HalfPrecision, MixedPrecision
from torchmetrics import Metric


def evaluate_in_float32(trainer: L.Trainer) -> None:
    """Let a Trainer that trains in half precision validate and test in float32."""
    plugin: Any = trainer.precision_plugin
    context: Any = None
    if type(plugin) is MixedPrecision:  # the weights are in float32
        context = contextlib.nullcontext
    elif type(plugin) is HalfPrecision:
        context = lambda: _in_float32(trainer.lightning_module)  # noqa: E731
    if context:
        plugin.val_step_context = plugin.test_step_context = context


@contextlib.contextmanager
def _in_float32(module: L.LightningModule) -> Iterator[None]:
    """Hold the weights in float32, which takes every half-precision number as it is, and gives it back so."""
    before = module.dtype
    module.to(torch.float32)
    try:
        yield
    finally:
        metrics = [part for part in module.modules() if isinstance(part, Metric)]
        sums = [dict(metric.metric_state) for metric in metrics]  # which are not to be rounded
        module.to(before)
        for metric, found in zip(metrics, sums, strict=True):
            for name, value in found.items():
                setattr(metric, name, value)
