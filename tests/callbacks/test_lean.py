"""Hooks that do nothing are not called; those that do something are."""

from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from vgg_lightning.run.guards.finite import FiniteGuard
from vgg_lightning.run.lightning_private import EVERY_STEP, lean


class Counts(Callback):
    def __init__(self):
        self.steps = 0

    def on_train_batch_end(self, *args):
        self.steps += 1


def test_only_hooks_that_do_nothing_are_left_out():
    counts, guard, saver = lean([Counts(), FiniteGuard(), ModelCheckpoint()])
    for callback in (counts, guard, saver):
        for name in EVERY_STEP:
            assert callable(getattr(callback, name)) == (getattr(type(callback), name) is not getattr(Callback, name))
    assert not callable(counts.on_before_backward)
    assert callable(guard.on_before_backward)
    counts.on_train_batch_end()
    assert counts.steps == 1
