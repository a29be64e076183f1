"""The data set "idx": files of the user's own."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import yaml
from small import launch

from vgg_lightning import FashionMNISTDataModule, load_classifier
from vgg_lightning.base.errors import UserError
from vgg_lightning.data.augment import Place
from vgg_lightning.data.files import load, prepare
from vgg_lightning.data.sources.catalogue import DATASETS, mirror_note, mnist_like_files
from vgg_lightning.data.statistics import mean_and_std

FILES = mnist_like_files()


@pytest.fixture
def own(tiny_good, root):
    """A data folder with one's own four files."""
    shutil.copytree(tiny_good.raw, root, dirs_exist_ok=True)
    return root


def test_own_files_need_no_checksum(own):
    prepared = prepare(own, "idx")
    assert prepared.folder == own
    assert len(prepared.checksums) == 4
    assert load(own, "test", "idx")[0].shape == (20, 1, 28, 28)
    assert len(DATASETS["idx"].classes) == 10


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        (FILES[0].name, np.zeros((3, 28, 28)), "3 images and 50 labels of the train split"),
        (FILES[0].name, np.zeros((50, 32, 32)), "holds images of 32x32 pixels, not 28x28"),
        (FILES[0].name, np.zeros(50), "holds labels, not images"),
        (FILES[1].name, np.full(50, 10), "holds the label 10, labels go from 0 to 9"),
        (FILES[3].name, np.zeros(0), "holds no labels"),
    ],
)
def test_own_files_are_checked(own, name, array, said):
    content = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    (own / name).write_bytes(content + array.astype(np.uint8).tobytes())
    with pytest.raises(UserError, match=said) as refused:
        prepare(own, "idx")
    assert "\n" not in str(refused.value)


def test_own_files_that_are_missing_or_compressed_are_named(own, tiny_good):
    (own / FILES[2].name).unlink()
    with pytest.raises(UserError, match=f"{FILES[2].name} is missing"):
        prepare(own, "idx")
    shutil.copy(tiny_good.gz / f"{FILES[2].name}.gz", own / FILES[2].name)
    with pytest.raises(UserError, match="is still compressed"):
        prepare(own, "idx")


def write_idx(folder, images, labels):
    folder.mkdir(parents=True, exist_ok=True)
    for split, first in (("train", 0), ("t10k", 1)):
        for kind, array in (("images-idx3", images[first::2]), ("labels-idx1", labels[first::2])):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
            (folder / f"{split}-{kind}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    return folder


def bright(folder):
    """IDX files whose mean level is about 200, in which class k has a dark row k."""
    labels = np.arange(80) % 10
    images = np.random.default_rng(0).integers(180, 240, (80, 28, 28))
    images[np.arange(80), labels] = 0
    return write_idx(folder, images, labels)


def test_own_files_are_normalised_by_their_own_mean_and_deviation(tmp_path):
    folder = bright(tmp_path / "idx")
    data = FashionMNISTDataModule(dataset="idx", data_dir=str(folder), val_size=8)
    batch, _ = data.on_after_batch_transfer(data.images("train"), 0)
    mean, std = mean_and_std(load(folder, "train", "idx")[0])
    assert (data.hparams["mean"], data.hparams["std"]) == (mean, std)
    assert 0.7 < mean < 0.9
    assert abs(float(batch[:, :, 2:-2, 2:-2].mean())) < 0.05  # without the black frame


def test_a_mean_that_is_given_is_taken(tmp_path):
    data = FashionMNISTDataModule(dataset="idx", data_dir=str(bright(tmp_path)), val_size=8, mean=0.5, std=0.25)
    data.images("train")
    assert (data.preprocess.mean, data.preprocess.std) == (0.5, 0.25)


def test_images_of_one_level_are_refused_in_one_line(tmp_path):
    folder = write_idx(tmp_path, np.full((20, 28, 28), 7), np.arange(20) % 10)
    with pytest.raises(UserError, match="all of one grey level, so there is nothing to learn"):
        FashionMNISTDataModule(dataset="idx", data_dir=str(folder), val_size=2).setup("fit")


def test_a_run_keeps_the_mean_and_deviation_that_it_began_with(tmp_path):
    """A resumed run of before has those of Fashion-MNIST, whatever its data and its config.yaml say."""
    folder = bright(tmp_path / "idx")
    line = ["--data.dataset", "idx", "--data.data_dir", str(folder), "--data.val_size", "8", "--data.batch_size", "8"]
    brief = [*line, "--model.ratio", "32", "--show", "none", "--trainer.accelerator", "cpu"]
    first = launch(["fit", *brief, "--trainer.max_epochs", "1", "--name", "own"], tmp_path)
    assert first.code == 0, first.err
    run = tmp_path / "lightning_logs/own/version_0"
    assert load_classifier(run).preprocess.mean == mean_and_std(load(folder, "train", "idx")[0])[0]
    old = launch(["fit", *brief, "--data.mean", "0.286", "--data.std", "0.353", "--name", "old"], tmp_path)
    run = tmp_path / "lightning_logs/old/version_0"
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] |= {"mean": None, "std": None}
    config["trainer"]["max_epochs"] += 1
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    again = launch(["fit", "--ckpt_path", str(run)], tmp_path)
    assert (old.code, again.code) == (0, 0), again.err
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert saved["datamodule_hyper_parameters"]["mean"] == load_classifier(run).preprocess.mean == 0.286
    assert saved["epoch"] == config["trainer"]["max_epochs"] - 1


