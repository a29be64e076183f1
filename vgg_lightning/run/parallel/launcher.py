"""Starts the other processes of a run on this machine, and makes them end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins import ClusterEnvironment

from vgg_lightning.base.errors import LostProcessError
from vgg_lightning.base.machine import STOP_SIGNALS, send_self
from vgg_lightning.base.process import PARENT, own_environment
from vgg_lightning.run import collectives, signals
from vgg_lightning.run.collectives import is_loss
from vgg_lightning.run.lightning_private import ScriptLauncher, share_cores

GRACE = 5.0  # seconds that a process has to end by itself once another one has ended
SIGNALLED = {128 + number: number for number in STOP_SIGNALS}
IN_ORDER = (2, 3, *SIGNALLED)  # exit codes of a process that has said why it ends
_launchers: list[Launcher] = []  # of the run of this program
_ending = threading.Lock()  # held to take one out, or to signal this process while its launcher is there


class Launcher(ScriptLauncher):
    """Lightning's launcher, which starts this program again for each device, but with the options of the run.

    Lightning's takes those of `sys.argv`, which are others where the program is a test or a notebook; it looks at
    its children every 5 s and then kills at once, also what is about to end in order.

    Args:
        environment: says who the first process is.
        num_processes: on this machine.
        num_nodes: machines.
        command: the subcommand and its options.
    """

    def __init__(
        self, environment: ClusterEnvironment, num_processes: int, num_nodes: int, command: Sequence[str]
    ) -> None:
        super().__init__(environment, num_processes, num_nodes)
        self.command = [sys.executable, "-m", "vgg_lightning", *command]

    @property
    def is_interactive_compatible(self) -> bool:
        """A notebook may use it: the other processes do not run the notebook."""
        return True

    def launch(self, function: Callable[..., Any], *args: Any, trainer: L.Trainer | None = None, **kwargs: Any) -> Any:
        """Start the other processes, the first time; then call `function`."""
        self.cluster_environment.validate_settings(self.num_processes, self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._start()
        share_cores(self.num_processes)
        return function(*args, **kwargs)

    def _start(self) -> None:
        os.environ["MASTER_ADDR"] = self.cluster_environment.main_address
        os.environ["MASTER_PORT"] = str(self.cluster_environment.main_port)
        os.environ.update(NODE_RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(self.num_processes))
        package = str(Path(__file__).parents[3])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        _launchers.append(self)
        for rank in range(1, self.num_processes):
            own = {"LOCAL_RANK": str(rank), PARENT: str(os.getpid()), "PYTHONPATH": path}
            self.procs.append(subprocess.Popen(self.command, env={**os.environ, **own}))
        threading.Thread(target=self._watch, daemon=True, name="watch-processes").start()

    def _watch(self) -> None:
        """End this process some seconds after another one has failed, should it not do so itself."""
        while not (failed := [p for p in self.procs if p.poll()]):
            if all(p.returncode == 0 for p in self.procs) or self not in _launchers:
                return
            time.sleep(0.25)
        code = int(failed[0].returncode)
        with _ending:  # after the run nobody handles the signals any more
            if code in SIGNALLED and not signals.pending() and self in _launchers:
                send_self(SIGNALLED[code])
        time.sleep(GRACE)
        if self not in _launchers:
            return
        for process in self.procs:
            process.kill()
        if text := str(lost()):
            os.write(2, f"error: {text}\n".encode())
        os._exit(lost().code)

    def end(self, failed: bool) -> None:
        """Wait for the other processes, and end those that do not end themselves."""
        for seconds, end in ((GRACE if failed else 60.0, subprocess.Popen.terminate), (2.0, subprocess.Popen.kill)):
            until = time.monotonic() + seconds
            for process in self.procs:
                try:
                    process.wait(max(until - time.monotonic(), 0.01))
                except subprocess.TimeoutExpired:
                    end(process)
        for process in self.procs:
            process.wait()


@contextmanager
def together() -> Iterator[None]:
    """End all processes of a run when this one ends, and say so when it ends because another one has."""
    failed = True
    with own_environment():
        try:
            yield
            failed = False
        except Exception as error:
            if collectives.several() and is_loss(error):
                raise lost() from error
            raise
        finally:
            collectives.close()
            end_all(failed)


def end_all(failed: bool) -> None:
    """End what the run of this program has started."""
    while _launchers:
        _launchers[-1].end(failed)
        with _ending:
            _launchers.pop()


def stop_if_lost() -> None:
    """Raise LostProcessError if a process that this one has started has ended already."""
    if any(process.poll() is not None for launcher in _launchers for process in launcher.procs):
        raise lost()


def lost() -> LostProcessError:
    """Return which process has ended first as far as this one can tell, and with which code to follow it."""
    until = time.monotonic() + 1
    children = [process for launcher in _launchers for process in launcher.procs]
    while children and not any(p.poll() for p in children) and time.monotonic() < until:
        time.sleep(0.05)
    for rank, process in enumerate(children, 1):
        code = process.returncode
        if code in IN_ORDER:
            return LostProcessError("", code)
        if code:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended with code {code}"
            return LostProcessError(f"rank {rank} {how}")
    return LostProcessError("another process of this run has ended, or cannot be reached any more")
