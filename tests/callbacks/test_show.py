"""What --show writes, read back from the event files of small runs."""

import csv
import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector import projector_config_pb2

from vgg_lightning import build_network
from vgg_lightning.data.sources.catalogue import DATASETS
from vgg_lightning.loading.load import read_checkpoint
from vgg_lightning.show import SHOWS, confusion
from vgg_lightning.show.classes import draw_scores
from vgg_lightning.show.drawing import WIDTH
from vgg_lightning.show.gradcam import layer_cam
from vgg_lightning.show.projector import features_of

EPOCHS, STEPS, VAL = 2, 28, 64  # 448 images in batches of 16
PICTURES = {
    "val_pictures/classes_f1",
    "val_pictures/classes_precision",
    "val_pictures/classes_recall",
    "val_pictures/confusion",
    "val_pictures/mistakes",
    "val_pictures/gradcam",
    "val_pictures/first_layer",
    "val_pictures/reliability",
}
TEXTS = [f"run/{name}/text_summary" for name in ("configuration", "loss", "network")]
RANDOM = ["--model.dropout", "0.2", "--model.ema_decay", "0.7", "--data.augment", "[flip,shift]"]

CLASSES = DATASETS["idx"].classes  # of the images that these runs are given


def fit(folder, *options, code=0):
    whole = [
        *("--trainer.max_epochs", str(EPOCHS), "--trainer.limit_train_batches", str(STEPS)),
        *("--trainer.limit_val_batches", "4", "--trainer.log_every_n_steps", "1"),
    ]
    launched = small.launch([*small.fit_line(*whole, *RANDOM, *options), "--debug"], folder)
    assert launched.code == code, launched.err
    (run,) = folder.glob("lightning_logs/*/version_*")
    return run, launched


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A run with everything, and what it printed."""
    return fit(tmp_path_factory.mktemp("all"), "--show", "all")


@pytest.fixture(scope="module")
def events(shown):
    sizes = {"images": 0, "scalars": 0, "tensors": 0, "histograms": 0}
    return EventAccumulator(str(shown[0]), size_guidance=sizes).Reload()


def metrics(run):
    """Return the rows of metrics.csv."""
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def values(events, tag):
    return {event.step: event.value for event in events.Scalars(tag)}


def test_nothing_fails(shown):
    assert "is not shown" not in shown[1].err + shown[1].out


@pytest.mark.parametrize("tag", sorted(PICTURES))
def test_every_validation_has_its_picture(events, tag):
    images = events.Images(tag)
    assert [image.step for image in images] == [STEPS - 1, 2 * STEPS - 1]
    for image in images:
        picture = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB"))
        assert picture.shape[:2] == (image.height, image.width)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 8  # drawn on
        assert len(image.encoded_image_string) < 100_000


def test_an_image_is_as_wide_as_the_place_where_it_opens(events):
    assert {image.width for tag in PICTURES for image in events.Images(tag)} == {WIDTH}


def test_the_scores_of_the_classes_fit_the_whole(shown, events):
    saved = read_checkpoint(shown[0] / "checkpoints" / "last.ckpt")["callbacks"]["ClassScores"]["history"]
    assert [epoch for epoch, _ in saved] == [1, 2]
    whole = [float(row["val_acc"]) for row in metrics(shown[0]) if row["val_acc"]]
    for (_, scores), accuracy in zip(saved, whole, strict=True):
        recall, precision, f1 = scores
        assert float(recall.mean()) == pytest.approx(accuracy, abs=0.02)  # classes are of nearly the same size
        harmonic = 2 * recall * precision / (recall + precision).clamp(min=1e-9)
        assert torch.allclose(f1, harmonic, atol=1e-5)
    assert all(0 <= error <= 1 for error in values(events, "val_scores/calibration_error").values())


def test_one_chart_holds_training_validation_and_test(shown):
    run = shown[0]
    lines = {split: EventAccumulator(str(run / split)).Reload() for split in ("train", "val", "test")}
    logged = metrics(run)
    for split, events in lines.items():
        for tag, name in (("curves/loss", "loss"), ("curves/accuracy", "acc")):
            column = {int(row["step"]): float(row[f"{split}_{name}"]) for row in logged if row[f"{split}_{name}"]}
            assert values(events, tag) == pytest.approx(column, abs=1e-6)
    assert sorted(lines["train"].Tags()["scalars"])[2:] == ["every_step/learning_rate", "every_step/loss"]


def test_no_chart_is_there_twice_and_none_comes_before_the_curves(shown):
    folders = (shown[0], *(shown[0] / split for split in ("train", "val", "test")))
    tags = {tag for folder in folders for tag in EventAccumulator(str(folder)).Reload().Tags()["scalars"]}
    assert sorted(tags)[:2] == ["curves/accuracy", "curves/loss"]
    assert not [tag for tag in tags if "epoch" in tag or "pg" in tag]


def test_the_text_has_the_configuration_and_the_network(shown, events):
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in TEXTS}
    assert (shown[0] / "config.yaml").read_text() in texts["run/configuration/text_summary"]
    assert "multiply-adds" in texts["run/network/text_summary"]
    assert "train_loss includes label smoothing 0.1, which leaves at least 0.50" in texts["run/loss/text_summary"]
    assert "train_loss includes label smoothing" in shown[1].out


def test_every_class_has_a_curve(events):
    for name in CLASSES:
        curves = events.Tensors(f"val_curve/{name}")
        assert [event.step for event in curves] == [STEPS - 1, 2 * STEPS - 1]
        assert [dim.size for dim in curves[0].tensor_proto.tensor_shape.dim] == [6, 51]


def test_histograms_count_every_weight_and_gradient(shown, events):
    weights = read_checkpoint(shown[0] / "checkpoints" / "last.ckpt")["state_dict"]
    layers = {key.removeprefix("network.").removesuffix(".weight"): w for key, w in weights.items() if w.ndim > 1}
    assert layers
    for name, weight in layers.items():
        for kind in ("weights", "gradients"):
            found = events.Histograms(f"{kind}/{name}")
            assert [event.step for event in found] == [STEPS - 1, 2 * STEPS - 1]
            assert found[-1].histogram_value.num == weight.numel()
            assert found[-1].histogram_value.sum_squares > 0


def test_the_projector_has_features_classes_and_sprites(shown):
    run = shown[0]
    config = projector_config_pb2.ProjectorConfig()
    text_format.Parse((run / "projector_config.pbtxt").read_text(), config)
    (embedding,) = config.embeddings
    features = np.loadtxt(run / embedding.tensor_path, delimiter="\t")
    header, *rows = (run / embedding.metadata_path).read_text().splitlines()
    assert header.split("\t") == ["class", "predicted", "right"]
    assert len(features) == len(rows) == VAL
    assert {row.split("\t")[0] for row in rows} == set(CLASSES)
    assert np.isfinite(features).all()
    assert features.std() == pytest.approx(1, abs=0.2)
    side = 28 * -(-(VAL**0.5) // 1)
    assert Image.open(run / embedding.sprite.image_path).size == (side, side)


def test_throughput_and_the_share_of_the_peak(shown, events):
    speed = values(events, "throughput/examples_per_second_per_device")
    assert speed
    assert min(speed.values()) > 0
    assert all(0 < share < 1.5 for share in values(events, "throughput/mfu").values())
    assert "throughput" not in (shown[0] / "metrics.csv").read_text()


def test_a_run_ends_with_the_same_bits_whatever_is_shown(shown, tmp_path):
    plain, _ = fit(tmp_path, "--show", "none")
    for name in ("last", "best"):
        ours, theirs = (read_checkpoint(run / "checkpoints" / f"{name}.ckpt") for run in (shown[0], plain))
        for part in ("state_dict", "current_model_state"):
            assert all(torch.equal(ours[part][key], theirs[part][key]) for key in theirs[part])
    rows = [list(csv.reader((run / "metrics.csv").read_text().splitlines())) for run in (shown[0], plain)]
    assert rows[0] == rows[1]
    tags = EventAccumulator(str(plain)).Reload().Tags()
    assert not tags["images"]
    assert not [tag for tag in tags["scalars"] if tag.startswith("val_scores")]


def test_a_drawing_that_fails_does_not_end_the_run(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr(confusion.ConfusionMatrix, "show", broken)
    run, launched = fit(tmp_path, "--show", "confusion,classes")
    assert launched.err.count("ConfusionMatrix is not shown: RuntimeError: no ink") == 1
    assert "val_pictures/classes_f1" in EventAccumulator(str(run)).Reload().Tags()["images"]


def test_a_full_disk_does_not_end_the_run(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(confusion.ConfusionMatrix, "show", full)
    run, launched = fit(tmp_path, "--show", "[confusion]", code=1)
    assert launched.err.count("TensorBoard's file is not written: No space left on device") == 1
    assert "some of TensorBoard's files" in launched.err  # what was not saved is named at the end
    assert (run / "results.json").is_file()


@pytest.mark.parametrize(
    "options",
    [["--data.val_size", "0"], ["--trainer.logger", "false"], ["--trainer.limit_val_batches", "0"]],
    ids=lambda options: options[0],
)
def test_where_there_is_nothing_to_show(tmp_path, options):
    _, launched = fit(tmp_path, "--show", "all", *options)
    assert "is not shown" not in launched.err + launched.out


@pytest.mark.parametrize(
    ("show", "said"),
    [
        ("gradcm", "--show gradcm is unknown (did you mean gradcam?): it takes all, default, none, text, "),
        ("[confusion,x]", "--show x is unknown: it takes all"),
    ],
)
def test_an_unknown_name_is_told(tmp_path, show, said):
    launched = small.fit(tmp_path, "--show", show)
    assert launched.code == 2
    assert said in small.one_line(launched)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("network", "size"),
    [("resnet18", 32), ("googlenet", 64), ("nin", 96), ("densenet", 32), ("lenet", 28), ("whitened_vgg", 28)],
)
def test_networks_of_every_kind_can_be_looked_into(network, size):
    model = build_network(network, image_size=size).eval()
    x = torch.randn(2, 1, size, size)
    logits, heat = layer_cam(model, x)
    assert torch.allclose(logits, model(x).detach(), atol=1e-5)
    assert heat.shape == (2, size, size)
    assert heat.min() >= 0
    assert heat.max() <= 1
    features, _ = features_of(model, x)
    assert len(features) == 2
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("classes", [2, 12, 47])
def test_a_confusion_matrix_of_any_number_of_classes(classes):
    picture = confusion.draw_confusion(torch.eye(classes, dtype=torch.long) * 3, [f"class {i}" for i in range(classes)])
    assert min(picture.size) > 5 * classes


@pytest.mark.parametrize(("classes", "epochs"), [(2, 1), (10, 7), (47, 30)])
def test_the_scores_of_any_number_of_classes_and_epochs(classes, epochs):
    history = [(epoch, torch.rand(classes)) for epoch in range(1, epochs + 1)]
    picture = draw_scores("recall", history, [f"a class with a long name {i}" for i in range(classes)])
    assert picture.width == WIDTH
    assert picture.height > 20 * classes


def test_a_resumed_run_shows_the_classes_of_all_epochs(tmp_path):
    run, _ = fit(tmp_path, "--show", "classes")
    assert small.launch(["fit", "--resume", "--trainer.max_epochs", "3"], tmp_path).code == 0
    history = read_checkpoint(run / "checkpoints" / "last.ckpt")["callbacks"]["ClassScores"]["history"]
    assert [epoch for epoch, _ in history] == [1, 2, 3]


def test_a_name_of_before_is_said_to_do_nothing(tmp_path):
    _, launched = fit(tmp_path, "--show", "[layout,confusion]")
    assert launched.err.count("--show layout does nothing: training and validation are in one chart without it") == 1


def test_the_help_names_them_all(tmp_path):
    text = small.launch(["fit", "--help", "all"], tmp_path).out
    assert all(name in text for name in SHOWS)


@pytest.mark.slow
def test_two_processes_show_what_both_have_seen(tmp_path):
    options = [
        "--show",
        "all",
        "--trainer.devices",
        "2",
        "--trainer.strategy",
        "ddp",
        "--trainer.limit_val_batches",
        "4",
    ]
    command = [sys.executable, "-m", "vgg_lightning", *small.fit_line(*options)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "is not shown" not in done.stderr + done.stdout
    assert done.stdout.count("most often taken for") == 1
    (run,) = tmp_path.glob("lightning_logs/*/version_*")
    events = EventAccumulator(str(run)).Reload()
    assert len(events.Images("val_pictures/confusion")) == 1
    assert (run / "projector_config.pbtxt").is_file()
    ((_, whole),) = values(EventAccumulator(str(run / "val")).Reload(), "curves/accuracy").items()
    ((_, scores),) = read_checkpoint(run / "checkpoints" / "last.ckpt")["callbacks"]["ClassScores"]["history"]
    assert float(scores[0].mean()) == pytest.approx(whole, abs=0.02)
