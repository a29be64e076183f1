"""What the tests of this folder share: 512 synthetic images, a network of 2,435 parameters, and the command line."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

import vgg_lightning.cli.lightning  # noqa: F401 - so that no test pays for the imports
from vgg_lightning.__main__ import main

NETWORK = ["--model.network", "vgg11", "--model.ratio", "64", "--model.head", "gap"]
BRIEF = [
    *("--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1"),
    *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--show", "classes"),
    *("--trainer.precision", "32-true"),  # the same on every processor, where the preset chooses by it
]


class Launch(NamedTuple):
    code: int
    out: str
    err: str


@functools.cache
def data_folder() -> Path:
    """Return a folder with four IDX files whose classes are bright columns: easy to learn."""
    folder = Path(tempfile.mkdtemp(prefix="vgg_lightning_tests_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    random = np.random.default_rng(0)
    for split, count in (("train", 512), ("t10k", 128)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = random.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, 2 * label : 2 * label + 4] += 150
        (folder / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 28, 28) + images.tobytes())
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels.tobytes())
    return folder


def data_options() -> list[str]:
    return [
        *("--data.dataset", "idx", "--data.data_dir", str(data_folder())),
        *("--data.val_size", "64", "--data.batch_size", "16"),
    ]


def launch(args: list[str], cwd: Path) -> Launch:
    """Run the command line in this process and in the folder `cwd`."""
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(args)
            except SystemExit as stop:  # of --help
                code = int(stop.code or 0)
    finally:
        os.chdir(before)
    return Launch(code, out.getvalue(), err.getvalue())


def fit_line(*options: str) -> list[str]:
    """Return the arguments that train the small network on two batches, with `options` in the place of its own."""
    defaults = [*data_options(), *NETWORK, *BRIEF]
    pairs = list(zip(defaults[::2], defaults[1::2], strict=True))
    return ["fit", *(part for pair in pairs if pair[0] not in options for part in pair), *options]


def without_precision(folder: Path) -> Path:
    """Write a configuration that says nothing of precision, and return its file."""
    file = folder / "plain.yaml"
    file.write_text("model:\n  network: vgg11\n", encoding="utf-8")
    return file


def fit(cwd: Path, *options: str) -> Launch:
    return launch(fit_line(*options), cwd)


def one_line(launched: Launch) -> str:
    """Return the one line of an error, and insist that it is the only one and no traceback."""
    assert "Traceback" not in launched.out + launched.err
    lines = [line for line in launched.err.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("note: ")]  # of the preset
    assert len(lines) == 1, launched.err
    assert lines[0].startswith("error: ")
    return lines[0]
