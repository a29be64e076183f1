"""MNIST, KMNIST, EMNIST and own folders: fetched, checked, upright, and trained on through the command line."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import io
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from small import BRIEF, NETWORK, data_folder, fit, launch, one_line
from torchvision import datasets as torchvision_datasets

from vgg_lightning import FashionMNISTDataModule, load_classifier
from vgg_lightning.base.errors import UserError
from vgg_lightning.data.files import load, prepare
from vgg_lightning.data.sources import download
from vgg_lightning.data.sources.catalogue import DATASETS, Archive
from vgg_lightning.data.statistics import mean_and_std

COUNTS = (64, 64, 26, 26)
SMALL = ["--data.val_size", "12", "--data.batch_size", "16"]


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return header + array.astype(np.uint8).tobytes()


def small_files(name):
    """The .gz files of a small data set in the form of `name`, by file name: class k is a bright row k."""
    dataset, packed = DATASETS[name], {}
    for file, count in zip(dataset.files, COUNTS, strict=True):
        labels = np.arange(count) % len(dataset.classes)
        images = np.zeros((count, 28, 28))
        images[np.arange(count), labels % 28] = 200
        if dataset.transposed:
            images = images.transpose(0, 2, 1)
        first = dataset.pair("train")[1].labels[0]
        packed[f"{file.name}.gz"] = gzip.compress(idx_bytes(images if file.kind == "images" else labels + first))
    return packed


@pytest.fixture
def small(request, mirror_of, tmp_path, monkeypatch):
    """A small data set in the place of the one asked for, at a web server that is its only source."""
    name = request.param
    dataset, packed = DATASETS[name], small_files(name)
    if dataset.archive:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as stream:
            for file, content in packed.items():
                stream.writestr(f"gzip/{file}", content)
        served = {"gzip.zip": archive.getvalue()}
        monkeypatch.setitem(DATASETS, name, with_archive(dataset, served["gzip.zip"]))
    else:
        served = packed
        files = tuple(
            dataclasses.replace(file, count=count, md5=hashlib.md5(packed[f"{file.name}.gz"]).hexdigest())
            for file, count in zip(dataset.files, COUNTS, strict=True)
        )
        monkeypatch.setitem(DATASETS, name, dataclasses.replace(dataset, files=files))
    folder = tmp_path / "served"
    folder.mkdir()
    for file, content in served.items():
        (folder / file).write_bytes(content)
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.01)
    return name, mirror_of(folder)


def with_archive(dataset, content):
    files = tuple(dataclasses.replace(file, count=n) for file, n in zip(dataset.files, COUNTS, strict=True))
    return dataclasses.replace(dataset, files=files, archive=Archive("gzip.zip", hashlib.md5(content).hexdigest()))


def test_checksums_mirrors_and_names_are_torchvisions():
    for name in ("mnist", "kmnist"):
        theirs = getattr(torchvision_datasets, DATASETS[name].torchvision)
        assert [(f"{file.name}.gz", file.md5) for file in DATASETS[name].files] == theirs.resources
    emnist = torchvision_datasets.EMNIST
    for name in [name for name in DATASETS if name.startswith("emnist_")]:
        dataset, split = DATASETS[name], name.removeprefix("emnist_")
        assert split in emnist.splits
        assert dataset.archive == Archive(emnist.url.rpartition("/")[2], emnist.md5)
        assert [c for c in emnist.classes_split_dict[split] if c != "N/A"] == list(dataset.classes)
    assert list(DATASETS["kmnist"].classes) == torchvision_datasets.KMNIST.classes


def test_default_mirrors_are_torchvisions(monkeypatch):
    monkeypatch.delenv("VGG_LIGHTNING_MIRROR", raising=False)
    assert download.mirrors(DATASETS["mnist"]) == torchvision_datasets.MNIST.mirrors
    assert download.mirrors(DATASETS["emnist_letters"]) == ["https://biometrics.nist.gov/cs_links/EMNIST/"]


@pytest.mark.parametrize("small", ["mnist", "kmnist", "emnist_letters", "emnist_balanced"], indirect=True)
def test_it_is_downloaded_once_and_lies_upright(small, root):
    name, mirror = small
    assert prepare(root, name).source == f"download from {mirror.url}"
    assert prepare(root, name).source == "verified files in the data folder"
    assert mirror.asked.total() == (1 if DATASETS[name].archive else 4)
    images, labels = load(root, "train", name)
    assert images.shape == (64, 1, 28, 28)
    assert labels.min() == 0  # the letters' own begin at 1
    assert labels.max() == min(len(DATASETS[name].classes), 64) - 1
    assert torch.equal(images[:, 0].sum(dim=2).argmax(dim=1), labels % 28)  # class k: row k, not column k
    assert not list(root.rglob("*.part"))


def test_emnist_is_turned_as_its_users_turn_it(root, monkeypatch):
    """Torchvision gives the raw form, which its users transpose."""
    folder = root / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for file in DATASETS["emnist_letters"].files:
        array = random.integers(1, 27, (30, 28, 28) if file.kind == "images" else 30)
        (folder / file.name).write_bytes(idx_bytes(array))
    images, labels = load(root, "test", "emnist_letters")
    theirs = torchvision_datasets.EMNIST(root, "letters", train=False)
    assert torch.equal(images[:, 0], theirs.data.transpose(1, 2))
    assert [DATASETS["emnist_letters"].classes[i] for i in labels] == [theirs.classes[i] for i in theirs.targets]


@pytest.mark.parametrize("small", ["mnist", "emnist_letters"], indirect=True)
def test_a_download_with_another_md5_is_refused(small, root):
    name, mirror = small
    file = mirror.folder / ("gzip.zip" if DATASETS[name].archive else "train-images-idx3-ubyte.gz")
    original = file.read_bytes()
    file.write_bytes(gzip.compress(gzip.decompress(original), 1) if name == "mnist" else original + b"\0")
    with pytest.raises(UserError, match=f"{file.name} is damaged or another file: its MD5 is"):
        prepare(root, name)
    assert not list(root.rglob("*.part"))


@pytest.mark.parametrize("small", ["emnist_letters"], indirect=True)
def test_an_archive_that_breaks_off_is_asked_for_again(small, root):
    name, mirror = small
    mirror.breaking = {"gzip.zip"}
    prepare(root, name)
    assert mirror.asked["gzip.zip"] == 2


@pytest.mark.parametrize("small", ["emnist_letters"], indirect=True)
def test_an_archive_laid_by_hand_is_taken(small, root):
    name, mirror = small
    shutil.copy(mirror.folder / "gzip.zip", root)
    assert prepare(root, name).source == f"files laid by hand into {root}"
    assert not mirror.asked


def test_the_known_mean_and_deviation_are_those_of_the_pictures(fashion_mnist_dir):
    images, _ = load(fashion_mnist_dir, "train")
    assert mean_and_std(images) == (DATASETS["fashion_mnist"].mean, DATASETS["fashion_mnist"].std)


@pytest.mark.parametrize("small", ["emnist_letters"], indirect=True)
def test_a_run_follows_the_data(small, root, tmp_path):
    """Classes, names, mean and deviation: in training, in the checkpoint, in test and in Python."""
    name, _ = small
    data = ["--data.dataset", name, "--data.data_dir", str(root)]
    launched = launch(["fit", *data, *SMALL, *NETWORK, *BRIEF, "--name", "letters"], tmp_path)
    assert launched.code == 0, launched.err
    assert (
        "note: augment flips images of EMNIST letters, whose mirror images mean something else: leave flip"
        in launched.err
    )
    run = tmp_path / "lightning_logs/letters/version_0"
    assert len(json.loads((run / "results.json").read_text())["data_checksums"]) == 4
    classifier = load_classifier(run)
    images, _ = load(root, "train", name)
    assert (classifier.preprocess.mean, classifier.preprocess.std) == mean_and_std(images)
    assert list(classifier.class_names) == list("abcdefghijklmnopqrstuvwxyz")
    assert classifier.hparams["num_classes"] == 26
    limits = ["--trainer.limit_test_batches", "1", "--trainer.limit_predict_batches", "1"]
    for subcommand in ("test", "predict"):
        again = launch([subcommand, "--ckpt_path", str(run), "--data.data_dir", str(root), *limits], tmp_path)
        assert again.code == 0, again.err
    with (run / "predictions.csv").open() as stream:
        assert [row["label"] for row in csv.DictReader(stream)][:3] == ["a", "b", "c"]
    said = one_line(launch(["test", "--ckpt_path", str(run), "--data.dataset", "mnist"], tmp_path))
    assert "MNIST has other classes than asked for" in said


def test_digits_stay_names_in_a_checkpoint(tmp_path):
    """They are words in YAML and JSON as well, not numbers."""
    assert fit(tmp_path, "--name", "digits").code == 0
    run = tmp_path / "lightning_logs/digits/version_0"
    assert load_classifier(run).class_names == list("0123456789")
    limits = ["--trainer.limit_test_batches", "1", "--data.data_dir", str(data_folder())]
    tested = launch(["test", "--ckpt_path", str(run), *limits], tmp_path)
    assert tested.code == 0, tested.err
    said = one_line(launch(["fit", "--ckpt_path", str(run), "--data.dataset", "mnist"], tmp_path))
    assert "--data.dataset mnist contradicts the checkpoint, which has idx" in said


def test_the_number_of_classes_may_not_contradict_the_data(tmp_path):
    assert "the data has 10 classes, the model 26: leave --model.num_classes out, or give 10" in one_line(
        fit(tmp_path, "--model.num_classes", "26")
    )


def test_own_idx_files_may_have_other_classes(tmp_path):
    names = "[a, b, c, d, e, f, g, h, i, j, never]"
    launched = fit(tmp_path, "--data.classes", names, "--name", "own")
    assert launched.code == 0, launched.err
    assert load_classifier(tmp_path / "lightning_logs/own/version_0").class_names[10] == "never"
    assert "holds the label 9, labels go from 0 to 1" in one_line(fit(tmp_path, "--data.classes", "[a, b]"))
    assert "2 to 256 different names" in one_line(fit(tmp_path, "--data.classes", "[a, a]"))


def make_pictures(folder, classes=("cat", "dog"), count=20):
    """Light shapes on black: cats are high, dogs are wide."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            array = np.zeros((40, 40), np.uint8)
            array[(slice(5, 35), slice(15, 25 - i % 5)) if label == 0 else (slice(15, 25 - i % 5), slice(5, 35))] = (
                250 - i
            )
            Image.fromarray(array).save(folder / name / f"{i:02}.png")
    return folder


