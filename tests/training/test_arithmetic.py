"""Arithmetic in corners: small and last batches, low precision, little data."""

import copy
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1] / "reliability"))
from small import data_folder

from vgg_lightning import Classifier, FashionMNISTDataModule

PLAIN = {"network": "vgg11", "ratio": 64, "head": "gap", "dropout": 0.0, "init": "kaiming", "lr": 0.1}  # no BatchNorm


def data(**options):
    own = {"dataset": "idx", "data_dir": str(data_folder()), "val_size": 64, "batch_size": 16, "image_size": 32}
    return FashionMNISTDataModule(**{**own, **options})


def trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    brief = {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return L.Trainer(**{**quiet, **brief, **options})


def moved(module, accumulate, double=True, model=None, **options):
    """Return how far a fit moves the weights of one network, in double precision."""
    torch.manual_seed(0)
    model = Classifier(**{**PLAIN, **(model or {})})
    before = copy.deepcopy(model.network).double().state_dict()
    precision = {"precision": "64-true"} if double else {}
    fits = trainer(accumulate_grad_batches=accumulate, limit_val_batches=0, **precision, **options)
    fits.fit(model, module)
    return {name: value.double() - before[name] for name, value in model.network.state_dict().items()}, fits.global_step


def close(first, second):
    (a, steps), (b, others) = first, second
    assert steps == others
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=1e-6, atol=1e-9), name
    return True


# 88 images: batches of 32, 32 and 24.


@pytest.mark.parametrize("accumulate", [4, 100])
@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_clip_val": 0.01}, {"gradient_clip_val": 0.001, "gradient_clip_algorithm": "value"}],
    ids=["plain", "clipped", "clipped by value"],
)
def test_accumulated_batches_step_as_one_batch_of_all_their_images(accumulate, options):
    module = {"val_size": 512 - 88}
    whole = moved(data(batch_size=128, **module), 1, **options)
    assert close(moved(data(batch_size=32, **module), accumulate, **options), whole)


@pytest.mark.parametrize(
    ("sizes", "accumulate", "groups"),
    [
        ([32, 32, 24], 2, [64, 24]),
        ([16, 16, 16, 16, 16], 4, [64, 16]),
        ([5, 16, 1, 10], 3, [22, 10]),
        ([8, 8, 8, 8], 2, [16, 16]),
    ],
)
def test_each_image_of_a_group_counts_once_whatever_the_loader(sizes, accumulate, groups):
    images, labels = data(mean=0.2, std=0.3).pictures("train")

    def loader(batches):
        places = torch.arange(sum(batches)).split(batches)
        return DataLoader(TensorDataset(images, labels), batch_sampler=[place.tolist() for place in places])

    assert close(moved(loader(sizes), accumulate), moved(loader(groups), 1))
