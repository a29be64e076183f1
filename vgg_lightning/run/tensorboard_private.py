"""All that this package uses of torch's TensorBoard writer beyond its public interface: seen in torch 2.15, tb 2.21.

tests/test_private.py holds each function against the installed versions.
"""

from __future__ import annotations

import threading
from typing import Any

from torch.utils.tensorboard import SummaryWriter


def add_summary(writer: SummaryWriter, summary: Any, step: int | None = None) -> None:
    """Write a Summary as it is. The public methods make their own: of an image, a larger PNG."""
    writer._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]


def writes_events(thread: threading.Thread | None) -> bool:
    """Return whether a thread is the one in which TensorBoard writes, whose errors nobody can catch."""
    return type(thread).__name__ == "_AsyncWriterThread"
