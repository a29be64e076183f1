"""What the tests of the benchmarks share."""

import pytest


@pytest.fixture(autouse=True)
def one_thread(monkeypatch, fashion_mnist_dir):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
