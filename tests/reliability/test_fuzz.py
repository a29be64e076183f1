"""Launches with random values for random options: no traceback, no hang, no code 0 with weights that are not finite."""

import inspect
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import lightning as L
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import fit, fit_line

from vgg_lightning import Classifier, FashionMNISTDataModule

SECONDS = 60  # after which a launch hangs

WORDS = [
    "",
    "abc",
    "None",
    "null",
    "../x",
    "a/b",
    "-",
    "--",
    "é😀",
    "{a: 1}",
    "[1]",
    "[]",
    "os.system",
    "0x10",
    "~",
    "x" * 300,
]
NUMBERS = ["0", "1", "2", "7", "-1", "-7", "0.5", "1.0", "3.7", "1e-30", "1e30", "3e38", "1e400", ".nan", ".inf", "nan"]
TRUTHS = ["true", "false", "yes", "2"]
KNOWN = {  # values that mean something, so that launches come further than the parser
    "model.network": ["vgg11", "vgg13", "vgg16", "resnet18", "lenet", "nin", "whitened_vgg", "vgg_small"],
    "model.poolings": ["1", "3", "9"],
    "model.ratio": ["8", "16", "64", "3", "128"],
    "model.hidden_units": ["8", "32", "1000000000"],
    "model.head": ["classic", "batchnorm", "gap"],
    "model.init": ["default", "xavier", "kaiming", "dirac"],
    "model.optimizer": ["sgd", "adam", "adamw", "muon"],
    "model.lr": ["0.1", "1e-8", "1e10", "1e38"],
    "model.momentum": ["0.9", "0.999999", "1"],
    "model.weight_decay": ["1e5", "1e38", "0.1"],
    "model.schedule": ["constant", "cosine", "linear"],
    "model.tta": ["none", "flip", "flip_shift"],
    "model.sam_rho": ["0.05", "1e30"],
    "model.bias_lr_factor": ["8", "1e30"],
    "model.schedule_end": ["0.1", "1"],
    "model.distill": ["0.5", "0"],
    "model.ema_decay": ["0.9", "0.999", "1"],
    "model.in_channels": ["3", "1"],
    "data.image_size": ["28", "32", "33", "64", "1000000"],
    "data.batch_size": ["1", "3", "448", "100000"],
    "data.val_size": ["0", "1", "500", "511", "512"],
    "data.augment": [
        "[flip]",
        "[shift, flip]",
        "[alternating_flip]",
        "[flop]",
        "flip",
        "[crop:3,erase,cutmix]",
        "[crop:x]",
    ],
    "data.dataset": ["idx", "mnist"],
    "trainer.accelerator": ["cpu", "auto", "gpu", "tpu"],
    "trainer.devices": ["auto", "1", "0", "-1", "1,2", "[0]"],
    "trainer.strategy": ["auto", "single_device", "nonsense"],
    "trainer.precision": ["32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true", "32", "16"],
    "trainer.num_nodes": ["1", "0", "-1"],
    "trainer.max_time": ["00:00:00:30", "00:00:00:00", "x"],
    "trainer.gradient_clip_val": ["1.0", "1e-10", "0"],
    "trainer.gradient_clip_algorithm": ["norm", "value"],
    "trainer.profiler": ["simple", "advanced"],
    "trainer.limit_train_batches": ["1", "2", "0.1", "0"],
    "trainer.max_epochs": ["1", "2", "0"],
    "trainer.default_root_dir": ["sub", "a/b/c", "/proc"],
    "early_stopping": ["0", "1"],
    "name": ["run", "r 1", "a.b"],
    "seed_everything": ["0", "42", "true"],
}
# Options whose every value would start other processes or wait for other machines, or that read files of the user.
CLOSED = {"trainer.strategy", "trainer.devices", "trainer.num_nodes", "model.weights", "model.teacher", "data.data_dir"}
CLOSED_PATHS = {"model.weights", "model.teacher", "data.data_dir"}


def option_names():
    groups = {"model": Classifier, "data": FashionMNISTDataModule, "trainer": L.Trainer}
    names = [f"{group}.{name}" for group, owner in groups.items() for name in inspect.signature(owner).parameters]
    return sorted({*names, "early_stopping", "name", "seed_everything", "test"} - CLOSED_PATHS)


def values(name):
    if name in CLOSED:
        return st.sampled_from(KNOWN[name])
    fitting = [st.sampled_from(KNOWN[name])] * 6 if name in KNOWN else []
    return st.one_of(*fitting, st.sampled_from([*NUMBERS, *TRUTHS]), st.sampled_from(WORDS), st.text(max_size=8))


@st.composite
def option_lists(draw):
    telling = st.sampled_from([name for name in KNOWN if name in option_names()])
    names = draw(st.lists(st.sampled_from(option_names()) | telling, min_size=1, max_size=3, unique=True))
    pairs = {f"--{name}": draw(values(name)) for name in names}
    return [part for pair in pairs.items() for part in pair]


class HangsError(Exception):
    pass


def hang(*_):
    raise HangsError(f"no end within {SECONDS} s")


def examine(folder, code, out, err):
    """Hold one launch against what is promised."""
    assert "Traceback" not in out + err, err
    assert code in (0, 2, 3), err
    if code:
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, err
        return
    for file in folder.rglob("*.ckpt"):
        weights = torch.load(file, weights_only=True)["state_dict"]
        assert all(bool(tensor.isfinite().all()) for tensor in weights.values()), file


def test_fuzzed_launches(long):
    launches = 200 if long else 40
    done = []

    @settings(
        max_examples=launches, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(options=option_lists())
    def run(options):
        folder = Path(tempfile.mkdtemp(prefix="vgg_lightning_fuzz_"))
        signal.signal(signal.SIGALRM, hang)
        signal.alarm(SECONDS)
        try:
            launched = fit(folder, *options)
            signal.alarm(0)
            examine(folder, *launched)
            done.append(launched.code)
        finally:
            signal.alarm(0)
            shutil.rmtree(folder, ignore_errors=True)

    failed = 0
    try:
        run()
    except Exception:
        failed = 1
        raise
    finally:
        if long:
            seeds = f"derandomized; codes 0: {done.count(0)}, 2: {done.count(2)}, 3: {done.count(3)}"
            harness.record(
                "R20 fuzzed launches", len(done), max(launches, len(done) + failed), seeds, "reliability_guards"
            )
    assert len(done) >= launches * 0.9


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--model.lr", "1e38"], 3),
        (["--data.batch_size", "3", "--model.head", "classic", "--model.hidden_units", "8"], 0),
        (["--trainer.precision", "é😀"], 2),
    ],
)
def test_launches_in_a_process_of_their_own(tmp_path, options, code):
    command = [sys.executable, "-m", "vgg_lightning", *fit_line(*options)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS * 2)
    assert done.returncode == code, done.stderr
    examine(tmp_path, done.returncode, done.stdout, done.stderr)
