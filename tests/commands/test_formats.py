"""`vgg-lightning export` as ONNX, int8 ONNX and torch.export archive: the answers are those of the classifier."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "reliability"))
from small import data_folder, fit, launch, one_line

from vgg_lightning import Classifier, load_classifier
from vgg_lightning.export import program
from vgg_lightning.export.command import export
from vgg_lightning.export.onnx import checked_onnx, runner
from vgg_lightning.networks import NETWORKS

REFERENCE = Path(__file__).parents[2] / "lightning_logs/reference/version_0"
SMALL = {
    **{name: {"ratio": 32, "hidden_units": 8} for name in ("vgg11", "vgg13", "vgg16", "vgg19")},
    "whitened_vgg": {"ratio": 32, "image_size": 28, "tta": "flip"},
    "alexnet": {"image_size": 96},
    "nin": {"image_size": 96},
    **{name: {"image_size": 28} for name in ("lenet", "lenet_scratch")},
}
SLOW = ("alexnet", "nin", "densenet", "googlenet", "resnet18")  # seconds each


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    assert fit(folder, "--model.ema_decay", "0.9").code == 0
    return next(folder.rglob("version_0"))


def expected(path, images):
    return load_classifier(path).predict(images[:, 0]).probabilities.numpy()


@pytest.mark.parametrize("network", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NETWORKS])
def test_every_network_becomes_onnx(network, tmp_path):
    """checked_onnx holds it against ONNX Runtime; another number of images than it was traced with is tried here."""
    torch.manual_seed(0)
    options = SMALL.get(network, {"image_size": 32})
    classifier = Classifier(network=network, **options).eval()
    images = program.example(5)
    content = checked_onnx(classifier, tmp_path / "x.onnx").SerializeToString()
    _, probabilities = runner(content)(images)
    np.testing.assert_allclose(probabilities, classifier.predict(images[:, 0]).probabilities, atol=1e-4)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (96, 1)])
def test_preprocessing_travels_with_the_model(size, channels, tmp_path):
    classifier = Classifier(network="whitened_vgg", ratio=32, image_size=size, in_channels=channels).eval()
    checked_onnx(classifier, tmp_path / "x.onnx")
    program.write(classifier, {}, tmp_path / "x.pt2")


def test_onnx_of_the_reference_finds_the_same_classes(fashion_mnist_dir, tmp_path):
    """All 10,000 test images."""
    from vgg_lightning import FashionMNISTDataModule

    file, _ = export(REFERENCE, "onnx", tmp_path / "m.onnx")
    images = FashionMNISTDataModule().images("test")[0]
    run = runner(file.read_bytes())
    found = np.concatenate([run(chunk)[1] for chunk in torch.split(images, 500)])
    classes = expected(REFERENCE, images)
    assert (found.argmax(1) == classes.argmax(1)).all()
    assert abs(found - classes).max() <= 1e-4


def test_onnx_has_names_card_and_no_place_of_this_machine(run, tmp_path):
    import onnx

    file, _ = export(run, "onnx", tmp_path / "m.onnx")
    model = onnx.load(file)
    facts = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert len(facts["class_names"]) == 10
    assert facts["card"]["network"] == "vgg11"
    assert facts["card"]["measured"]["dataset"] == "idx"
    assert [value.name for value in model.graph.input] == ["images"]
    assert [value.name for value in model.graph.output] == ["logits", "probabilities"]
    assert str(Path(program.__file__).parent).encode() not in file.read_bytes()
    assert b"site-packages" not in file.read_bytes()


def test_an_archive_opens_without_us(run, tmp_path):
    (file,) = export(run, "pt2", tmp_path / "m.pt2")
    images = program.example(7)
    np.save(tmp_path / "images.npy", images.numpy())
    code = (
        "import sys; sys.modules['vgg_lightning'] = None\n"
        "import json, numpy, torch\n"
        "files = {'card.json': ''}\n"
        "model = torch.export.load('m.pt2', extra_files=files).module()\n"
        "assert json.loads(files['card.json'])['class_names']\n"
        "logits, probabilities = model(torch.from_numpy(numpy.load('images.npy')))\n"
        "numpy.save('found.npy', probabilities.detach().numpy())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected(run, images), atol=1e-6)
    assert b"site-packages" not in file.read_bytes()


def test_int8_says_its_accuracy(run, tmp_path):
    args = ["export", str(run), "--format", "onnx-int8", "--output", "i.onnx", "--data_dir", str(data_folder())]
    launched = launch(args, tmp_path)
    assert launched.code == 0, launched.err
    assert launched.out.startswith("test accuracy: int8 ")
    assert len(launched.out.splitlines()) == 3  # the tools' own lines stay away
    import onnx

    model = onnx.load(tmp_path / "i.onnx")
    card = json.loads(next(prop.value for prop in model.metadata_props if prop.key == "card"))
    assert abs(card["int8"]["test_acc"] - card["int8"]["test_acc_fp32"]) <= 0.1
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)


@pytest.mark.slow
def test_int8_of_the_reference_loses_at_most_a_tenth_of_a_point(fashion_mnist_dir, tmp_path):
    import onnx

    file, _ = export(REFERENCE, "onnx-int8", tmp_path / "i.onnx")
    card = json.loads(next(prop.value for prop in onnx.load(file).metadata_props if prop.key == "card"))
    assert card["int8"]["test_acc"] >= card["int8"]["test_acc_fp32"] - 0.001


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_twice_the_same_bytes(form, run, tmp_path):
    files = [export(run, form, tmp_path / f"{name}.{form}")[0] for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_model_that_differs_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "LARGEST_DIFFERENCE", -1.0)
    launched = launch(["export", str(run), "--format", "onnx", "--output", "m.onnx"], tmp_path)
    assert launched.code == 2
    assert "is not written: its logits differ" in one_line(launched)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--format", "onx"], "did you mean onnx?"),
        (["--format", "onnx", "--output", "m.pt2"], "does not end in .onnx"),
        (["--format", "onnx", "--output", "none/m.onnx"], "there is no folder none"),
        (["--format", "onnx", "--output", "."], "is a folder"),
        (["--format", "onnx", "--output", "there.onnx"], "exists: add --overwrite"),
        (["--frmat", "onnx"], "did you mean --format?"),
    ],
)
def test_bad_input_is_one_line(args, said, tmp_path):
    (tmp_path / "there.onnx").write_bytes(b"before")
    launched = launch(["export", str(REFERENCE), *args], tmp_path)
    assert launched.code == 2
    assert said in one_line(launched)
    assert [file.name for file in tmp_path.iterdir()] == ["there.onnx"]


def test_a_missing_package_is_one_line(run, tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    launched = launch(["export", str(run), "--format", "onnx"], tmp_path)
    assert launched.code == 2
    assert one_line(launched).endswith('[export]"')
