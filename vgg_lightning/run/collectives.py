"""Communication between the processes of a run. It costs nothing with a single process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch import distributed as dist

_control: Any = None  # a group on the CPU beside NCCL's, so that a few bits do not wait for a GPU


def several() -> bool:
    """Return whether there is another process to talk to."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def open_control() -> None:
    """Make the group for `agree` and `gather`. Every process calls it, once they have met."""
    global _control
    if _control is None and dist.get_backend() != "gloo":
        _control = dist.new_group(backend="gloo")


def close() -> None:
    """Leave the group of processes."""
    global _control
    _control = None
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def agree(*values: int) -> list[int]:
    """Return the largest of each value over all processes."""
    if not several():
        return list(values)
    tensor = torch.tensor(values)
    dist.all_reduce(tensor, dist.ReduceOp.MAX, group=_control)
    return [int(value) for value in tensor.tolist()]


def gather(value: Any) -> list[Any]:
    """Return the value that each process has, by rank: plain values and tensors on the CPU."""
    if not several():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=_control)
    return values


def is_loss(error: BaseException) -> bool:
    """Return whether an error says that another process does not answer."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    return bool(names & {"DistError"}) or (
        isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "NCCL", "Connection", "TCPStore"))
    )


@torch.no_grad()
def follow_first(tensors: Iterable[Tensor]) -> None:
    """Give tensors the values that they have in the first process."""
    if several():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


# FSDP: a network in parts, one for each process.


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
