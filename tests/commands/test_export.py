"""`vgg-lightning export`: the file opens again as the same model, and a changed one does not open at all."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "reliability"))
from small import data_options, fit, launch, one_line

from vgg_lightning import load_classifier
from vgg_lightning.base.errors import UserError

PICTURES = np.random.default_rng(1).integers(0, 256, (32, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    assert fit(folder, "--model.ema_decay", "0.9").code == 0
    return next(folder.rglob("version_0"))


@pytest.fixture
def exported(run, tmp_path):
    file = tmp_path / "model.safetensors"
    launched = launch(["export", str(run), "--format", "safetensors", "--output", str(file)], tmp_path)
    assert launched.code == 0, launched.err
    return file


def logits(path):
    model = load_classifier(path)
    with torch.no_grad():
        return model(model.preprocess(torch.from_numpy(PICTURES)[:, None]))


def test_round_trip_is_bitwise_equal(run, exported):
    assert torch.equal(logits(run), logits(exported))
    ours, theirs = load_classifier(run), load_classifier(exported)
    assert ours.class_names == theirs.class_names
    assert dict(ours.hparams) == dict(theirs.hparams)


def test_card(run, exported):
    card = json.loads(exported.with_suffix(".json").read_text())
    results = json.loads((run / "results.json").read_text())
    assert card["sha256"] == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert card["network"] == card["options"]["network"] == "vgg11"
    assert card["options"]["ratio"] == 64
    assert len(card["class_names"]) == 10
    assert card["preprocessing"]["image_size"] == 32
    preprocess = load_classifier(run).preprocess  # by the mean of its own data
    assert (card["preprocessing"]["mean"], card["preprocessing"]["std"]) == (preprocess.mean, preprocess.std)
    assert card["results"]["test_acc"] == results["test_acc"]
    assert {"vgg_lightning", "torch", "lightning"} <= card["versions"].keys()


def test_accuracy_is_that_of_this_checkpoint_only(run, tmp_path):
    """results.json is of best.ckpt; what it says is not written on the card of another one."""
    file = tmp_path / "last.safetensors"
    assert launch(["export", str(run / "checkpoints" / "last.ckpt"), "--output", str(file)], tmp_path).code == 0
    assert json.loads(file.with_suffix(".json").read_text())["results"] is None


def test_opens_without_us(exported):
    """Others need nothing but safetensors."""
    code = f"from safetensors.torch import load_file; print(len(load_file({str(exported)!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 20


def test_weights_to_start_from(exported, tmp_path):
    launched = fit(tmp_path, "--model.weights", str(exported))
    assert launched.code == 0, launched.err
    assert "weights:" in launched.out


def test_it_is_no_checkpoint_to_resume_from(exported, tmp_path):
    for subcommand in ("fit", "test"):
        launched = launch([subcommand, "--ckpt_path", str(exported), *data_options()], tmp_path)
        assert launched.code == 2
        assert "--model.weights" in one_line(launched)


@pytest.mark.parametrize(
    "what", ["flipped", "short", "no card", "card of html", "card of another", "options", "format"]
)
def test_changed_files_are_refused(exported, what):
    card_file = exported.with_suffix(".json")
    card, content = json.loads(card_file.read_text()), bytearray(exported.read_bytes())
    if what == "flipped":
        content[-5] ^= 4
    elif what == "short":
        content = content[:-1]
    elif what == "no card":
        card_file.unlink()
    elif what == "card of html":
        card_file.write_text("<html>")
    elif what == "card of another":
        card["sha256"] = "0" * 64
    elif what == "options":
        card["options"]["hidden_units"] = 10**12
        card["options"]["head"] = "classic"
    elif what == "format":
        card["format"] = "vgg_lightning 99"
    exported.write_bytes(content)
    if what in ("card of another", "options", "format"):
        card_file.write_text(json.dumps(card))
    with pytest.raises(UserError):
        load_classifier(exported)


def test_a_foreign_file_with_a_true_checksum_is_refused(exported):
    """The checksum says that the card goes with the file, not that either can be trusted."""
    card_file = exported.with_suffix(".json")
    card = json.loads(card_file.read_text())
    for content in (b"", b"\xff" * 100, b"<html>", (2**40).to_bytes(8, "little") + b"{}"):
        exported.write_bytes(content)
        card_file.write_text(json.dumps(card | {"sha256": hashlib.sha256(content).hexdigest()}))
        with pytest.raises(UserError, match="not a safetensors file"):
            load_classifier(exported)


def test_nothing_half_written(run, tmp_path, monkeypatch):
    """A disk that fills up leaves the file of before, and no temporary one."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"before")

    def fail(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    launched = launch(["export", str(run), "--output", str(file), "--overwrite"], tmp_path)
    assert launched.code == 2
    assert "No space left" in one_line(launched)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]
    assert file.read_bytes() == b"before"