@pytest.fixture
def divided(tmp_path):
    for split, count in (("train", 20), ("test", 6)):
        make_pictures(tmp_path / "pictures" / split, count=count)
    return tmp_path / "pictures"


def folder_line(folder, *options):
    return ["fit", "--data.dataset", "folder", "--data.data_dir", str(folder), *SMALL, *NETWORK, *BRIEF, *options]


def test_a_folder_is_trained_on_tested_and_resumed_exactly(divided, tmp_path):
    steady = ("--model.schedule", "constant", "--model.warmup_epochs", "0", "--trainer.max_epochs", "2")
    whole = launch(folder_line(divided, *steady, "--name", "whole"), tmp_path)
    assert whole.code == 0, whole.err
    runs = tmp_path / "lightning_logs"
    results = json.loads((runs / "whole/version_0/results.json").read_text())
    assert results["data_checksums"].keys() == {"train", "test"}
    cut = launch(folder_line(divided, *steady, "--trainer.max_steps", "2", "--name", "cut"), tmp_path)
    assert cut.code == 0, cut.err
    resumed = ["fit", "--resume", "--name", "cut", "--trainer.max_steps", "-1"]
    launched = launch(resumed, tmp_path)
    assert launched.code == 0, launched.err
    one, two = (torch.load(runs / name / "version_0/checkpoints/last.ckpt") for name in ("whole", "cut"))
    assert one["state_dict"].keys() == two["state_dict"].keys()
    assert all(torch.equal(value, two["state_dict"][key]) for key, value in one["state_dict"].items())
    test = launch(["test", "--ckpt_path", str(runs / "whole" / "version_0"), "--data.data_dir", str(divided)], tmp_path)
    assert test.code == 0, test.err
    classifier = load_classifier(runs / "whole/version_0")
    assert list(classifier.class_names) == ["cat", "dog"]
    assert classifier.predict(divided / "test/cat/00.png").probabilities.shape == (1, 2)


