"""The data set "folder": what is understood, refused, left out and said of folders as people have them."""

from __future__ import annotations

import csv
import shutil

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from small import launch

from vgg_lightning import FashionMNISTDataModule
from vgg_lightning.base.errors import UserError
from vgg_lightning.data.files import class_names, load, prepare
from vgg_lightning.data.images import dataset, decode


@pytest.fixture(autouse=True)
def _nothing_said_yet():
    decode.tell.cache_clear()
    dataset._kept.clear()


def images(folder, count=20, first=0, ending=".png"):
    """Write images that differ from each other."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        array = np.zeros((40, 40), np.uint8)
        array[5:30, 5 : 10 + i % 25] = 255 - i // 25
        Image.fromarray(array).save(folder / f"{i:03}{ending}")


def shapes(root, train="train", test="test", classes=("box", "disc")):
    for c, name in enumerate(classes):
        images(root / train / name, 8, 100 * c)
        images(root / test / name, 4, 100 * c + 50)
    return root


def plain(root, classes=("box", "disc")):
    for c, name in enumerate(classes):
        images(root / name, 20, 100 * c)
    return root


def sizes(root):
    return {split: load(root, split, "folder")[1].bincount().tolist() for split in ("train", "test")}


def refused(root):
    with pytest.raises(UserError) as error:
        prepare(root, "folder")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Train", "Test"), ("training", "Testing"), ("TRAIN", "testing")]
)
def test_folders_of_splits_are_understood_by_their_usual_names(tmp_path, train, test):
    assert class_names("folder", data_dir=shapes(tmp_path, train, test)) == ("box", "disc")
    assert sizes(tmp_path) == {"train": [8, 8], "test": [4, 4]}
    assert prepare(tmp_path, "folder").counts == {"train": [8, 8], "test": [4, 4]}


@pytest.mark.parametrize("name", ["val", "Valid", "validation"])
def test_validation_images_beside_train_and_test_are_said_not_to_be_read(tmp_path, name, capsys):
    shapes(tmp_path)
    images(tmp_path / name / "box", 3)
    assert prepare(tmp_path, "folder").counts == {"train": [8, 8], "test": [4, 4]}
    said = capsys.readouterr().err
    assert f"note: {tmp_path / name} is not read: validation images come out of train, val_size says" in said


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_train_and_validation_without_a_test_are_refused_with_the_remedy(tmp_path, name):
    shapes(tmp_path, test=name)
    assert f"holds train, {name} and no test: rename {name} to test" in refused(tmp_path)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["test/a", "test/b", "valid/a"], "holds test, valid and no train: put images into DIR/train/CLASS"),
        (["Train/a", "training/a", "Test/a"], "one folder is needed for each split"),
        (["Train/a", "Test/a", "models/a"], "holds Train, Test and models, splits and something else"),
        (["train/a", "train/b"], "class 'a' has no image in the test split"),
        (["Train", "Test"], "Train has 0 subfolders"),
    ],
)
def test_other_layouts_are_refused_in_one_line(tmp_path, folders, words):
    for n, name in enumerate(folders):
        images(tmp_path / name, 2, 10 * n)
    assert words in refused(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    for classes in (("Bus", "Train"), ("bus", "test_bench", "train")):
        plain(tmp_path / classes[0], classes)
        assert class_names("folder", data_dir=tmp_path / classes[0]) == classes


def test_other_folders_beside_train_are_said_not_to_be_read(tmp_path, capsys):
    images(shapes(tmp_path) / "notes", 2)
    prepare(tmp_path, "folder")
    assert f"note: not read in {tmp_path}, which holds train, test: notes" in capsys.readouterr().err


def test_what_systems_and_programs_leave_is_left_out_and_counted(tmp_path, capsys):
    plain(tmp_path)
    before = prepare(tmp_path, "folder").checksums, load(tmp_path, "train", "folder")[0]
    for place in (
        "box/.ipynb_checkpoints",
        "box/.trash",
        "disc/@eaDir/0.png",
        "__MACOSX/box",
        ".git",
        "disc/sub/@eaDir",
    ):
        images(tmp_path / place, 2)
    for name in ("box/._000.png", "box/Thumbs.db", "disc/desktop.ini", ".DS_Store"):
        (tmp_path / name).write_bytes(b"not an image")
    (tmp_path / "disc/labels.csv").write_text("x")
    (tmp_path / "read.me").write_text("x")
    images(tmp_path, 3)
    capsys.readouterr()
    decode.tell.cache_clear()
    prepared = prepare(tmp_path, "folder")
    assert prepared.classes == ("box", "disc")
    assert (prepared.checksums, prepared.counts["train"]) == (before[0], [16, 16])
    assert torch.equal(load(tmp_path, "train", "folder")[0], before[1])
    left_out = "10 hidden or made by a system, 2 not called like images (.csv, .me)"
    left_out += ", 3 images outside of the folders of classes"
    assert prepared.left_out == left_out
    assert [line for line in capsys.readouterr().err.splitlines() if "left out" in line] == [
        f"left out of {tmp_path}: {left_out}"
    ]


@pytest.mark.parametrize("ending", [".heic", ".avif", ".pgm", ".ppm", ".jp2"])
def test_images_of_kinds_that_are_not_decoded_are_named(tmp_path, ending):
    plain(tmp_path)
    (tmp_path / "box" / f"new{ending}").write_bytes(b"P5 1 1 255 \0")
    said = refused(tmp_path)
    assert said.startswith("1 of ")
    assert f"new{ending}: it is not an image in a supported format (PNG, JPEG" in said


@pytest.mark.parametrize("splits", [True, False])
def test_copies_of_training_images_in_the_test_are_counted(tmp_path, splits, capsys):
    (shapes if splits else plain)(tmp_path)
    if splits:
        for i in range(3):
            shutil.copy(tmp_path / f"train/box/00{i}.png", tmp_path / f"test/box/copy{i}.png")
        words = "3 of 11 test images are copies of training images"
    else:
        for path in list((tmp_path / "box").iterdir()):
            shutil.copy(path, path.with_name(f"copy-{path.name}"))
        words = "of 12 test images are copies of training images, so the test accuracy"
    prepare(tmp_path, "folder")
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "copies" in line]
    assert words in said
    assert "the first: " in said


def test_of_different_images_nothing_is_said(tmp_path, capsys):
    prepare(shapes(tmp_path), "folder")
    assert capsys.readouterr().err == "reading the train images (16)\nreading the test images (8)\n"


def test_empty_images_are_trained_on_and_counted(tmp_path, capsys):
    plain(tmp_path, ("box", "nothing"))
    for path in (tmp_path / "nothing").iterdir():
        Image.new("L", (40, 40), 255).save(path)
    prepare(tmp_path, "folder")
    said = capsys.readouterr().err
    assert "note: 16 of 32 train images show nothing but background; the first: nothing/" in said
    pixels, labels = load(tmp_path, "train", "folder")
    assert not pixels[labels == 1].any()


def test_links_are_treated_as_predict_treats_them(tmp_path):
    root, outside = plain(tmp_path / "data"), tmp_path / "outside"
    images(outside, 4, 500)
    (root / "box/inside.png").symlink_to(root / "disc/100.png")
    assert sum(sum(n) for n in prepare(root, "folder").counts.values()) == 41
    for name, target in (("out.png", outside / "500.png"), ("gone.png", "nowhere"), ("up", outside)):
        (root / "box" / name).symlink_to(target)
        said = refused(root)
        assert f"box/{name}: it is a link that leads out of the folder, or nowhere" in said
        assert said.startswith("1 of ")
        (root / "box" / name).unlink()


def test_the_folder_of_a_class_may_be_a_link_and_may_have_folders(tmp_path):
    root = plain(tmp_path / "data", ("box",))
    images(tmp_path / "elsewhere/deep/deeper", 10, 300)
    (root / "disc").symlink_to(tmp_path / "elsewhere")
    assert class_names("folder", data_dir=root) == ("box", "disc")
    assert sizes(root) == {"train": [16, 8], "test": [4, 2]}


def test_a_run_reads_every_file_once(tmp_path, monkeypatch):
    plain(tmp_path)
    opened, real = [], dataset.bytes_of
    monkeypatch.setattr(dataset, "bytes_of", lambda path: (opened.append(path), real(path))[1])
    prepare(tmp_path, "folder")
    first = {split: load(tmp_path, split, "folder") for split in ("train", "test")}
    assert len(opened) == len(set(opened)) == 40
    again = {split: load(tmp_path, split, "folder") for split in ("train", "test")}
    assert len(opened) == 80  # nothing stays in memory once it is loaded
    assert all(torch.equal(first[split][0], again[split][0]) for split in first)


def test_a_file_that_changes_between_check_and_load_is_read_again(tmp_path):
    plain(tmp_path)
    prepare(tmp_path, "folder")
    white = np.zeros((28, 28), np.uint8)
    white[3:20, 3:20] = 255
    for path in (tmp_path / "box").iterdir():
        Image.fromarray(white).save(path)
    pixels, labels = load(tmp_path, "test", "folder")
    assert (pixels[labels == 0] == torch.from_numpy(white)).all()


def test_a_broken_test_image_is_named_before_the_training(tmp_path):
    (shapes(tmp_path) / "test/disc/150.png").write_bytes(b"no image")
    assert "1 of 8 images in" in refused(tmp_path)


def test_a_part_of_the_validation_and_of_the_test_has_all_classes(tmp_path):
    root = tmp_path / "data"
    for c, name in enumerate(("box", "disc", "hat")):
        images(root / name, 30, 100 * c)
    line = ["fit", "--data.dataset", "folder", "--data.data_dir", str(root), "--data.val_size", "24"]
    line += ["--data.batch_size", "6", "--model.ratio", "32", "--show", "none", "--trainer.accelerator", "cpu"]
    parts = ["--trainer.limit_val_batches", "0.25", "--trainer.limit_test_batches", "1", "--trainer.max_epochs", "1"]
    launched = launch([*line, *parts], tmp_path)
    assert launched.code == 0, launched.err
    run = next(tmp_path.rglob("version_0"))
    data = FashionMNISTDataModule(dataset="folder", data_dir=str(root), val_size=24, batch_size=6)
    L.Trainer(limit_test_batches=1, logger=False, accelerator="cpu", barebones=True).test(Seen(), data, verbose=False)
    assert Seen.labels == [0, 0, 1, 1, 2, 2]
    predicted = launch(["predict", "--ckpt_path", str(run), "--data.data_dir", str(root)], tmp_path)
    assert predicted.code == 0, predicted.err
    with (run / "predictions.csv").open() as stream:
        assert [row["label"] for row in csv.DictReader(stream)] == [n for n in ("box", "disc", "hat") for _ in range(6)]


class Seen(L.LightningModule):
    """Remembers the labels of the last test."""

    labels = None

    def test_step(self, batch, batch_idx):
        Seen.labels = sorted(batch[1].tolist())
