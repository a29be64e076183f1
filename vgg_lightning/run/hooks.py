"""What Lightning spends on callbacks that do nothing at a step."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch.callbacks import Callback

EVERY_STEP = (
    *("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_train_batch_end"),
)


def lean(callbacks: Iterable[Callback]) -> list[Callback]:
    """Return the callbacks without the hooks of every step that they inherit from `Callback` as they are.

    Lightning names and times each call, also of a hook that does nothing; it leaves out one that is not callable.
    """
    found = list(callbacks)
    for callback in found:
        for name in EVERY_STEP:
            if getattr(type(callback), name) is getattr(Callback, name):
                setattr(callback, name, None)
    return found
