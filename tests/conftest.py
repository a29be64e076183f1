"""What all tests share."""

from __future__ import annotations

import pytest
import torch

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.files import default_data_dir, prepare


def pytest_collection_modifyitems(config, items):
    """Leave out what is marked slow, unless `-m` speaks of it."""
    if "slow" not in config.option.markexpr:
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))


@pytest.fixture(autouse=True)
def same_threads():
    """Leave the number of threads as it was found: other tests compare bits, which depend on it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def fashion_mnist_dir():
    """The per-user data folder with the real Fashion-MNIST; where it cannot be had, its tests are skipped."""
    try:
        prepare()
    except UserError as error:
        pytest.skip(f"the real data is out of reach: {error}")
    return default_data_dir()
