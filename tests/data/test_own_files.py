"""The data set "idx": files of the user's own."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.files import load, prepare
from vgg_lightning.data.sources.catalogue import DATASETS, mnist_like_files

FILES = mnist_like_files()


@pytest.fixture
def own(tiny_good, root):
    """A data folder with one's own four files."""
    shutil.copytree(tiny_good.raw, root, dirs_exist_ok=True)
    return root


def test_own_files_need_no_checksum(own):
    prepared = prepare(own, "idx")
    assert prepared.folder == own
    assert len(prepared.checksums) == 4
    assert load(own, "test", "idx")[0].shape == (20, 1, 28, 28)
    assert len(DATASETS["idx"].classes) == 10


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        (FILES[0].name, np.zeros((3, 28, 28)), "3 images and 50 labels of the train split"),
        (FILES[0].name, np.zeros((50, 32, 32)), "holds images of 32x32 pixels, not 28x28"),
        (FILES[0].name, np.zeros(50), "holds labels, not images"),
        (FILES[1].name, np.full(50, 10), "holds the label 10, labels go from 0 to 9"),
        (FILES[3].name, np.zeros(0), "holds no labels"),
    ],
)
def test_own_files_are_checked(own, name, array, said):
    content = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    (own / name).write_bytes(content + array.astype(np.uint8).tobytes())
    with pytest.raises(UserError, match=said) as refused:
        prepare(own, "idx")
    assert "\n" not in str(refused.value)


def test_own_files_that_are_missing_or_compressed_are_named(own, tiny_good):
    (own / FILES[2].name).unlink()
    with pytest.raises(UserError, match=f"{FILES[2].name} is missing"):
        prepare(own, "idx")
    shutil.copy(tiny_good.gz / f"{FILES[2].name}.gz", own / FILES[2].name)
    with pytest.raises(UserError, match="is still compressed"):
        prepare(own, "idx")
