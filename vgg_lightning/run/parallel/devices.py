"""The number of processes of a run, and whether they can work together: checked before anything is written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.process import Seat
from vgg_lightning.run.parallel.rendezvous import patience

DDP = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
SHARDED = ("fsdp",)
Options = Mapping[str, Any]


def number_of_devices(devices: Any, accelerator: Any) -> int:
    """Return how many devices an option of the Trainer means on this machine."""
    gpus = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0
    if isinstance(devices, list):
        return len(devices)
    text = str(devices)
    if text in ("auto", "-1"):
        return max(gpus, 1)
    return int(text) if re.fullmatch(r"\d+", text) else len(text.strip(",").split(","))


def processes(trainer: Options, seat: Seat) -> int:
    """Return how many processes a run has with these options of the Trainer."""
    if seat.launcher:
        return seat.world_size
    return number_of_devices(trainer["devices"], trainer["accelerator"])


def check_processes(trainer: Options, batch_size: int, seat: Seat) -> None:
    """Raise UserError for options with which the processes of a run cannot work.

    Args:
        trainer: options of the Trainer.
        batch_size: images in a batch, over all processes.
        seat: of this process.
    """
    count = processes(trainer, seat)
    _check_strategy(trainer["strategy"], count)
    if seat.launcher:
        _check_slurm(seat)
    else:
        _check_devices(trainer, count)
    if count > 1:
        _check_several(trainer, batch_size, count)


def _check_strategy(name: Any, count: int) -> None:
    if not isinstance(name, str):
        raise UserError(f"{option('trainer.strategy')} takes a name: auto, ddp or fsdp")
    if name.lower() not in (*DDP, *SHARDED):
        raise UserError(f"{option('trainer.strategy')} {name} is not supported here: use ddp or fsdp, or leave it out")
    if name.lower() in SHARDED and count == 1:
        several = f"give {option('trainer.devices')} 2 or more"
        raise UserError(f"{option('trainer.strategy')} fsdp shares a network among processes: {several}")


def _check_slurm(seat: Seat) -> None:
    if seat.launcher == "slurm" and seat.world_size > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
        tasks = seat.world_size
        raise UserError(f"SLURM has {tasks} tasks, but not how many on each machine: give sbatch --ntasks-per-node")


def _check_devices(trainer: Options, count: int) -> None:
    if (trainer["num_nodes"] or 1) > 1:
        nodes = option("trainer.num_nodes")
        raise UserError(f"{nodes} is for torchrun or srun to say, which start the processes: docs/scale.md")
    here = os.cpu_count() or 1
    if _on_cpu(trainer) and count > max(4, here):
        raise UserError(
            f"{option('trainer.devices')} {count}: this machine has {here} cores; use at most {max(4, here)}"
        )
    gpus = torch.cuda.device_count()
    if not _on_cpu(trainer) and count > gpus:
        raise UserError(
            f"{option('trainer.devices')} {trainer['devices']}: this machine has {gpus} GPUs; use at most {gpus}"
        )


def _check_several(trainer: Options, batch_size: int, count: int) -> None:
    patience()  # raises where it is no number of seconds
    if _on_cpu(trainer) and trainer["sync_batchnorm"]:
        raise UserError(f"{option('trainer.sync_batchnorm')} works on GPUs only: leave it out")
    if batch_size < count:
        raise UserError(
            f"{option('data.batch_size')} {batch_size} is less than the {count} processes that share a batch: "
            f"use {count} or more, or fewer {option('trainer.devices')}"
        )


def _on_cpu(trainer: Options) -> bool:
    return trainer["accelerator"] == "cpu" or not torch.cuda.is_available()