def test_a_folder_without_splits_is_divided_once_for_all(tmp_path):
    folder = make_pictures(tmp_path / "pictures", count=20)
    sizes = {split: load(folder, split, "folder")[1].bincount().tolist() for split in ("train", "test")}
    assert sizes == {"train": [16, 16], "test": [4, 4]}
    seen = {split: {image.numpy().tobytes() for image in load(folder, split, "folder")[0]} for split in sizes}
    assert not seen["train"] & seen["test"]
    before = prepare(folder, "folder").checksums
    make_pictures(folder, ("eel", "fox"))
    assert torch.equal(
        load(folder, "test", "folder", ["cat", "dog", "eel", "fox"])[1].bincount(), torch.tensor([4] * 4)
    )
    assert prepare(folder, "folder").checksums != before


def test_pictures_are_read_as_predict_reads_them(divided):
    images, labels = load(divided, "test", "folder")
    assert images.shape == (12, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [0] * 6 + [1] * 6
    module = FashionMNISTDataModule(dataset="folder", data_dir=str(divided), val_size=4)
    assert list(module.class_names) == ["cat", "dog"]
    train, val = module.images("train")[0], module.images("val")[0]
    assert module.hparams["mean"] == mean_and_std(torch.cat([train, val]))[0]


def test_unreadable_pictures_are_named_and_refused(divided, tmp_path):
    (divided / "train/cat/00.png").write_bytes(b"no image")
    (divided / "train/dog/01.png").write_bytes((divided / "train/dog/01.png").read_bytes()[:60])
    (divided / "train/dog/notes.txt").write_text("not looked at")
    launched = launch(folder_line(divided), tmp_path)
    assert launched.code == 2
    assert launched.err.count(f"left out of {divided}: 1 not called like images (.txt)\n") == 1
    assert "train/dog/01.png" in launched.err
    last = launched.err.splitlines()[-1]
    assert last.startswith("error: 2 of 40 images in")
    assert "train/cat/00.png" in last
    assert not (tmp_path / "lightning_logs").exists()


def test_a_folder_that_does_not_fit_is_one_line(divided, tmp_path):
    def refused(folder, *options):
        return one_line(launch(folder_line(folder, *options), tmp_path))

    assert "give --data.data_dir the folder" in one_line(launch(["fit", "--data.dataset", "folder"], tmp_path))
    assert "cannot read the folder" in refused(tmp_path / "nowhere")
    assert "has 0 subfolders" in refused(tmp_path / "pictures/train/cat")
    assert "the data has 2 classes, the model 10" in refused(divided, "--model.num_classes", "10")
    (divided / "test/cow").mkdir()
    assert "test/cow is none of the classes (cat, dog)" in refused(divided)
    (divided / "test/cow").rmdir()
    shutil.rmtree(divided / "test/dog")
    assert "class 'dog' has no image in the test split" in refused(divided)


def test_what_does_not_fit_into_memory_is_refused(divided, monkeypatch):
    monkeypatch.setattr("vgg_lightning.data.images.dataset.free_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"40 images take .* GB are free"):
        load(divided, "train", "folder")


def test_a_folder_is_reported_by_the_subcommand_data(divided, capsys, tmp_path, monkeypatch):
    from vgg_lightning.__main__ import main

    monkeypatch.chdir(tmp_path)  # where the contact sheet goes
    assert main(["data", "--dataset", "folder", "--data_dir", str(divided)]) == 0
    assert capsys.readouterr().out.count("sha256") == 2