@pytest.mark.parametrize("normalize", [True, False])
def test_erase_fills_with_the_mean_of_own_files(tmp_path, normalize):
    folder = bright(tmp_path)
    options = {"dataset": "idx", "data_dir": str(folder), "val_size": 8, "augment": ["cutout"], "normalize": normalize}
    data = FashionMNISTDataModule(**options)
    images, _ = data.images("train")
    place = Place(0, 0, 0, 0, torch.arange(len(images)), len(images))
    hidden = data.augment(images, place)[data.augment(images, place) != images]
    assert hidden.unique().tolist() == [round(255 * mean_and_std(load(folder, "train", "idx")[0])[0])]


def test_before_training_on_mirror_images_of_own_data_a_note_is_given(tmp_path):
    brief = ["--data.dataset", "idx", "--data.data_dir", str(bright(tmp_path / "idx")), "--data.val_size", "8"]
    brief += ["--model.ratio", "32", "--show", "none", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"]
    quick = launch(["fit", *brief, "--model.tta", "flip"], tmp_path)
    assert quick.code == 0, quick.err
    words = (
        "note: augment flips and tta mirrors images left to right; if a mirror image is of another class in your data"
    )
    (note,) = [line for line in quick.err.splitlines() if line.startswith("note: augment")]
    assert note == f"{words}, leave flip out of --data.augment and give --model.tta none"
    tested = launch(["test", "--ckpt_path", str(next(tmp_path.rglob("version_0"))), *brief[:4]], tmp_path)
    assert "mirror" not in tested.err
    plain = launch(["fit", *brief, "--data.augment", "[shift]"], tmp_path)
    assert "mirror" not in plain.err


@pytest.mark.parametrize(
    ("name", "augment", "tta", "words"),
    [
        ("fashion_mnist", ["flip"], "flip", None),
        ("mnist", ["shift"], "none", None),
        (
            "mnist",
            ["shift"],
            "flip_shift",
            "tta mirrors images of MNIST, whose mirror images mean something else: give",
        ),
        ("kmnist", ["alternating_flip"], "none", "leave alternating_flip out of augment"),
        ("folder", [], "flip", "if a mirror image is of another class in your data, give tta none"),
    ],
)
def test_the_note_says_what_mirrors_and_what_to_do(name, augment, tta, words):
    note = mirror_note(DATASETS[name], augment, tta)
    assert note is None if words is None else words in note
