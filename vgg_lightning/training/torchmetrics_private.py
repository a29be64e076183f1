"""All that this package uses of torchmetrics beyond its public interface, as seen to work in torchmetrics 1.9.

tests/test_private.py holds it against the installed version.
"""

from __future__ import annotations

from torchmetrics import Metric


def count_as_updated(metric: Metric) -> None:
    """Let a metric whose sums were restored compute them without a warning that nothing was added.

    `update_count` can only be read, and is not among what `metric_state` has.
    """
    metric._update_count = max(metric._update_count, 1)
