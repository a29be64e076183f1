"""Non-finite numbers stop a run before they reach the weights, name the place, and spare good checkpoints."""

import hashlib
import math

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from small import data_folder, fit, launch, one_line

from vgg_lightning import Classifier, FashionMNISTDataModule
from vgg_lightning.base.errors import NonFiniteError
from vgg_lightning.run.checkpoints.callbacks import BestCheckpoint
from vgg_lightning.run.checkpoints.io import VerifiedCheckpointIO
from vgg_lightning.run.checkpoints.read import read_checkpoint
from vgg_lightning.run.guards.finite import MOST_SKIPS, FiniteGuard, check_weights

BAD_STEP = 3


class Fused(Classifier):
    """Takes the way of a GPU on a CPU: a fused optimizer that is given the finding, which is read one step late."""

    def fuses_optimizer(self):
        return True

    def configure_callbacks(self):
        return [FiniteGuard(deferred=True), *super().configure_callbacks()[1:]]


class Faulty(FashionMNISTDataModule):
    """Puts a value into a batch of preprocessed images."""

    bad_value = None

    def on_after_batch_transfer(self, batch, dataloader_idx):
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if self.bad_value is not None and self.trainer.training and batch.position == BAD_STEP + 1:
            images = batch.images.clone()
            images[0, 0, 5, 5] = self.bad_value
            batch = batch._replace(images=images)
        return batch


class Spoil(Callback):
    """Puts a value into one gradient, and keeps the weights of before every step."""

    def __init__(self, value, first=BAD_STEP, last=BAD_STEP):
        self.value, self.first, self.last = value, first, last
        self.before = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before.setdefault(batch_idx, {k: v.detach().clone() for k, v in pl_module.named_parameters()})

    def on_after_backward(self, trainer, pl_module):
        if self.value is not None and self.first <= pl_module.trainer.fit_loop.batch_idx <= self.last:
            next(pl_module.parameters()).grad.view(-1)[0] = self.value


def trainer(tmp_path, *callbacks, **options):
    options = {"max_epochs": 1, "limit_train_batches": 8, "limit_val_batches": 0, **options}
    return L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, callbacks=list(callbacks), **{"enable_checkpointing": False, **options},
    )  # fmt: skip


def small(owner=Classifier, **options):
    L.seed_everything(0, verbose=False)
    return owner(**{"network": "vgg11", "ratio": 64, "head": "gap", "batch_norm": True, "lr": 0.1, **options})


def pictures():
    return Faulty(dataset="idx", data_dir=str(data_folder()), val_size=64, batch_size=16, seed=0)


@pytest.mark.parametrize("owner", [Classifier, Fused])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient", "data"])
def test_weights_stay_those_of_the_step_before(tmp_path, owner, value, where, monkeypatch):
    model, data = small(owner, momentum=0.9, weight_decay=1e-3), pictures()
    spoil = Spoil(value if where == "gradient" else None)
    if where == "data":
        data.bad_value = value
    if where == "loss":
        step = owner.training_step
        monkeypatch.setattr(
            owner, "training_step", lambda self, batch, i: step(self, batch, i) * (value if i == BAD_STEP else 1)
        )
    with pytest.raises(NonFiniteError, match=rf"epoch 0, step {BAD_STEP}, batch {BAD_STEP}, at the learning rate 0\.1"):
        trainer(tmp_path, spoil).fit(model, data)
    good = spoil.before[BAD_STEP]
    assert all(torch.equal(p, good[name]) for name, p in model.named_parameters())
    moved = spoil.before[BAD_STEP - 1]
    assert not all(torch.equal(good[name], moved[name]) for name in good)


@pytest.mark.parametrize(
    "options", [{"accumulate_grad_batches": 2}, {"gradient_clip_val": 1.0}, {"precision": "bf16-mixed"}]
)
@pytest.mark.parametrize("owner", [Classifier, Fused])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_accumulation_clipping_precision_and_ema(tmp_path, owner, optimizer, options):
    model, spoil = small(owner, optimizer=optimizer, ema_decay=0.9), Spoil(math.nan, first=2)
    with pytest.raises(NonFiniteError):
        trainer(tmp_path, spoil, **options).fit(model, pictures())
    # batch 2 is the first half of the second accumulated batch: the weights of then are those of the stop
    assert all(torch.equal(p, spoil.before[2][name]) for name, p in model.named_parameters())
    averaged = next(c for c in model.trainer.callbacks if hasattr(c, "_average_model"))
    assert all(bool(p.isfinite().all()) for p in averaged._average_model.parameters())


