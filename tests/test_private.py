"""What this package uses of libraries beyond their public interfaces: in one module for each, and held to what it does.

When a new version of a library breaks a run, a test of the second half fails that has library, version and interface in
its name. The first half sees to it that nothing private is used anywhere else.
"""

import ast
import asyncio
import contextlib
import importlib
import inspect
import pkgutil
import re
import signal
import subprocess
import sys
import threading
import warnings
from importlib.metadata import version
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

import vgg_lightning
from vgg_lightning.base import torch_private
from vgg_lightning.cli import jsonargparse_private
from vgg_lightning.run import lightning_private, tensorboard_private
from vgg_lightning.serve import gradio_private
from vgg_lightning.sweep import optuna_private

PRIVATE = {
    "lightning": lightning_private,
    "torch": torch_private,
    "tensorboard": tensorboard_private,
    "optuna": optuna_private,
    "gradio": gradio_private,
    "jsonargparse": jsonargparse_private,
}
MODULES = sorted(module.name for module in pkgutil.walk_packages(vgg_lightning.__path__, "vgg_lightning."))
OUTSIDE = [name for name in MODULES if not name.endswith(("_private", ".__main__"))]

# Nothing private is used outside of the modules above.

UNDERSCORE = re.compile(r"_[A-Za-z]\w*")
OF_PYTHON = {
    "_exit",
    "_asdict",
    "_fields",
    "_replace",
    "_abc_impl",
    "_is_protocol",
    "_is_runtime_protocol",
}  # documented, or in every class
# No underscore, but no documentation either.
INNER = {"fit_loop", "epoch_loop", "val_loop", "loops", "combined_loader", "found_inf"} | {
    "async_move_resource_to_block_cache"
}

# What is still used elsewhere. This list may only get shorter.
LATER = {
    "vgg_lightning.classifier": {"_trainer"},
}


def is_private(name):
    return bool(UNDERSCORE.fullmatch(name)) and name not in OF_PYTHON


def texts(nodes):
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def used_of_others(tree):
    """Yield the private names in a module that are asked of anything but `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names = [] if own and node.attr not in INNER else [node.attr]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr", "delattr"):
            names = texts(node.args)
        elif isinstance(node, ast.Subscript | ast.Compare):  # the key of a state, or the name of a class
            names = texts(ast.iter_child_nodes(node))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", "") or ""
            names = [part for dotted in (module, *(a.name for a in node.names)) for part in dotted.split(".")]
        else:
            continue
        yield from (name for name in names if is_private(name) or name in INNER)


def private_names(kind):
    """Return the private names of a class: methods, and attributes that its own methods read or set."""
    try:
        attributes = re.findall(r"\b(?:self|cls)\.(_[A-Za-z]\w*)", inspect.getsource(kind))
    except (OSError, TypeError):  # not written in Python
        attributes = []
    return {name for name in (*vars(kind), *attributes) if is_private(name)}


def inherited(module):
    """Yield the private names that a module's classes use of, or take from, those of libraries that they stand on."""
    for kind in vars(module).values():
        if isinstance(kind, type) and kind.__module__ == module.__name__:
            bases = [base for base in kind.__mro__ if not base.__module__.startswith("vgg_lightning")]
            yield from private_names(kind) & set().union(*map(private_names, bases))


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_private_of_a_library_is_used_elsewhere(name):
    module = importlib.import_module(name)
    found = {*used_of_others(ast.parse(inspect.getsource(module) or "")), *inherited(module)}
    assert found == LATER.get(name, set())


def test_private_uses_are_seen():
    text = """
from torch.nn.modules.batchnorm import _BatchNorm
import lightning.pytorch._graveyard
trainer._signal_connector
super()._instantiate_trainer()
getattr(action, "_typehint")
name == "_AsyncWriterThread"
checkpoint["loops"]["_batches_that_stepped"]
trainer.fit_loop
self._own, os._exit, __name__
"""
    found = {"_BatchNorm", "_graveyard", "_signal_connector", "_instantiate_trainer", "_typehint", "fit_loop"} | {
        *("_AsyncWriterThread", "loops", "_batches_that_stepped")
    }
    assert set(used_of_others(ast.parse(text))) == found


