"""The LightningModule: options, fine-tuning, precisions, predictions."""

import lightning as L
import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader, TensorDataset

from vgg_lightning import Classifier, FashionMNISTDataModule
from vgg_lightning.base.errors import UserError
from vgg_lightning.data.batches import Batch, BatchLoader
from vgg_lightning.loading.load import load_weights
from vgg_lightning.show import SHOWS
from vgg_lightning.show.class_table import ClassTable
from vgg_lightning.show.report import RunReport

SMALL = {"ratio": 16, "batch_norm": True, "head": "gap", "dropout": 0.0}


def trainer(tmp_path, **options):
    defaults = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "logger": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return L.Trainer(default_root_dir=tmp_path, accelerator="cpu", **{**defaults, **quiet, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "vgg12"}, "did you mean vgg1"),
        ({"ratio": 3}, "does not divide"),
        ({"image_size": 16}, "at least 32"),
        ({"lr": -1.0}, "lr takes a positive number"),
        ({"lr": float("nan")}, "lr nan is out of range"),
        ({"momentum": 1.0}, "momentum takes"),
        ({"num_classes": 0}, "num_classes takes"),
        ({"optimizer": "sdg"}, "did you mean sgd"),
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"head": "gab"}, "gap"),
        ({"tta": "flop"}, "did you mean flip"),
        ({"network": "lenet", "ratio": 4, "image_size": 28}, "ratio"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        Classifier(**options)
    assert "\n" not in str(error.value)


def test_hyperparameters_are_plain_values():
    plain = (str, int, float, bool, type(None))
    assert all(isinstance(value, plain) for value in Classifier(**SMALL).hparams.values())


@pytest.mark.parametrize("in_channels", [1, 3])
def test_channels_last_changes_the_layout_and_not_the_result(in_channels):
    torch.manual_seed(0)
    fast = Classifier(**SMALL, in_channels=in_channels, channels_last=True).eval()
    plain = Classifier(**SMALL, in_channels=in_channels, channels_last=False).eval()
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(4, in_channels, 32, 32)
    assert torch.allclose(fast(x), plain(x), atol=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_precisions(fashion_mnist_dir, tmp_path, precision):
    model = Classifier(**SMALL)
    fit = trainer(tmp_path, precision=precision)
    fit.fit(model, FashionMNISTDataModule(batch_size=32))
    assert torch.isfinite(fit.callback_metrics["train_loss"])


def test_weight_decay_leaves_biases_and_batch_norm_alone(fashion_mnist_dir, tmp_path):
    model = Classifier(**SMALL, weight_decay=0.1)
    fit = trainer(tmp_path)
    fit.fit(model, FashionMNISTDataModule(batch_size=32))
    decayed, free = fit.optimizers[0].param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in free["params"]} == {1}


def test_schedule_climbs_and_falls_to_zero(fashion_mnist_dir, tmp_path):
    model = Classifier(**SMALL, lr=0.1, schedule="linear", warmup_epochs=1)
    rates = []
    model.on_train_batch_end = lambda *_: rates.append(model.trainer.optimizers[0].param_groups[0]["lr"])
    trainer(tmp_path, max_epochs=3, limit_train_batches=5).fit(model, FashionMNISTDataModule(batch_size=8))
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) == 4
    assert rates[-1] == pytest.approx(0.0)


def test_fine_tuning_with_another_number_of_classes(fashion_mnist_dir, tmp_path, capsys):
    torch.manual_seed(0)
    source = Classifier(**SMALL)
    fit = trainer(tmp_path)
    fit.fit(source, FashionMNISTDataModule(batch_size=32))
    fit.save_checkpoint(tmp_path / "source.ckpt")
    target = Classifier(**SMALL, num_classes=5, lr=0.01, weights=str(tmp_path / "source.ckpt"))
    assert "weights" not in target.hparams
    assert torch.equal(target.network.blocks[0][0].weight, source.network.blocks[0][0].weight)
    assert target.network.head[-1].out_features == 5
    assert "network.head.3.weight" in capsys.readouterr().out
    with pytest.raises(UserError, match="no layer of it fits"):
        load_weights(Classifier(network="lenet", image_size=32), tmp_path / "source.ckpt")


