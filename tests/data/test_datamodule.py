"""The data module on the real data: sizes, splits, and what a batch looks like."""

from types import SimpleNamespace

import pytest
import torch

from vgg_lightning import FashionMNISTDataModule
from vgg_lightning.base.errors import UserError


@pytest.fixture(scope="module")
def data(fashion_mnist_dir):
    module = FashionMNISTDataModule(batch_size=128)
    module.prepare_data()
    for stage in ("fit", "test"):
        module.setup(stage)
    return module


def test_sizes_and_classes(data):
    for split, size, per_class in (("train", 55_000, 5500), ("val", 5000, 500), ("test", 10_000, 1000)):
        images, labels = data.images(split)
        assert images.shape == (size, 1, 28, 28)
        assert images.dtype == torch.uint8
        assert torch.bincount(labels).tolist() == [per_class] * 10


def test_a_batch_is_uint8_until_it_is_on_the_device(data):
    batch = next(iter(data.train_dataloader()))
    images, labels, *_ = batch
    assert images.shape == (128, 1, 28, 28)
    assert images.dtype == torch.uint8
    for given in (batch, (images, labels)):  # ours, and the pair of a plain loader
        result = data.on_after_batch_transfer(given, 0)
        x, y, *_ = result
        assert type(result) is type(given)
        assert x.shape == (128, 1, 32, 32)
        assert x.dtype == torch.float32
        assert torch.equal(y, labels)


def test_training_never_sees_a_test_picture_that_is_not_in_both_files(data):
    test = {image.numpy().tobytes() for image in data.images("test")[0]}
    train, _ = data.images("train")
    held_out, _ = data.images("val")
    shared = sum(image.numpy().tobytes() in test for image in torch.cat([train, held_out]))
    assert shared < 50  # the official files themselves share a few images
    assert len(train) + len(held_out) == 60_000


def test_val_size_zero_trains_on_everything(fashion_mnist_dir):
    module = FashionMNISTDataModule(val_size=0)
    module.setup("fit")
    assert len(module.images("train")[1]) == 60_000
    assert module.val_dataloader() == []


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"image_size": 20}, {"augment": ["blur"]}])
def test_bad_options(options):
    with pytest.raises(UserError):
        FashionMNISTDataModule(**options)


@pytest.mark.parametrize("on_device", [True, False])
def test_pictures_are_held_on_the_device_that_trains_unless_told_not_to(fashion_mnist_dir, on_device):
    data = FashionMNISTDataModule(on_device=on_device)
    data.images("train")
    data.trainer = SimpleNamespace(
        global_rank=0, world_size=1, overfit_batches=0, strategy=SimpleNamespace(root_device=torch.device("meta"))
    )
    assert data.train_dataloader().images.device.type == ("meta" if on_device else "cpu")
    assert data.images("train")[0].device.type == "cpu"