def test_private_names_of_base_classes_are_seen():
    assert "_average_model" in private_names(WeightAveraging)
    assert set(inherited(lightning_private)) == {
        *("_compute", "_last_global_step_saved", "_save_topk_checkpoint", "_should_skip_saving_checkpoint"),
        "_throughputs",
    }


# What is used does what it is used for.

CHECKS = {}


def holds(interface):
    """Enter a check of one function or class of the modules above."""

    def enter(check):
        assert interface not in CHECKS
        CHECKS[interface] = check
        return check

    return enter


class Rows:
    """A loader of batches 0, 1, 2, ... that can be put back to where it was."""

    def __init__(self, batches):
        self.batches, self.position, self.given = batches, 0, []

    def __len__(self):
        return self.batches

    def __iter__(self):
        begin, self.position = self.position % self.batches, 0
        for number in range(begin, self.batches):
            self.position = number + 1
            self.given.append(number)
            yield torch.full((2, 1), float(number))

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class Line(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.flops_per_batch = 8

    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(folder, *callbacks, rows=None, ckpt_path=None, validate=None, **options):
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    options = {**quiet, "enable_checkpointing": False, "max_epochs": 1, "num_sanity_val_steps": 0, **options}
    trainer = L.Trainer(accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Line(), rows or Rows(4), validate, ckpt_path=ckpt_path)
    return trainer


@holds(lightning_private.batches_begun)
def _(folder):
    begun = []
    each = LambdaCallback(
        on_train_batch_start=lambda trainer, *_: begun.append(lightning_private.batches_begun(trainer))
    )
    trainer = fit(folder, each, accumulate_grad_batches=2, max_epochs=2)
    assert begun == [1, 2, 3, 4, 5, 6, 7, 8]
    assert lightning_private.batches_begun(trainer) == 8
    assert trainer.global_step == 4


@holds(lightning_private.accumulates)
def _(folder):
    found = []
    each = LambdaCallback(on_train_batch_end=lambda trainer, *_: found.append(lightning_private.accumulates(trainer)))
    fit(folder, each, rows=Rows(5), accumulate_grad_batches=2)
    assert found == [True, False, True, False, False]  # the last batch of an epoch is followed by a step


@holds(lightning_private.set_max_steps)
def _(folder):
    early = LambdaCallback(on_train_start=lambda trainer, *_: lightning_private.set_max_steps(trainer, 2))
    trainer = fit(folder, early)
    assert trainer.max_steps == trainer.global_step == 2


def resumed_at_once(folder, file, look):
    """Go on from a file for no step: return what `look` finds in `on_train_start`, and the Trainer afterwards."""
    found = []

    def begin(trainer, *_):
        found.append(look(trainer))
        lightning_private.set_max_steps(trainer, 1)

    trainer = fit(folder, LambdaCallback(on_train_start=begin), validate=Rows(3), ckpt_path=file, max_epochs=2)
    return found.pop(), trainer


@holds(lightning_private.resumes_before_validation)
def _(folder):
    for hook, at, before in (("on_validation_batch_start", 0, True), ("on_train_batch_end", 2, False)):
        change = lightning_private.before_validation if before else lambda checkpoint: None
        file = saved(folder, hook, at, change, validate=Rows(3))
        found, trainer = resumed_at_once(folder, file, lightning_private.resumes_before_validation)
        assert found is before
        assert trainer.global_step == 4 if before else 3


@holds(lightning_private.end_epoch_at_hand)
def _(folder):
    ended = fit(folder, max_epochs=2, max_steps=3)
    file = saved(folder, "on_train_batch_end", 2, lambda checkpoint: None)
    _, resumed = resumed_at_once(folder, file, lightning_private.end_epoch_at_hand)
    for trainer in (ended, resumed):
        loop = trainer.fit_loop.epoch_loop
        assert (trainer.current_epoch, trainer.global_step, loop._batches_that_stepped) == (1, 3, 3)
        assert lightning_private.batches_of_cut_epoch(trainer) == 3


@holds(lightning_private.count_validation_batches_anew)
def _(folder):
    trainer = fit(folder, validate=Rows(3))
    counts = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
    assert (counts.ready, counts.completed) == (3, 3)
    counts.ready = 4  # as after a resume in the middle of a validation
    lightning_private.count_validation_batches_anew(trainer)
    assert (counts.ready, counts.completed) == (3, 3)


@holds(lightning_private.attached_trainer)
def _(folder):
    assert lightning_private.attached_trainer(Line()) is None
    trainer = fit(folder)
    assert lightning_private.attached_trainer(trainer.lightning_module) is trainer


@holds(lightning_private.leave_signals_alone)
def _(folder):
    during = []
    note = LambdaCallback(on_train_start=lambda *_: during.append(signal.getsignal(signal.SIGTERM)))
    before = signal.getsignal(signal.SIGTERM)
    trainer = fit(folder, note)
    assert during.pop() != before  # Lightning has its own
    assert callable(trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor)
    assert "_broadcast_sigterm_tensor()" in inspect.getsource(type(trainer.fit_loop.epoch_loop))
    fit(folder, LambdaCallback(setup=lambda trainer, *_, **__: lightning_private.leave_signals_alone(trainer)), note)
    assert during.pop() == before


@holds(lightning_private.guard_restoring)
def _(folder):
    seen, inside = [], []

    @contextlib.contextmanager
    def guard():
        inside.append(True)
        yield
        inside.pop()

    def note(name):
        return lambda *_, **__: seen.append((name, bool(inside)))

    hooks = ("on_load_checkpoint", "load_state_dict", "on_fit_start", "on_train_start", "on_test_start")
    callback = LambdaCallback(
        setup=lambda trainer, *_, **__: lightning_private.guard_restoring(trainer, guard),
        **{name: note(name) for name in hooks if name != "load_state_dict"},
    )
    callback.state_dict, callback.load_state_dict = lambda: {"a": 1}, note("load_state_dict")
    trainer = fit(folder, callback)
    trainer.save_checkpoint(folder / "saved.ckpt")
    seen.clear()
    fit(folder, callback, ckpt_path=folder / "saved.ckpt", max_epochs=3)
    assert dict(seen) == {
        **{"on_load_checkpoint": True, "load_state_dict": True},
        **{"on_fit_start": False, "on_train_start": False},
    }
    broken = torch.load(folder / "saved.ckpt", weights_only=False)
    for key, value in (("optimizer_states", 3), ("loops", {}), ("pytorch-lightning_version", "x"), ("callbacks", 3)):
        torch.save({**broken, key: value}, folder / "broken.ckpt")
        inside.clear()
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is
            fit(folder, callback, ckpt_path=folder / "broken.ckpt", max_epochs=3)
        assert inside, f"{key} is used outside"


def saved(folder, hook, at, change, **options):
    """Save in the hook of batch `at`; change what was saved, and return its file."""
    file = folder / "saved.ckpt"

    def save(trainer, module, *args):
        if next(value for value in args if isinstance(value, int)) == at:  # the number of the batch
            trainer.save_checkpoint(file)

    fit(folder, LambdaCallback(**{hook: save}), **options)
    checkpoint = torch.load(file, weights_only=False)
    change(checkpoint)
    torch.save(checkpoint, file)
    return file


def step_back(checkpoint):
    lightning_private.take_back_batch(checkpoint)
    for loader in lightning_private.saved_loader_states(checkpoint):
        loader["position"] -= 1


@holds(lightning_private.take_back_batch)
def _(folder):
    file = saved(folder, "on_train_batch_start", 2, step_back)
    resumed = Rows(4)
    trainer = fit(folder, rows=resumed, ckpt_path=file)
    assert resumed.given == [2, 3]
    assert (trainer.global_step, lightning_private.batches_begun(trainer)) == (4, 4)


@holds(lightning_private.saved_loader_states)
def _(folder):
    found = []
    saved(
        folder,
        "on_train_batch_start",
        2,
        lambda checkpoint: found.extend(lightning_private.saved_loader_states(checkpoint)),
    )
    assert found == [{"position": 3}]


@holds(lightning_private.save_loader_states)
def _(folder):
    file = saved(
        folder,
        "on_train_batch_end",
        1,
        lambda checkpoint: lightning_private.save_loader_states(checkpoint, [{"position": 3}]),
    )
    resumed = Rows(4)
    fit(folder, rows=resumed, ckpt_path=file)
    assert resumed.given == [3]


@holds(lightning_private.training_loaders)
def _(folder):
    rows, found = Rows(4), []
    note = LambdaCallback(on_train_start=lambda trainer, *_: found.extend(lightning_private.training_loaders(trainer)))
    fit(folder, note, rows=rows)
    assert found == [rows]
    assert lightning_private.training_loaders(L.Trainer(accelerator="cpu", logger=False)) == []


@holds(lightning_private.batches_of_epoch)
def _(folder):
    trainer = fit(folder, max_epochs=-1, max_steps=1)
    assert lightning_private.batches_of_epoch(trainer) == 4
    found = []

    class Asks(Line):
        def configure_optimizers(self):
            found.append((self.trainer.num_training_batches, lightning_private.batches_of_epoch(self.trainer)))
            return super().configure_optimizers()

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        L.Trainer(max_steps=1, accelerator="cpu", enable_model_summary=False, **quiet).fit(Asks(), Rows(4))
    assert found == [(float("inf"), 4)]


@holds(lightning_private.steps_of_epoch)
def _(folder):
    assert lightning_private.steps_of_epoch(fit(folder, rows=Rows(5), accumulate_grad_batches=2)) == 3


@holds(lightning_private.epochs_finished)
def _(folder):
    assert lightning_private.epochs_finished(fit(folder, max_epochs=2)) == 2
    assert lightning_private.epochs_finished(fit(folder, max_epochs=2, max_steps=6)) == 1


@holds(lightning_private.batches_of_cut_epoch)
def _(folder):
    assert lightning_private.batches_of_cut_epoch(fit(folder, max_epochs=2)) == 0
    assert lightning_private.batches_of_cut_epoch(fit(folder, max_epochs=2, max_steps=6)) == 2
    assert lightning_private.batches_of_cut_epoch(fit(folder, max_epochs=2, max_steps=4)) == 0


@holds(lightning_private.ends_epoch_early)
def _(folder):
    found = []
    note = LambdaCallback(on_train_epoch_end=lambda tr, *_: found.append(lightning_private.ends_epoch_early(tr)))
    fit(folder, note, max_epochs=2, max_steps=6)
    assert found == [False, True]


@holds(lightning_private.batches_of_begun_epoch)
def _(folder):
    for hook, at, begun in (("on_train_batch_end", 2, 3), ("on_validation_batch_start", 0, 4)):
        file = saved(folder, hook, at, lambda checkpoint: None, validate=Rows(3))
        assert lightning_private.batches_of_begun_epoch(torch.load(file, weights_only=False)) == begun
    fit(folder).save_checkpoint(folder / "ended.ckpt")
    assert lightning_private.batches_of_begun_epoch(torch.load(folder / "ended.ckpt", weights_only=False)) == 0


@holds(lightning_private.take_back_end_of_epoch)
def _(folder):
    file = folder / "cut.ckpt"
    fit(folder, LambdaCallback(on_train_epoch_end=lambda tr, *_: tr.save_checkpoint(file)), max_steps=3, max_epochs=2)
    checkpoint = torch.load(file, weights_only=False)
    lightning_private.take_back_end_of_epoch(checkpoint)
    torch.save(checkpoint, file)
    resumed = Rows(4)
    trainer = fit(folder, rows=resumed, ckpt_path=file, max_epochs=2)
    assert resumed.given == [3, 0, 1, 2, 3]
    assert (trainer.global_step, trainer.current_epoch) == (8, 2)


@holds(lightning_private.restore_loaders)
def _(folder):
    """A schedule asks how many steps there are, which makes the loaders before the checkpoint is read."""
    file = saved(folder, "on_train_batch_end", 1, lambda checkpoint: None)

    rows = Rows(4)
    asks = LambdaCallback(on_fit_start=lambda trainer, *_: trainer.estimated_stepping_batches)
    restore = LambdaCallback(on_train_start=lambda trainer, *_: lightning_private.restore_loaders(trainer))
    fit(folder, asks, restore, rows=rows, ckpt_path=file)
    assert rows.given == [2, 3]


@holds(lightning_private.begin_epoch)
def _(folder):
    class Noted(Rows):
        made = 0

        def __iter__(self):
            self.made += 1
            return super().__iter__()

    def made(*callbacks):
        rows = Noted(4)
        fit(folder, *callbacks, rows=rows, max_epochs=2)
        return rows.made

    begin = LambdaCallback(on_train_epoch_start=lambda trainer, *_: lightning_private.begin_epoch(trainer))
    assert made(begin) == made() + 1  # of the first epoch alone


@holds(lightning_private.before_validation)
def _(folder):
    file = saved(folder, "on_validation_batch_start", 1, lightning_private.before_validation, validate=Rows(3))
    train, validate = Rows(4), Rows(3)
    trainer = fit(folder, rows=train, validate=validate, ckpt_path=file)
    assert (train.given, validate.given) == ([], [0, 1, 2])
    assert (trainer.global_step, trainer.current_epoch) == (4, 1)


@holds(lightning_private.epochs_done)
def _(folder):
    found = []
    saved(folder, "on_train_batch_start", 1, lambda c: found.append(lightning_private.epochs_done(c)), max_epochs=3)
    trainer = fit(folder, max_epochs=3)
    trainer.save_checkpoint(folder / "end.ckpt")
    found.append(lightning_private.epochs_done(torch.load(folder / "end.ckpt", weights_only=False)))
    assert found == [2, 3]


@holds(lightning_private.lean)
def _(folder):
    calls = []

    class Counts(Callback):
        def on_before_backward(self, *args):
            calls.append(1)

    (callback,) = lightning_private.lean([Counts()])
    assert callback.on_after_backward is None  # Lightning would raise if it called it
    fit(folder, callback)
    assert len(calls) == 4


@holds(lightning_private.BestModelCheckpoint)
def _(folder):
    class Best(lightning_private.BestModelCheckpoint):
        calls = 0

        def save_best(self, trainer, metrics):
            self.calls += 1
            super().save_best(trainer, metrics)

    best = Best(folder, filename="best", monitor="val_loss")
    fit(folder, best, validate=Rows(3), max_epochs=3, enable_checkpointing=True)
    assert best.calls == 3
    assert Path(best.best_model_path).samefile(folder / "best.ckpt")
    accumulating = Best(folder / "accumulating", monitor="val_loss", save_on_train_epoch_end=False)
    options = {"accumulate_grad_batches": 2, "val_check_interval": 1, "max_epochs": 1, "enable_checkpointing": True}
    fit(folder, accumulating, validate=Rows(3), **options)
    assert accumulating.calls == 4


@holds(lightning_private.MeasuringThroughput)
def _(folder):
    class Noted(lightning_private.MeasuringThroughput):
        def __init__(self):
            super().__init__(batch_size_fn=len, window_size=3)
            self.measured = []

        def setup(self, trainer, module, stage):
            super().setup(trainer, module, stage)
            self.expect(10**9)

        def show(self, trainer, measured):
            self.measured.append(measured)

    noted = Noted()
    fit(folder, noted, rows=Rows(6), validate=Rows(3), log_every_n_steps=2)
    assert len(noted.measured) == 3
    last = noted.measured[-1]
    assert last["device/mfu"] == pytest.approx(last["device/flops_per_sec"] / 10**9)
    assert last["device/samples_per_sec"] == pytest.approx(2 * last["device/batches_per_sec"])


@holds(lightning_private.use_average)
def _(folder):
    class Own(WeightAveraging):
        def setup(self, trainer, module, stage):
            self.mine = AveragedModel(module)
            lightning_private.use_average(self, self.mine)

    own = Own()
    trainer = fit(folder, own)
    assert own.mine.n_averaged == 4
    assert torch.equal(trainer.lightning_module.layer.weight, own.mine.module.layer.weight)


@holds(lightning_private.begin_new_file)
def _(folder):
    logger = TensorBoardLogger(folder)
    first = logger.experiment
    assert logger.experiment is first
    lightning_private.begin_new_file(logger)
    assert logger.experiment is not first


@holds(lightning_private.ScriptLauncher)
def _(folder):
    trainer = L.Trainer(accelerator="cpu", logger=False)
    launcher = lightning_private.ScriptLauncher(trainer.strategy.accelerator, num_processes=2, num_nodes=1)
    launcher.procs.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
    launcher.kill(signal.SIGKILL)
    assert launcher.procs[0].wait(30) == -signal.SIGKILL
    assert (launcher.num_processes, launcher.num_nodes) == (2, 1)
    from lightning.pytorch.trainer import call  # where a Trainer asks for this class after Ctrl-C

    assert isinstance(launcher, call._SubprocessScriptLauncher)


@holds(lightning_private.share_cores)
def _(folder):
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "")
        patch.delenv("OMP_NUM_THREADS")
        try:
            torch.set_num_threads(2)
            lightning_private.share_cores(10_000)
            assert torch.get_num_threads() == 1
            patch.setenv("OMP_NUM_THREADS", "2")
            torch.set_num_threads(2)
            lightning_private.share_cores(10_000)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)