def test_predict_takes_arrays_tensors_pictures_and_paths(tmp_path):
    model = Classifier(**SMALL).eval()
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    images[:, [0, -1]] = images[:, :, [0, -1]] = 0  # a dark border: no inversion
    expected = model.predict(images)
    assert expected.probabilities.shape == (3, 10)
    assert torch.allclose(expected.probabilities.sum(1), torch.ones(3))
    assert expected.names == [model.class_names[i] for i in expected.labels]
    Image.fromarray(images[0].numpy()).save(tmp_path / "a.png")
    for other in (images.numpy(), [Image.fromarray(i.numpy()) for i in images]):
        assert torch.equal(model.predict(other).probabilities, expected.probabilities)
    assert torch.allclose(model.predict(tmp_path / "a.png").probabilities, expected.probabilities[:1], atol=1e-6)


def test_tta_averages_the_logits_of_both_views():
    model = Classifier(network="whitened_vgg", image_size=28, tta="flip").eval()
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    plain, mirrored = (model(model.preprocess(x[:, None])) for x in (images, images.flip(-1)))
    expected = ((plain + mirrored) / 2).softmax(dim=1)
    assert not torch.allclose(plain.softmax(dim=1), mirrored.softmax(dim=1), atol=1e-4)
    assert torch.allclose(model.predict(images).probabilities, expected, atol=1e-6)
    assert torch.allclose(model.predict(images.flip(-1)).probabilities, expected, atol=1e-6)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 28, 28), torch.zeros(2, 30, 28, dtype=torch.uint8), [], "nowhere.png"]
)
def test_predict_refuses_what_is_no_picture(images):
    with pytest.raises(UserError):
        Classifier(**SMALL).predict(images)


def test_a_light_background_becomes_black(tmp_path):
    from vgg_lightning.data.images.decode import to_uint8

    picture = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(picture).ellipse((80, 30, 120, 70), (20, 20, 20))
    pixels = to_uint8(picture)[0, 0]
    assert pixels[0, 0] == 0
    assert pixels[14, 14] > 200


def test_plain_loaders_train_validate_test_and_predict(tmp_path, capsys):
    """Batches are pairs (images, labels) of another loader, and callbacks of this project look at them."""
    pairs = TensorDataset(torch.randn(40, 1, 32, 32), torch.arange(40) % 10)
    loader = DataLoader(pairs, batch_size=16)
    table, report, shown = ClassTable(), RunReport(tmp_path), [SHOWS[name]() for name in SHOWS]
    run = trainer(
        tmp_path, max_epochs=2, limit_train_batches=1.0, limit_val_batches=1.0,
        logger=TensorBoardLogger(tmp_path), log_every_n_steps=1, callbacks=[table, report, *shown],
    )  # fmt: skip
    model = Classifier(**SMALL, tta="flip", sam_rho=0.05)
    run.fit(model, loader, loader)
    assert report.examples == 80
    assert {"train_loss", "val_acc", "val_acc_tta"} <= run.callback_metrics.keys()
    run.test(model, loader, verbose=False)
    assert table.counts.sum() == 40
    assert sum(len(labels) for _, labels in run.predict(model, loader)) == 40
    said = capsys.readouterr().err
    assert {line.split()[0] for line in said.splitlines() if "is not shown" in line} == {
        *("Mistakes", "GradCAM", "FirstLayer", "Projector")
    }


def test_a_plain_trainer_has_the_guards_of_the_command_line(tmp_path):
    from vgg_lightning.base.errors import NonFiniteError

    pairs = TensorDataset(torch.full((8, 1, 32, 32), float("nan")), torch.arange(8))
    with pytest.raises(NonFiniteError, match="the loss is NaN or Inf"):
        trainer(tmp_path).fit(Classifier(**SMALL), DataLoader(pairs, batch_size=8))


def test_a_batch_moves_to_a_device_with_all_that_belongs_to_it():
    images, labels = torch.zeros(5, 1, 28, 28, dtype=torch.uint8), torch.arange(5)
    loader = BatchLoader(images, labels, 3, shuffle=True, seed=2, rank=1, world_size=2, fewest=2)
    loader.set_epoch(4)
    batch = list(loader)[-1]
    moved = move_data_to_device(batch, torch.device("meta"))
    assert type(moved) is Batch
    assert {moved.images.device.type, moved.labels.device.type, moved.indices.device.type} == {"meta"}
    assert (moved.share, moved.epoch, moved.position) == (batch.share, 4, 2)
    assert batch.share == (1, 2, 1.0)
    assert len(batch.labels) == 2  # one of them is the other process's
