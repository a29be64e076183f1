"""The whitening stem: what its filters do, and that a run computes them once."""

import json

import pytest
import torch
from small import data_options, launch, one_line

from vgg_lightning import FashionMNISTDataModule, build_network
from vgg_lightning.classifier import load_classifier
from vgg_lightning.loading.load import read_checkpoint
from vgg_lightning.networks.whitened_vgg import WhiteningConv

STEM = "network.blocks.0.0.weight"
FIT = [
    *("fit", "--config", "speedrun", *data_options(), "--trainer.accelerator", "cpu", "--model.ratio", "16"),
    *("--trainer.limit_train_batches", "2", "--trainer.precision", "32-true"),
]


@pytest.fixture(scope="module")
def pictures(fashion_mnist_dir):
    data = FashionMNISTDataModule(image_size=28)
    return data.preprocess(data.images("train")[0][:7000])


def test_outputs_are_not_correlated_and_of_equal_strength(pictures):
    stem = WhiteningConv(1, 16)
    stem.whiten(pictures[:5000])
    outputs = stem(pictures[5000:])[..., 1:-1, 1:-1].transpose(0, 1).flatten(1)  # images it has not seen
    half, negatives = outputs.split(8)
    moments = half @ half.T / half.shape[1]
    assert torch.allclose(moments, torch.eye(8), atol=0.06)  # EPS takes 4 % off the weakest direction
    assert torch.allclose(negatives, -half, atol=1e-5)


def test_whitening_is_deterministic_and_leaves_the_filters_fixed(pictures):
    first, second = WhiteningConv(1, 16), WhiteningConv(1, 16)
    first.whiten(pictures[:1000])
    second.whiten(pictures[:1000])
    assert torch.equal(first.weight, second.weight)
    assert not first.weight.requires_grad
    assert first.bias.requires_grad
    assert not first.bias.any()


def test_three_equal_channels_do_not_break_it(pictures):
    network = build_network("whitened_vgg", in_channels=3, image_size=28)
    network.blocks[0][0].whiten(pictures[:100].expand(-1, 3, -1, -1))
    assert network(pictures[:2].expand(-1, 3, -1, -1)).isfinite().all()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run of two epochs, each of two batches."""
    folder = tmp_path_factory.mktemp("fit")
    launched = launch([*FIT, "--trainer.max_epochs", "2"], folder)
    assert launched.code == 0, launched.err
    assert "with test-time augmentation" in launched.out
    return folder / "lightning_logs" / "speedrun" / "version_0"


def stem_of(file):
    return read_checkpoint(file)["state_dict"][STEM]


def expected_stem(ratio=16):
    data = FashionMNISTDataModule(image_size=28, dataset="idx", data_dir=data_options()[3], val_size=64)
    stem = WhiteningConv(1, 16)
    stem.whiten(data.preprocess(data.images("train")[0]))
    return stem.weight


def test_a_fresh_run_whitens_by_the_training_pictures(run):
    assert torch.equal(stem_of(run / "checkpoints" / "last.ckpt"), expected_stem())
    assert torch.equal(load_classifier(run).network.blocks[0][0].weight, expected_stem())


def test_resumed_tuned_and_tested_runs_keep_the_stem(run, tmp_path, monkeypatch):
    def refuse(self, images):
        raise AssertionError("the stem of a trained network is computed anew")

    monkeypatch.setattr(WhiteningConv, "whiten", refuse)
    stem = stem_of(run / "checkpoints" / "last.ckpt")
    tuned = launch([*FIT, "--model.weights", str(run), "--name", "tuned", "--trainer.max_epochs", "1"], tmp_path)
    assert tuned.code == 0, tuned.err
    assert torch.equal(stem_of(tmp_path / "lightning_logs" / "tuned" / "version_0" / "checkpoints" / "last.ckpt"), stem)
    tested = launch(["test", "--ckpt_path", str(run), *data_options()[2:4]], tmp_path)
    assert tested.code == 0, tested.err
    assert "with test-time augmentation" in tested.out
    more = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "3"]
    resumed = launch(["fit", *more, "--data.data_dir", data_options()[3]], tmp_path)
    assert resumed.code == 0, resumed.err
    assert torch.equal(stem_of(run / "checkpoints" / "last.ckpt"), stem)


def test_results_hold_both_accuracies(run):
    results = json.loads((run / "results.json").read_text())
    assert {"test_acc", "test_acc_tta", "val_acc", "val_acc_tta"} <= results.keys()


def test_too_small_a_picture_is_refused(tmp_path):
    launched = launch(["summary", "whitened_vgg", "--image_size", "7"], tmp_path)
    assert "at least 8" in one_line(launched)