@holds(torch_private.copy_each)
def _(folder):
    sources = [torch.rand(3), torch.tensor([7]), torch.rand(2, 2)]
    targets = [torch.empty_like(source) for source in sources]
    kept = [target.data_ptr() for target in targets]
    torch_private.copy_each(targets, sources)
    assert all(map(torch.equal, targets, sources))
    assert [target.data_ptr() for target in targets] == kept


@holds(torch_private.standard_gamma)
def _(folder):
    shape, state = torch.full((20_000,), 0.5), torch.get_rng_state()
    first, again = (torch_private.standard_gamma(shape, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert float(first.mean()) == pytest.approx(0.5, abs=0.02)  # the mean and the variance are the shape
    assert float(first.var()) == pytest.approx(0.5, abs=0.05)


@holds(torch_private.mark_non_finite)
def _(folder):
    for bad in (None, float("inf"), float("-inf"), float("nan")):
        tensors = [torch.rand(5), torch.rand(3, 2)]
        if bad is not None:
            tensors[1][2, 0] = bad
        before, found = [tensor.clone() for tensor in tensors], torch.zeros(())
        torch_private.mark_non_finite(tensors, found)
        assert bool(found) == (bad is not None)
        assert all(torch.equal(a, b.nan_to_num()) for a, b in zip(map(torch.nan_to_num, tensors), before, strict=True))


@holds(torch_private.has_overflowed)
def _(folder):
    for factor, expected in ((1.0, False), (float("inf"), True)):
        layer = nn.Linear(1, 1)
        optimizer, scaler = torch.optim.SGD(layer.parameters(), 0.1), torch.amp.GradScaler("cpu")
        scaler.scale(layer(torch.ones(1, 1)).sum() * factor).backward()
        scaler.unscale_(optimizer)
        assert torch_private.has_overflowed(scaler, optimizer) is expected


@holds(torch_private.skip_if)
def _(folder):
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], 0.5, fused=True)
    weight.grad = torch.ones(3)
    torch_private.skip_if(optimizer, torch.ones(()))
    optimizer.step()
    assert weight.tolist() == [1, 1, 1]
    torch_private.skip_if(optimizer, torch.zeros(()))
    optimizer.step()
    assert weight.tolist() == [0.5, 0.5, 0.5]


