"""Runs `vgg-lightning` in two processes, quickly: imports everything once, then forks both for every request.

A request is a line of JSON on stdin: {"args": [...], "cwd": ..., "at": {...}, "snapshots": folder}.
The answers are those of `forks`.
"""

import os
import socket
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "reliability"))
import forks
from server import keep_snapshots, strike_at

import vgg_lightning.cli.lightning
from vgg_lightning.__main__ import main


def environment(rank, port):
    """Return what torchrun would say to a process."""
    return {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "ROLE_RANK": str(rank)},
        **{"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": f"test{port}"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }


def child(request):
    forks.default_signals()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    other = os.fork()
    os.environ.update(environment(int(other == 0), port))
    if other and request.get("at"):
        strike_at(**request["at"])
    if other and request.get("snapshots"):
        keep_snapshots(request["snapshots"])
    code = 99
    try:
        code = main(request["args"])
    finally:
        sys.stdout.flush()
        if other:
            second = os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])
            code = code if code == second else 98
        os._exit(code)


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert vgg_lightning.cli.lightning
    forks.serve(child)
