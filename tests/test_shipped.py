"""The reference weights travel in the package, under the name "reference"."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "reliability"))
from PIL import Image
from small import fit, launch, one_line

import vgg_lightning
from vgg_lightning import load_classifier

ROOT = Path(__file__).parents[1]
RUN = ROOT / "lightning_logs/reference/version_0"
SHIPPED = Path(vgg_lightning.__file__).parent / "reference"
IMAGES = torch.arange(3 * 784).reshape(3, 28, 28).to(torch.uint8)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as `pip install .` puts it there, out of a copy: a build writes into its folder."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "vgg_lightning", folder / "source" / "vgg_lightning")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site")]
    done = subprocess.run([*pip, str(folder / "source")], capture_output=True, text=True, check=False)
    if done.returncode and ("onnection" in done.stderr or "No matching distribution" in done.stderr):
        pytest.skip("setuptools is out of reach")
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_package_and_tracked_run_hold_the_same_weights():
    assert (SHIPPED / "best.ckpt").read_bytes() == (RUN / "checkpoints/best.ckpt").read_bytes()
    mine, theirs = (json.loads((folder / "results.json").read_text()) for folder in (SHIPPED, RUN))
    assert mine == {**theirs, "checkpoint": "best.ckpt"}


def test_the_name_opens_it_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, expected = (load_classifier(path).predict(IMAGES).probabilities for path in ("reference", RUN))
    assert torch.equal(found, expected)


def test_a_run_of_that_name_in_the_folder_goes_first(tmp_path, monkeypatch):
    (tmp_path / "reference").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"reference is a folder without checkpoints/best\.ckpt"):
        load_classifier("reference")


def test_a_slip_of_the_pen_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"does not exist.*did you mean reference"):
        load_classifier("refrence")


def test_training_begins_from_it(tmp_path):
    launched = fit(tmp_path, "--model.weights", "reference", "--model.ratio", "4", "--model.batch_norm", "true")
    assert launched.code == 0, launched.err
    assert f"weights: {SHIPPED / 'best.ckpt'}, 50 of 50 tensors" in launched.out.replace("\n", "")


def test_predict_writes_where_one_is_and_nothing_into_the_package(tmp_path):
    before = sorted(SHIPPED.iterdir())
    Image.linear_gradient("L").save(tmp_path / "a.png")
    launched = launch(["predict", "--ckpt_path", "reference", "--data.predict_path", "a.png"], tmp_path)
    assert launched.code == 0, launched.err
    assert (tmp_path / "predictions.csv").is_file()
    assert sorted(SHIPPED.iterdir()) == before


def test_it_is_no_run_to_resume(tmp_path):
    launched = fit(tmp_path, "--ckpt_path", "reference", "--model.ratio", "4", "--model.batch_norm", "true")
    assert launched.code == 2
    one_line(launched)
    assert not list(SHIPPED.glob("version*"))


def test_its_card_tells_its_accuracy(tmp_path):
    assert launch(["export", "reference", "--output", "m.safetensors"], tmp_path).code == 0
    card = json.loads((tmp_path / "m.json").read_text())
    assert card["results"]["test_acc"] == json.loads((RUN / "results.json").read_text())["test_acc"]


def test_an_installed_package_has_it_outside_of_the_checkout(installed, tmp_path):
    Image.linear_gradient("L").save(tmp_path / "a.png")
    env = {**os.environ, "PYTHONPATH": str(installed)}
    code = "import vgg_lightning; print(vgg_lightning.__file__); vgg_lightning.load_classifier('reference')"
    for command in (["-c", code], ["-m", "vgg_lightning", "predict", "--ckpt_path", "reference"]):
        more = ["--data.predict_path", "a.png"] if command[0] == "-m" else []
        done = subprocess.run(
            [sys.executable, *command, *more], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert str(installed) in done.stdout


def test_an_installed_package_has_every_file_of_ours(installed):
    ours, theirs = (
        {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
        for folder in (Path(vgg_lightning.__file__).parent, installed / "vgg_lightning")
    )
    assert {name for name in ours ^ theirs if "__pycache__" not in name} == set()