@holds(torch_private.set_last_rates)
def _(folder):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    optimizer.param_groups[0]["lr"] = 0.25
    assert scheduler.get_last_lr() == [0.5]
    torch_private.set_last_rates(scheduler)
    assert scheduler.get_last_lr() == [0.25]


@holds(tensorboard_private.add_summary)
def _(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.compat.proto.summary_pb2 import Summary

    with SummaryWriter(folder) as writer:
        tensorboard_private.add_summary(writer, Summary(value=[Summary.Value(tag="a", simple_value=0.5)]), 7)
    events = EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(7, 0.5)]


@holds(tensorboard_private.writes_events)
def _(folder):
    before = set(threading.enumerate())
    with SummaryWriter(folder) as writer:
        writer.add_scalar("a", 1.0)
        found = [thread for thread in set(threading.enumerate()) - before if tensorboard_private.writes_events(thread)]
        assert len(found) == 1
    assert not tensorboard_private.writes_events(threading.current_thread())


def study_in(folder):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}", heartbeat_interval=1)
    return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)


@holds(optuna_private.trial_id)
def _(folder):
    from optuna.trial import Trial

    study_in(folder).ask()
    trial = study_in(folder).ask()
    again = Trial(study_in(folder), optuna_private.trial_id(trial))
    assert again.number == trial.number == 1


