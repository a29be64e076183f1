"""Whole-batch transforms against torchvision's, image by image."""

import pytest
import torch
from torchvision import transforms

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.augment import Augment, Place
from vgg_lightning.data.augment.moves import first_half, flip, shift
from vgg_lightning.data.batches import BatchLoader
from vgg_lightning.data.transforms import MEAN, STD, Preprocess, resize


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (12, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def of_the_sources(images, size):
    """Resize and ToTensor of PIL images, one by one."""
    reference = transforms.Compose([transforms.ToPILImage(), transforms.Resize(size), transforms.ToTensor()])
    return torch.stack([reference(image) for image in images])


@pytest.mark.parametrize("size", [28, 56, 64, 100, 112, 128, 224, 256])
def test_equals_the_resize_and_totensor_of_the_sources_bit_for_bit(images, size):
    assert torch.equal(Preprocess(size, normalize=False)(images), of_the_sources(images, size))


@pytest.mark.parametrize("size", [40, 48, 96, 192])
def test_a_half_may_be_rounded_the_other_way_at_other_sizes(fashion_mnist_dir, size):
    from vgg_lightning.data.files import load

    images = load(fashion_mnist_dir, "test")[0][:50]
    wrong = (Preprocess(size, normalize=False)(images) - of_the_sources(images, size)).abs()
    assert wrong.max() <= 1 / 255 + 1e-6
    assert (wrong > 0).float().mean() < 0.02


@pytest.mark.parametrize("size", [33, 50, 64, 96, 112, 128, 192, 224, 448])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_way_to_enlarge_gives_the_same_bits(images, size, dtype, monkeypatch):
    fast = resize(images.float(), size)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)  # the way without tricks of layout
    assert torch.equal(resize(images.to(dtype), size).float(), fast)


def test_mixed_precision_does_not_reach_the_pictures(images):
    expected = resize(images.float(), 96)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resize(images.float(), 96), expected)


@pytest.mark.parametrize("size", [29, 30, 31, 32])
def test_up_to_32_is_a_black_frame_and_no_blur(images, size):
    x = Preprocess(size, normalize=False)(images)
    assert x.shape == (12, 1, size, size)
    border = (size - 28) // 2
    assert torch.equal(x[..., border : border + 28, border : border + 28], images / 255)
    assert torch.isclose(x.sum(), (images / 255).sum())


def test_normalises_and_repeats_the_channel(images):
    x = Preprocess(28, in_channels=3)(images)
    assert x.shape == (12, 3, 28, 28)
    assert torch.allclose(x[:, 2:], (images / 255 - MEAN) / STD)


def test_smaller_than_the_pictures_is_refused():
    with pytest.raises(UserError, match=r"image_size 28 or more"):
        Preprocess(27)


def test_the_constants_are_those_of_the_training_pictures(fashion_mnist_dir):
    from vgg_lightning.data.files import load

    pixels = load(fashion_mnist_dir, "train")[0].float() / 255
    assert pixels.mean().item() == pytest.approx(MEAN, abs=5e-5)
    assert pixels.std().item() == pytest.approx(STD, abs=5e-5)


def test_flip_mirrors_about_half_and_leaves_the_rest():
    images = torch.arange(28, dtype=torch.uint8).expand(1000, 1, 28, 28)
    flipped = flip(images, torch.Generator().manual_seed(0))
    mirrored = (flipped == images.flip(-1)).all(dim=(1, 2, 3))
    assert (mirrored | (flipped == images).all(dim=(1, 2, 3))).all()
    assert 400 < mirrored.sum() < 600


def test_shift_moves_each_picture_by_at_most_two_pixels():
    images = torch.zeros(1000, 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 14, 14] = 255
    moved = shift(images, torch.Generator().manual_seed(0))
    rows, columns = moved[:, 0].flatten(1).argmax(1) // 28, moved[:, 0].flatten(1).argmax(1) % 28
    assert (moved.flatten(1).sum(1) == 255).all()
    assert sorted(rows.unique().tolist()) == sorted(columns.unique().tolist()) == [12, 13, 14, 15, 16]


def place(**where):
    return Place(**{"seed": 1, "epoch": 0, "batch": 1, "rank": 0, "indices": torch.arange(12), "size": 12, **where})


@pytest.mark.parametrize("other", [{"seed": 2}, {"epoch": 1}, {"batch": 2}, {"rank": 1}])
def test_augmentation_is_a_function_of_the_place(images, other):
    augment = Augment(["flip", "shift"])
    assert torch.equal(augment(images, place()), augment(images, place()))
    assert not torch.equal(augment(images, place()), augment(images, place(**other)))
    assert augment(images, place()).dtype == torch.uint8


def mirrored(seed, epoch, batch_size, ranks=1):
    """Return bool (101,): which of 101 images the batches of an epoch show mirrored."""
    images = torch.arange(28, dtype=torch.uint8).expand(101, 1, 28, 28)
    found = torch.zeros(101, dtype=torch.bool)
    augment = Augment(["alternating_flip"])
    for rank in range(ranks):
        loader = BatchLoader(images, torch.arange(101), batch_size, True, seed, rank, ranks)
        loader.set_epoch(epoch)
        for batch in loader:
            where = Place(seed, epoch, batch.position, rank, batch.indices, 101)
            found[batch.labels] = augment(batch.images, where)[:, 0, 0, 0] > 0
    return found


def test_alternating_flip_mirrors_one_half_then_the_other():
    first, second, third = (mirrored(seed=3, epoch=epoch, batch_size=10) for epoch in range(3))
    assert first.sum() == 50
    assert torch.equal(second, ~first)
    assert torch.equal(third, first)


def test_alternating_flip_depends_on_seed_and_epoch_alone():
    assert torch.equal(mirrored(3, 5, batch_size=10), mirrored(3, 5, batch_size=7))
    assert torch.equal(mirrored(3, 5, batch_size=10), mirrored(3, 5, batch_size=10, ranks=2))
    assert not torch.equal(mirrored(3, 5, batch_size=10), mirrored(4, 5, batch_size=10))
    first_half.cache_clear()  # as in a process that resumes
    assert torch.equal(mirrored(3, 5, batch_size=10), ~mirrored(3, 0, batch_size=10))


def test_unknown_augmentation():
    with pytest.raises(UserError, match="did you mean flip"):
        Augment(["flipp"])
