"""The tracked reference run: small, complete, and as accurate as it says."""

import json
from pathlib import Path

import pytest
import torch

from vgg_lightning import FashionMNISTDataModule, load_classifier

RUN = Path(__file__).parents[1] / "lightning_logs/reference/version_0"


def test_its_accuracy_on_the_real_test_set_is_the_stated_one(fashion_mnist_dir):
    results = json.loads((RUN / "results.json").read_text())
    images, labels = FashionMNISTDataModule().images("test")
    torch.set_num_threads(results["threads"])
    accuracy = (load_classifier(RUN).predict(images).labels == labels).float().mean().item()
    assert accuracy == pytest.approx(results["test_acc"], abs=1e-4)  # rounding may move one image
    assert accuracy >= 0.925


def test_it_is_small_and_holds_no_path_of_the_machine_that_made_it():
    files = [file for file in RUN.rglob("*") if file.is_file()]
    assert {"best.ckpt", "config.yaml", "metrics.csv", "results.json"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) <= 6e6
    assert not [file for file in files if b"/home/" in file.read_bytes() or b"/tmp/" in file.read_bytes()]