@holds(optuna_private.give_sign_of_life)
def _(folder):
    import sqlite3

    study = study_in(folder)
    trial = study.ask()
    optuna_private.give_sign_of_life(study, trial)
    with sqlite3.connect(folder / "study.db") as database:
        rows = database.execute("select trial_id from trial_heartbeats").fetchall()
    assert rows == [(optuna_private.trial_id(trial),)]


@holds(optuna_private.stored)
def _(folder):
    from optuna.trial import Trial

    study = study_in(folder)
    trial = study.ask()
    Trial(study_in(folder), optuna_private.trial_id(trial)).set_user_attr("from", "another process")
    assert trial.user_attrs == {}
    assert optuna_private.stored(study, trial).user_attrs == {"from": "another process"}


@holds(gradio_private.take_as_sent)
def _(folder):
    import gradio as gr

    with gr.Blocks(analytics_enabled=False) as page:
        image, text = gr.Image(), gr.Textbox()
        gradio_private.take_as_sent(image, lambda payload: payload.path.upper())
        gr.on(image.change, lambda read: read, image, text)
    sent = {"path": "http://127.0.0.1:9/nobody-answers.png", "meta": {"_type": "gradio.FileData"}}
    read = asyncio.run(page.preprocess_data(next(iter(page.fns.values())), [sent], None))
    assert read == ["HTTP://127.0.0.1:9/NOBODY-ANSWERS.PNG"]


