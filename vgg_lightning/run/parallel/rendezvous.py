"""The start of a run of several processes: waits for all, and checks that they have the same code, data and options."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.process import Seat
from vgg_lightning.version import __version__

PATIENCE = "VGG_LIGHTNING_PATIENCE"  # seconds that processes wait for one that does not answer
DEFAULT_PATIENCE = 300.0
_FAREWELL = 3.0  # seconds that the first process stays for the others to read why the run ends


class Meeting:
    """A table of words that all processes of a run read and write, on torch's TCPStore.

    Args:
        rank: of this process.
        world_size: how many are to come.
        address: of the first one.
        port: at which it listens.
        served: something else listens there already, such as torchrun.

    Raises:
        UserError: if the first process does not come.
    """

    def __init__(self, rank: int, world_size: int, address: str, port: int, served: bool = False) -> None:
        self.rank, self.world_size = rank, world_size
        self.seconds = patience()
        self._deadline = time.monotonic() + self.seconds
        # A table that outlives a restart must not mix two attempts. A fresh one must not ask: torchrun counts restarts
        # for each machine, so one that came later has another number.
        self._attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if served else "0"
        leads = rank == 0 and not served
        if not leads:
            self._wait(functools.partial(_listens, address, port), f"rank 0 has not come to {address}, port {port},")
        self._store = TCPStore(
            address, port, world_size, leads, timedelta(seconds=60), wait_for_workers=False, multi_tenant=True
        )

    def share(self, name: str, make: Callable[[], str]) -> str:
        """Return the word that the first process makes.

        Raises:
            UserError: if it does not say one.
        """
        key = self._key(name)
        if self.rank == 0:
            self._store.set(key, make())
        self._wait(lambda: self._store.check([key]), f"rank 0 has not said its {name}")
        return self._store.get(key).decode()

    def compare(self, facts: Mapping[str, str], look: Callable[[], None] = lambda: None) -> None:
        """Wait for all processes, and see that they agree.

        Args:
            facts: what must be equal.
            look: called while waiting; may raise.

        Raises:
            UserError: on all of them, if one does not come, or has another fact than the first one.
        """
        self._store.set(self._key("in", self.rank), json.dumps(facts))
        keys = {rank: self._key("in", rank) for rank in range(self.world_size)}

        def missing() -> list[int]:
            return [rank for rank, key in keys.items() if not self._store.check([key])]

        while absent := missing():
            look()
            if time.monotonic() > self._deadline:
                self._part(
                    [rank for rank in keys if rank not in absent],
                    f"{self.world_size - len(absent)} of {self.world_size} processes have come within "
                    f"{self.seconds:g} s, {_ranks(absent)} not: start them all, or wait longer with {PATIENCE}",
                )
            time.sleep(0.05)
        found = {rank: json.loads(self._store.get(key)) for rank, key in keys.items()}
        for name in facts:
            if others := [rank for rank in found if found[rank].get(name) != found[0].get(name)]:
                have = "has" if len(others) == 1 else "have"
                self._part(list(keys), f"{_ranks(others)} {have} other {name} than rank 0: {SAME}")

    def _key(self, *parts: object) -> str:
        return "/".join(map(str, ("vgg_lightning", self._attempt, *parts)))

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        while not done():
            if time.monotonic() > self._deadline:
                raise _together(f"{what} within {self.seconds:g} s: start it, or wait longer with {PATIENCE}")
            time.sleep(0.05)  # in Python, so that a signal is obeyed

    def _part(self, ranks: list[int], why: str) -> None:
        """Raise why the run ends; the first process, which keeps the table, does so as the last one of those here."""
        self._store.set(self._key("out", self.rank), "")
        until = time.monotonic() + _FAREWELL
        keys = [self._key("out", rank) for rank in ranks if rank]
        while self.rank == 0 and time.monotonic() < until and not self._store.check(keys):
            time.sleep(0.05)
        raise _together(why)


SAME = "install the same version, give the same options and the same data to all"


def patience() -> float:
    """Return the seconds that processes wait for each other."""
    text = os.environ.get(PATIENCE, "")
    try:
        seconds = float(text or DEFAULT_PATIENCE)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise UserError(f"{PATIENCE} {text} is out of range: it takes seconds, more than 0")
    return seconds


def facts(checksums: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, str]:
    """Return what must be equal on all processes, each as a short text.

    Args:
        checksums: of the data files.
        options: of the run that must be equal, as JSON takes them.
    """
    versions = f"{__version__}, torch {torch.__version__.partition('+')[0]}, lightning {L.__version__}"
    return {
        "versions of vgg_lightning, torch or lightning": versions,
        "code": _source(),
        "data": _digest(checksums),
        "options": _digest(options),
    }


def meeting_before_trainer(seat: Seat) -> Meeting | None:
    """Return the meeting of processes that torchrun or SLURM has started all at once."""
    if seat.world_size == 1 or not seat.launcher:
        return None
    if seat.launcher == "slurm":
        cluster = SLURMEnvironment(auto_requeue=False)
        return Meeting(seat.rank, seat.world_size, cluster.main_address, cluster.main_port)
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Meeting(seat.rank, seat.world_size, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), served)


def _source() -> str:
    root = Path(__file__).parents[2]  # of all code
    files = sorted(root.rglob("*.py"))
    return _digest({str(file.relative_to(root)): file.read_text(encoding="utf-8") for file in files})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def _ranks(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"rank{'s' if len(numbers) > 1 else ''} {shown}"


def _together(text: str) -> UserError:
    error = UserError(text)
    error.everywhere = True
    return error
