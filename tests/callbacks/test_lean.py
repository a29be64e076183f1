"""Hooks that do nothing are not called; those that do something are."""

from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.profilers import SimpleProfiler
from small import data_folder

from vgg_lightning.prepare import prepare
from vgg_lightning.run.guards.finite import FiniteGuard
from vgg_lightning.run.lightning_private import EVERY_STEP, lean
from vgg_lightning.run.profiler import NoProfiler


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


def test_a_run_without_a_profiler_enters_nothing():
    parts = {"network": "lenet"}, {"dataset": "idx", "data_dir": str(data_folder())}
    trainer = {"accelerator": "cpu", "max_epochs": 1}
    profiler = prepare(*parts, trainer=trainer, record=False).trainer.profiler
    assert type(profiler) is NoProfiler
    with profiler.profile("outer") as outer, profiler.profile("inner"):
        assert outer is None
    asked = prepare(*parts, trainer={**trainer, "profiler": SimpleProfiler()}, record=False)
    assert type(asked.trainer.profiler) is SimpleProfiler
