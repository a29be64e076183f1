"""The interfaces that the run kit requires beyond Lightning's hooks. A model needs none of them."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Restorable(Protocol):
    """A training loader from which a run resumes within an epoch, such as ResumableLoader.

    Lightning saves its state with every checkpoint, and restores it before the first batch of a resumed run. If the
    state has a number `position`, the batches of this epoch that were read, the kit may set it back by one: the batch
    at hand when a checkpoint is saved is not begun.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader stands: plain values and tensors."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the batch after the last one that was read when `state_dict` was taken."""
