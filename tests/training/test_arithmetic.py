"""Arithmetic in corners: small and last batches, low precision, little data."""

import copy
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1] / "reliability"))
from small import data_folder

from vgg_lightning import Classifier, FashionMNISTDataModule
from vgg_lightning.base.errors import UserError

PLAIN = {"network": "vgg11", "ratio": 64, "head": "gap", "dropout": 0.0, "init": "kaiming", "lr": 0.1}  # no BatchNorm


def data(**options):
    own = {"dataset": "idx", "data_dir": str(data_folder()), "val_size": 64, "batch_size": 16, "image_size": 32}
    return FashionMNISTDataModule(**{**own, **options})


def trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    brief = {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return L.Trainer(**{**quiet, **brief, **options})


def moved(module, accumulate, double=True, model=None, **options):
    """Return how far a fit moves the weights of one network, in double precision."""
    torch.manual_seed(0)
    model = Classifier(**{**PLAIN, **(model or {})})
    before = copy.deepcopy(model.network).double().state_dict()
    precision = {"precision": "64-true"} if double else {}
    fits = trainer(accumulate_grad_batches=accumulate, limit_val_batches=0, **precision, **options)
    fits.fit(model, module)
    return {name: value.double() - before[name] for name, value in model.network.state_dict().items()}, fits.global_step


def close(first, second):
    (a, steps), (b, others) = first, second
    assert steps == others
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=1e-6, atol=1e-9), name
    return True


# 88 images: batches of 32, 32 and 24.


@pytest.mark.parametrize("accumulate", [4, 100])
@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_clip_val": 0.01}, {"gradient_clip_val": 0.001, "gradient_clip_algorithm": "value"}],
    ids=["plain", "clipped", "clipped by value"],
)
def test_accumulated_batches_step_as_one_batch_of_all_their_images(accumulate, options):
    module = {"val_size": 512 - 88}
    whole = moved(data(batch_size=128, **module), 1, **options)
    assert close(moved(data(batch_size=32, **module), accumulate, **options), whole)


@pytest.mark.parametrize(
    ("sizes", "accumulate", "groups"),
    [
        ([32, 32, 24], 2, [64, 24]),
        ([16, 16, 16, 16, 16], 4, [64, 16]),
        ([5, 16, 1, 10], 3, [22, 10]),
        ([8, 8, 8, 8], 2, [16, 16]),
    ],
)
def test_each_image_of_a_group_counts_once_whatever_the_loader(sizes, accumulate, groups):
    images, labels = data(mean=0.2, std=0.3).images("train")

    def loader(batches):
        places = torch.arange(sum(batches)).split(batches)
        return DataLoader(TensorDataset(images, labels), batch_sampler=[place.tolist() for place in places])

    assert close(moved(loader(sizes), accumulate), moved(loader(groups), 1))


# Precision.


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "bf16-mixed"])
@pytest.mark.parametrize("name", ["ema_decay", "lookahead_steps", "sam_rho", "optimizer", "label_smoothing"])
def test_a_precision_trains_or_is_refused_before(precision, name):
    value = {"ema_decay": 0.9, "lookahead_steps": 2, "sam_rho": 0.05, "optimizer": "muon", "label_smoothing": 0.1}[name]
    model, fits = (
        Classifier(**{**PLAIN, name: value}),
        trainer(precision=precision, max_epochs=2, limit_train_batches=3),
    )
    if name in ("ema_decay", "sam_rho") and precision in ("bf16-true", "16-true"):
        with pytest.raises(UserError, match=f"{name} changes weights by less than precision {precision} can tell"):
            fits.fit(model, data())
        return
    fits.fit(model, data())
    assert fits.global_step == 6


def test_a_teacher_teaches_in_every_precision(tmp_path):
    fits = trainer(limit_train_batches=1)
    fits.fit(Classifier(**PLAIN), data())
    fits.save_checkpoint(tmp_path / "teacher.ckpt")
    for precision in ("bf16-true", "64-true"):
        model = Classifier(**PLAIN, teacher=str(tmp_path / "teacher.ckpt"), distill=0.5)
        trainer(precision=precision, limit_train_batches=2).fit(model, data())


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_val_loss_is_the_mean_over_images_in_every_precision(precision):
    torch.manual_seed(0)
    model, module = Classifier(**PLAIN), data(batch_size=48, val_size=300)  # the last batch has 12
    (result,) = trainer(precision=precision).validate(model, module, verbose=False)
    images, labels = module.images("val")
    with torch.no_grad():
        logits = model.network(model.preprocess(images).to(model.dtype)).double()
    assert result["val_loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), abs=1e-5)
    assert result["val_acc"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()), abs=0.005)


# Few images.

LENET = {"network": "lenet", "image_size": 28}  # with BatchNorm1d


def test_a_last_batch_of_one_image_trains_and_counts_it_once():
    module = data(val_size=512 - 33, image_size=28)  # 16, 16 and 1
    model, fits = Classifier(**LENET), trainer(max_epochs=1)
    fits.fit(model, module)
    assert fits.global_step == 3
    *_, last = module.train_dataloader()
    assert (len(last.images), last.share.own, last.share.total) == (2, 1, 1)
    assert last.indices[0] != last.indices[1]


def test_a_batch_of_one_image_is_refused_where_batchnorm_cannot_take_it():
    with pytest.raises(
        UserError, match="BatchNorm of lenet has nothing to average in a batch of one image: give batch"
    ):
        trainer().fit(Classifier(**LENET), data(batch_size=1, image_size=28))
    images, labels = data().images("train")
    with pytest.raises(UserError, match="BatchNorm of lenet has nothing to average"):
        trainer().fit(Classifier(**LENET), DataLoader(TensorDataset(images[:5], labels[:5]), batch_size=2))
    trainer(limit_train_batches=2).fit(Classifier(**PLAIN), data(batch_size=1))


@pytest.mark.parametrize("left", [1, 0])
def test_a_training_without_images_is_refused(left):
    with pytest.raises(UserError, match=r"val_size") as error:
        trainer().fit(Classifier(**PLAIN), data(val_size=512 - left))
    assert "takes" in str(error.value)
    assert "\n" not in str(error.value)


def test_two_images_and_a_batch_larger_than_the_data_train():
    fits = trainer(max_epochs=2, limit_val_batches=2)
    fits.fit(Classifier(**LENET), data(val_size=510, batch_size=128, image_size=28))
    assert fits.global_step == 2


# Runs that are too short for an option.


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"warmup_epochs": 2.0}, "2: the learning rate is still rising at the end of 2 epochs, and never 0.1"),
        ({"ema_decay": 0.99}, "0.99 averages over some 100 steps, the run has 4: its weights stay near"),
        ({"warmup_epochs": 1.5}, ""),
        ({"ema_decay": 0.5}, ""),
    ],
)
def test_an_option_that_a_run_is_too_short_for_is_named(options, note, capsys):
    trainer(max_epochs=2, limit_train_batches=2).fit(Classifier(**PLAIN, **options), data())
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert len(said) == bool(note)
    assert note in "".join(said)
