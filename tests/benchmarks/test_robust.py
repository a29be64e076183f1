"""Photographs made of images of the data set, and what `predict` makes of them."""

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks import robust
from vgg_lightning import FashionMNISTDataModule


@pytest.fixture(scope="module")
def images(fashion_mnist_dir):
    return FashionMNISTDataModule().images("val")[0][:12, 0].numpy()


def levels(file):
    return np.asarray(Image.open(io.BytesIO(file)).convert("L"), dtype=float)


def test_a_plain_photograph_becomes_the_image_again(images):
    found = robust.prepared(robust.photographs(images, "none", 1)).astype(float)
    differences = abs(found - images).mean(axis=(1, 2))
    assert np.median(differences) < 12


@pytest.mark.parametrize("change", [name for name in robust.CHANGES if name != "none"])
def test_a_change_shows_and_is_the_same_again(images, change):
    files = robust.photographs(images, change, 1)
    assert files == robust.photographs(images, change, 1)
    plain = robust.photographs(images, "none", 1)
    assert all(a != b for a, b in zip(files, plain, strict=True))
    assert robust.photographs(images, change, 2) != files


def test_changes_are_what_they_say(images):
    plain, *others = (
        [levels(file) for file in robust.photographs(images, change, 1)]
        for change in ("none", "bright on white", "coloured paper", "thin margin", "cut off")
    )
    bright, coloured, thin, cut = others
    assert all(b.min() > 140 > a.min() for a, b in zip(plain, bright, strict=True))
    assert any(np.median(a) < 240 for a in coloured)
    assert all(a.size > 1.5 * b.size for a, b in zip(plain, thin, strict=True))
    assert all(a.size > b.size for a, b in zip(plain, cut, strict=True))


def test_a_bright_thing_on_white_gets_contrast_and_a_dark_one_keeps_its_levels(images):
    bright = robust.prepared(robust.photographs(images, "bright on white", 1))
    assert all(np.percentile(image[image > 13], 95) > 110 for image in bright)
    shirt = Image.new("L", (200, 200), 255)
    shirt.paste(60, (50, 40, 150, 160))
    assert robust.prepare(shirt).max() == 195
