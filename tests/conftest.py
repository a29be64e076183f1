"""What all tests share."""

from __future__ import annotations

import functools
import multiprocessing.process
import os
import subprocess

import lightning as L
import pytest
import torch

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.files import default_data_dir, prepare


def pytest_addoption(parser):
    parser.addoption("--check", action="store_true", help="skip a test as soon as it starts a process or trains")


@pytest.fixture(scope="session", autouse=True)
def only_what_is_quick(request):
    """With --check, end a test that takes long where it begins to: nobody keeps a list of them."""
    if not request.config.option.check:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, what in (
            (subprocess.Popen, "__init__", "starts a program"),
            (multiprocessing.process.BaseProcess, "start", "starts a process"),
            (os, "fork", "forks"),
            (L.Trainer, "fit", "trains"),
            (torch.onnx, "export", "exports"),
        ):
            patch.setattr(owner, name, _skips(what, getattr(owner, name)))
        yield


def _skips(what, function):
    @functools.wraps(function)  # the command line reads its signature
    def skip(*_, **__):
        _began.append(what)
        pytest.skip(f"it {what}: make test")

    return skip


_began: list[str] = []  # what the test at hand was kept from


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Report as skipped what only failed because --check has kept it, or a fixture that it shares, from its work."""
    report = (yield).get_result()
    error = call.excinfo and call.excinfo.value
    if error is not None and _began:
        error.kept_from = _began[0]  # a fixture raises the same error for each of its tests
    if kept_from := getattr(error, "kept_from", None):
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: it {kept_from}: make test")
    if call.when == "teardown":
        _began.clear()


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
