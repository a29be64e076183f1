"""FSDP: a network in parts, one for each process."""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn


def shard(network: nn.Module, trainer: L.Trainer | None) -> None:
    """Leave in each process a part of every weight; a layer is put together while it is at work.

    Args:
        network: is changed, unless it has been before.
        trainer: that of the network. Without one, or with another strategy than ModelParallelStrategy, nothing is done.
    """
    if trainer is None or not isinstance(trainer.strategy, ModelParallelStrategy):
        return
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if isinstance(network, FSDPModule):
        return
    network.to(memory_format=torch.contiguous_format)  # fully_shard takes no other
    processes = trainer.strategy.device_mesh["data_parallel"]
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fully_shard(layer, mesh=processes)
    fully_shard(network, mesh=processes)


def own_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor in parts, or the tensor itself."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part
