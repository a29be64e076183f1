"""Examples per second, and the share of the processor's peak that the network uses."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn

from vgg_lightning.data.batches import Batch
from vgg_lightning.networks.tracing import trace_layers
from vgg_lightning.run.lightning_private import MeasuringThroughput
from vgg_lightning.run.loggers import boards
from vgg_lightning.run.loggers.boards import Board

WINDOW = 50  # batches over which the speed is averaged
SHOWN = {
    "samples_per_sec": "examples_per_second",
    "device/samples_per_sec": "examples_per_second_per_device",
    "device/flops_per_sec": "flops_per_second_per_device",
    "device/mfu": "mfu",
}


class Throughput(MeasuringThroughput):
    """Lightning's ThroughputMonitor for this project's batches; its curves are no metrics of the run.

    metrics.csv stays free of them: two runs with the same seed have the same one. MFU is the share of the device's
    peak that the multiply-adds of the network take: of the peak that Lightning knows for a GPU, else of the fastest
    matrix product that is measured when the run starts.
    """

    def __init__(self) -> None:
        super().__init__(batch_size_fn=lambda batch: Batch.of(batch).share.own, window_size=WINDOW)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the device's peak."""
        super().setup(trainer, pl_module, stage)
        if stage != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        self.expect(self.available_flops or measured_peak(trainer.strategy.root_device))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the floating-point operations of a batch, at the first one."""
        if trainer.is_global_zero and not hasattr(pl_module, "flops_per_batch"):
            pl_module.flops_per_batch = training_flops(pl_module, len(batch[1]))  # type: ignore[assignment]

    def show(self, trainer: L.Trainer, measured: dict[str, Any]) -> None:
        """Write the curves."""
        step = max(trainer.global_step - 1, 0)

        def add(board: Board) -> None:
            for key in SHOWN.keys() & measured.keys():
                board.add_scalar(f"throughput/{SHOWN[key]}", float(measured[key]), step)

        boards.show(trainer, add)


def training_flops(model: Any, batch_size: int) -> int:
    """Return the floating-point operations of a batch of `batch_size` images, forward and backward: 2 a multiply-add.

    Args:
        model: the Classifier.
        batch_size: images in the batch of one device.
    """
    size = model.hparams["image_size"]
    with torch.device("meta"):
        layers = trace_layers(model.build(), (model.hparams["in_channels"], size, size))
    return 2 * batch_size * sum(layer.training_macs for layer in layers)


def measured_peak(device: torch.device, size: int = 1024) -> int:
    """Return the operations per second of a float32 matrix product, the fastest of five."""
    a = torch.ones(size, size, device=device)
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - begin)
    return round(2 * size**3 / min(seconds))
