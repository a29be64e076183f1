"""Lightning's strategies for several processes, as this project uses them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch.nn.parallel import DistributedDataParallel

from vgg_lightning.base.process import Seat
from vgg_lightning.run import collectives
from vgg_lightning.run.checkpoints.io import CheckpointNotWrittenError
from vgg_lightning.run.checkpoints.read import look_over
from vgg_lightning.run.parallel.devices import SHARDED, processes
from vgg_lightning.run.parallel.launcher import Launcher, stop_if_lost
from vgg_lightning.run.parallel.rendezvous import Meeting, patience

Facts = Callable[[], Mapping[str, str]]


class _Together:
    """What both strategies do beyond Lightning's.

    Attributes:
        command: the subcommand and its options, for the processes that Lightning starts.
        facts: what must be equal on all.
        meeting: where processes that were started all at once have met already.
    """

    command: Sequence[str]
    facts: Facts
    meeting: Meeting | None

    @functools.cached_property
    def launcher(self: Any) -> Launcher:
        """What starts the other processes, if nobody else does."""
        return Launcher(self.cluster_environment, self.num_processes, self.num_nodes, self.command)

    def _meet(self: Any) -> None:
        """Wait for all processes and compare them, before any of them waits for another one without an end."""
        if torch.distributed.is_initialized():
            return
        self.set_world_ranks()
        cluster = self.cluster_environment
        if self.meeting is None and self.world_size > 1:
            self.meeting = Meeting(self.global_rank, self.world_size, cluster.main_address, cluster.main_port)
        if self.meeting is not None:
            self.meeting.compare(self.facts(), look=stop_if_lost)

    def save_checkpoint(self: Any, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint in the first process, and let all know where that fails: none shall wait for another.

        Raises:
            CheckpointNotWrittenError: in all of them.
        """
        failure: CheckpointNotWrittenError | None = None
        try:
            super().save_checkpoint(checkpoint, filepath, storage_options)  # type: ignore[misc]
        except CheckpointNotWrittenError as error:
            failure = error
        if any(collectives.agree(failure is not None)):
            raise failure or CheckpointNotWrittenError(Path("of the run"), OSError("another process says why"))


class DataParallel(_Together, DDPStrategy):
    """DDP: each process has the whole network, and a share of every batch.

    The statistics of BatchNorm are those of the first process, as always with DDP; they are handed on before a
    validation and not with every step.
    """

    def __init__(self, command: Sequence[str], facts: Facts, meeting: Meeting | None, unused: bool = False) -> None:
        names = inspect.signature(DistributedDataParallel).parameters
        buffers = (
            "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        )  # before torch 2.15
        options: dict[str, Any] = {"gradient_as_bucket_view": True, "find_unused_parameters": unused, buffers: False}
        super().__init__(timeout=timedelta(seconds=patience()), **options)
        self.command, self.facts, self.meeting = command, facts, meeting

    def setup_distributed(self) -> None:
        """Meet, then let Lightning and torch connect the processes."""
        self._meet()
        super().setup_distributed()
        collectives.open_control()


class Sharded(_Together, ModelParallelStrategy):
    """FSDP: each process holds a part of the weights, gradients and optimizer states, and a share of every batch.

    It is torch's `fully_shard` under Lightning's ModelParallelStrategy, which works on CPUs too; Lightning's
    FSDPStrategy asks for GPUs. A checkpoint is one file, as a single process writes it.

    Args:
        command: the subcommand and its options, for the processes that Lightning starts.
        facts: what must be equal on all.
        meeting: where processes that were started all at once have met already.
        parts: the number of processes.
    """

    def __init__(self, command: Sequence[str], facts: Facts, meeting: Meeting | None, parts: int) -> None:
        super().__init__(
            data_parallel_size=parts,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            timeout=timedelta(seconds=patience()),
        )
        self.command, self.facts, self.meeting = command, facts, meeting

    def setup_environment(self) -> None:
        """Meet, then let Lightning and torch connect the processes."""
        self._meet()
        super().setup_environment()
        collectives.open_control()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint once it is verified; Lightning unpickles it, since each process keeps its part alone."""
        look_over(Path(checkpoint_path))
        optimizers = self.optimizers
        self.optimizers = [optimizer for optimizer in optimizers if _has_state(optimizer)]  # Lightning expects one
        try:
            return super().load_checkpoint(checkpoint_path, weights_only=True)
        finally:
            self.optimizers = optimizers


def _has_state(optimizer: torch.optim.Optimizer) -> bool:
    sgd = isinstance(optimizer, torch.optim.SGD)
    return not sgd or any(group["momentum"] for group in optimizer.param_groups)


def choose_strategy(
    config: dict[str, Any], seat: Seat, command: Sequence[str], facts: Facts, meeting: Meeting | None
) -> None:
    """Put the strategy and the number of processes into the options of the Trainer, if there are several.

    Where torchrun or SLURM has started the processes, their number counts.

    Args:
        config: options of the Trainer, which are changed.
        seat: of this process.
        command: the subcommand and its options.
        facts: what must be equal on all processes.
        meeting: where those met that were started all at once.
    """
    name = str(config["strategy"]).lower()
    if seat.launcher:
        config["devices"], config["num_nodes"] = seat.local_size, seat.world_size // seat.local_size
    if seat.launcher == "slurm":
        config["plugins"] = [*config["plugins"], SLURMEnvironment(auto_requeue=False)]  # docs/scale.md: the script does
    if name == "auto" and processes(config, seat) == 1:
        return
    if name in SHARDED:
        config["strategy"] = Sharded(command, facts, meeting, parts=processes(config, seat))
    else:
        config["strategy"] = DataParallel(command, facts, meeting, unused=name.endswith("_true"))
