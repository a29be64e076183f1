"""This project's `predict` as `--trainer.precision bf16-mixed` computes it: see `vgg_lightning/run/bfloat16.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peers import project
from benchmarks.peers.work import Work


def predict(work: Work) -> Callable[[], Any]:
    """Return `Classifier.predict` of all test images within torch's autocast, which is what bf16-mixed is."""
    classify = project.predict(work)

    def run() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return classify()

    return run