def test_a_scaler_may_skip_a_step_but_not_all(tmp_path):
    def run(last):
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**8))
        with_spoil = trainer(tmp_path, Spoil(math.inf, first=1, last=last), plugins=plugin, limit_train_batches=28)
        with_spoil.fit(small(), pictures())
        return plugin.scaler.get_scale()

    assert run(last=2) == 2.0**6  # two steps were skipped, and the scale was halved twice
    with pytest.raises(NonFiniteError, match=f"overflowed in {MOST_SKIPS + 1} steps in a row"):
        run(last=99)


def test_a_checkpoint_with_bad_weights_replaces_no_good_one(tmp_path):
    model, runner = small(), trainer(tmp_path)
    runner.fit(model, pictures())
    file = tmp_path / "last.ckpt"
    runner.save_checkpoint(file)
    good = file.read_bytes()
    buffer = next(b for name, b in model.named_buffers() if name.endswith("running_var"))
    buffer[0] = math.inf
    with pytest.raises(NonFiniteError, match="running_var is NaN or Inf"):
        runner.save_checkpoint(file)
    assert file.read_bytes() == good


class Masked(Classifier):
    """Has a buffer that is infinite from the start, as a mask of attention is."""

    def build(self):
        network = super().build()
        network.register_buffer("mask", torch.tensor([[0.0, -math.inf], [0.0, 0.0]]))
        return network


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_mask_that_is_infinite_from_the_start_is_trained_with_and_its_file_opens(tmp_path, decay):
    model, fits = small(Masked, ema_decay=decay), trainer(tmp_path)
    fits.fit(model, pictures())
    fits.save_checkpoint(tmp_path / "x.ckpt")
    found = read_checkpoint(tmp_path / "x.ckpt")["state_dict"]["network.mask"]
    assert torch.equal(found, torch.tensor([[0.0, -math.inf], [0.0, 0.0]]))
    again = trainer(tmp_path, max_epochs=2, plugins=[VerifiedCheckpointIO()])
    again.fit(small(Masked, ema_decay=decay), pictures(), ckpt_path=tmp_path / "x.ckpt")
    assert again.global_step == 16
    model.network.mask[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match=r"network\.mask is NaN or Inf"):
        fits.save_checkpoint(tmp_path / "y.ckpt")


def test_large_finite_gradients_pass(tmp_path):
    """Their squares overflow, they do not: the check must not take a norm for them."""
    spoil = Spoil(3e38)
    trainer(tmp_path, spoil, gradient_clip_val=1.0, gradient_clip_algorithm="value").fit(small(), pictures())
    assert len(spoil.before) == 8


@pytest.mark.parametrize("lr", ["1e30", "3e38", "1e8"])
def test_command_line_stops_with_code_3(tmp_path, lr):
    launched = fit(tmp_path, "--model.lr", lr, "--model.schedule", "constant", "--trainer.limit_train_batches", "6")
    line = one_line(launched)
    assert launched.code == 3
    assert "step" in line
    assert "batch" in line
    assert "learning rate" in line
    assert not list(tmp_path.rglob("*.ckpt"))


def test_last_finite_checkpoint_is_kept(tmp_path):
    assert fit(tmp_path).code == 0
    file = next(tmp_path.rglob("last.ckpt"))
    before = {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in file.parent.iterdir()}
    launched = launch(["fit", "--ckpt_path", str(file), "--model.lr", "1e30", "--trainer.max_epochs", "3"], tmp_path)
    assert launched.code == 3
    assert {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in file.parent.iterdir()} == before
    assert str(file.name) in one_line(launched) or "best.ckpt" in launched.err


def test_the_checkpoint_that_is_named_is_there(tmp_path):
    said = fit(tmp_path, "--model.lr", "1e30", "--model.batch_norm", "false", "--trainer.limit_train_batches", "1")
    assert said.code == 3, said
    assert not list(tmp_path.rglob("*.ckpt"))
    assert "no checkpoint was saved yet" in one_line(said)


def test_no_checkpoint_is_named_that_was_about_to_be_written(tmp_path):
    best = BestCheckpoint(tmp_path)
    best.best_model_path = str(tmp_path / "best.ckpt")  # as Lightning sets it before it saves
    with pytest.raises(NonFiniteError, match="no checkpoint was saved yet"):
        check_weights({"w": torch.full((1,), math.nan)}, trainer(tmp_path, best, enable_checkpointing=True))


def test_on_resume_the_checkpoint_is_named_from_which_the_run_goes_on(tmp_path):
    options = ("--model.batch_norm", "false", "--trainer.limit_val_batches", "0")  # so that there is only last.ckpt
    assert fit(tmp_path, *options).code == 0
    said = fit(tmp_path, *options, "--trainer.max_epochs", "2", "--model.lr", "1e30", "--resume")
    assert said.code == 3, said
    named = tmp_path / one_line(said).partition("the last finite checkpoint is ")[2].strip()
    assert named.is_file(), said
