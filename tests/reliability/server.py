"""Starts `vgg-lightning` processes quickly: imports everything once, then forks one process for every request.

A request is a line of JSON on stdin: {"args": [...], "cwd": ..., "at": {...}, "snapshots": folder}.
The answers are those of `forks`.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path

import forks
import torch

import vgg_lightning.cli.lightning
from vgg_lightning.__main__ import main
from vgg_lightning.classifier import Classifier
from vgg_lightning.run.checkpoints.io import VerifiedCheckpointIO


def strike_at(hook, count, signal=None, fill=None):
    """Send this process a signal, or fill a disk, within the `count`-th call of a method of the classifier."""
    original, calls = getattr(Classifier, hook), iter(range(1, 1 << 30))

    def patched(self, *args):
        if next(calls) == count:
            if fill:
                fill_disk(fill)
            else:
                os.kill(os.getpid(), signal)
        return original(self, *args)

    setattr(Classifier, hook, patched)


def fill_disk(path):
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def keep_snapshots(folder):
    """Copy the run folder after every checkpoint: what a kill at that moment would leave."""
    original, numbers = VerifiedCheckpointIO.save_checkpoint, iter(range(1 << 30))

    def patched(self, checkpoint, path, storage_options=None):
        original(self, checkpoint, path, storage_options)
        shutil.copytree(Path(path).parent.parent, Path(folder) / f"{next(numbers):03}_{Path(path).stem}")

    VerifiedCheckpointIO.save_checkpoint = patched


def child(request):
    forks.default_signals()
    if request.get("at"):
        strike_at(**request["at"])
    if request.get("snapshots"):
        keep_snapshots(request["snapshots"])
    code = 99
    try:
        code = main(request["args"])
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert vgg_lightning.cli.lightning
    forks.serve(child)
