"""FSDP: a network in parts, one for each process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def shard(network: nn.Module, mesh: Any) -> None:
    """Leave in each process a part of every weight; a layer is put together while it is at work.

    Args:
        network: is changed, unless it has been before.
        mesh: Lightning's, whose dimension "data_parallel" has all processes.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if isinstance(network, FSDPModule):
        return
    network.to(memory_format=torch.contiguous_format)  # fully_shard takes no other
    processes = mesh["data_parallel"]
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fully_shard(layer, mesh=processes)
    fully_shard(network, mesh=processes)


def own_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor in parts, or the tensor itself."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part