@holds(jsonargparse_private.options)
def _(folder):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_argument("--rate", type=float)
    assert jsonargparse_private.options(parser) == ["-h", "--help", "--rate"]


@holds(jsonargparse_private.explained)
def _(folder):
    from jsonargparse import ArgumentParser

    class Thing:
        def __init__(self, size: int = 1):
            """A thing.

            Args:
                size: in metres.
            """

    parser = ArgumentParser()
    parser.add_argument("--config", action="config", help="a file")
    parser.add_class_arguments(Thing, "thing")
    parser.add_argument("--any", type=Thing | None, help="another")
    explained = jsonargparse_private.explained(parser)
    del explained["print_config"]
    assert explained == {"config": "a file", "thing.size": "in metres.", "any": "another"}


@holds(jsonargparse_private.type_hints)
def _(folder):
    from jsonargparse import ArgumentParser

    subcommand = ArgumentParser()
    subcommand.add_argument("--rate", type=float)
    parser = ArgumentParser()
    parser.add_argument("--count", type=int | None)
    parser.add_subcommands().add_subcommand("fit", subcommand)
    hints = jsonargparse_private.type_hints(parser)
    assert (hints["rate"], hints["count"], hints["help"]) == (float, int | None, None)


def id_of(interface):
    library = next(name for name, module in PRIVATE.items() if module.__name__ == interface.__module__)
    return f"{library}-{version(library)}-{interface.__name__}"


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")  # which Optuna says where `ask` is used
@pytest.mark.parametrize("interface", CHECKS, ids=id_of)
def test_it_does_what_is_relied_on(interface, tmp_path):
    CHECKS[interface](tmp_path)


def test_every_private_interface_has_its_check():
    assert set(PRIVATE.values()) == {importlib.import_module(n) for n in MODULES if n.endswith("_private")}
    for module in PRIVATE.values():
        named = {name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__}
        checked = {interface.__name__ for interface in CHECKS if interface.__module__ == module.__name__}
        assert {name for name in named if not name.startswith("_")} == checked
