"""Presets train in bfloat16 where a CPU computes it natively and rightly, and nowhere else."""

import json
import os
import subprocess
import sys

import lightning as L
import pytest
import small
import torch
import yaml
from lightning.pytorch.plugins import DoublePrecision

from vgg_lightning import FashionMNISTDataModule, load_classifier
from vgg_lightning.prepare import prepare
from vgg_lightning.presets import presets
from vgg_lightning.run import bfloat16, precision

DATA = ("--data.data_dir", str(small.data_folder()))
WITH_AUTO = ("quick",)
ASK = (
    "from vgg_lightning.run import bfloat16, precision; "
    "print(precision.chosen(True), '|', bfloat16.fault(), flush=True)"
)


def ask(script=ASK, **variables):
    """Return what a new process prints, where oneDNN has not read its variables yet."""
    held_back = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_VERBOSE", "DNNL_VERBOSE")
    environment = {name: value for name, value in os.environ.items() if name not in held_back}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=environment | variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def finds(monkeypatch):
    """Let the check of this process find what is given: a fault, or nothing."""
    yield lambda fault: (precision.chosen.cache_clear(), monkeypatch.setattr(bfloat16, "fault", lambda: fault))
    precision.chosen.cache_clear()


# The check.


@pytest.mark.parametrize(("name", "held_back"), [("ONEDNN_MAX_CPU_ISA", "AVX2"), ("DNNL_MAX_CPU_ISA", "AVX512_CORE")])
def test_a_processor_that_is_held_back_has_no_bfloat16(name, held_back):
    assert ask(**{name: held_back}) == f"32-true | {bfloat16.EMULATED}\n"


def test_a_processor_that_has_it_uses_it():
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not (has.get("avx512_bf16") or has.get("amx_bf16")):
        assert ask() == f"32-true | {bfloat16.EMULATED}\n"
        pytest.skip("this processor has no instructions for bfloat16")
    assert ask() == "bf16-mixed | \n"


def test_the_check_leaves_no_trace(capfd):
    bfloat16.fault.cache_clear()
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.inference_mode():
        bfloat16.fault()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    print("next")
    assert capfd.readouterr().out == "next\n"


def test_what_the_user_asked_of_onednn_stays():
    script = f"{ASK}; import torch; torch.conv2d(torch.ones(32, 16, 32, 32), torch.ones(16, 16, 3, 3))"
    after = ask(script, ONEDNN_VERBOSE="1").partition("|")[2]
    assert "convolution" in after
    assert "convolution" not in ask(script).partition("|")[2]


def kernels(*names):
    lines = [f"onednn_verbose,v1,primitive,exec,cpu,convolution,{name},src:bf16::blocked:acdb" for name in names]
    return "\n".join(lines)


NATIVE = [
    *("brg_conv_fwd:avx512_core_bf16,forward_training", "brg_conv_bwd:avx512_core_amx,backward_data"),
    "jit_bf16:avx512_core_bf16,backward_weights",
]


@pytest.mark.parametrize(
    ("named", "wrong", "expected"),
    [
        (NATIVE, [], ""),
        (NATIVE, ["backward_weights"], "its convolutions differ from those in float32 on this cpu (backward_weights)"),
        ([*NATIVE[:2], "ref:any,backward_weights"], [], bfloat16.EMULATED),
        ([*NATIVE[:2], "jit_bf16:avx512_core,backward_weights"], [], bfloat16.EMULATED),
        (NATIVE[:2], [], bfloat16.EMULATED),
        ([], [], bfloat16.EMULATED),
    ],
    ids=["native", "wrong", "reference", "emulated", "a pass is missing", "nothing is said"],
)
def test_kernels_are_known_by_their_names(monkeypatch, named, wrong, expected):
    def compute():
        os.write(1, kernels(*named).encode())
        return wrong

    monkeypatch.setattr(bfloat16, "_wrong_passes", compute)
    assert bfloat16.fault.__wrapped__() == expected


def test_a_wrong_result_is_found(monkeypatch):
    right, calls = bfloat16._convolve, []

    def convolve(x, weight, gradient):
        results = right(x, weight, gradient)
        calls.append(x.dtype)
        if x.dtype == torch.bfloat16 and len(calls) == 2:
            results[2][0, 0, 0, 0] = float("nan")
        return results

    monkeypatch.setattr(bfloat16, "_convolve", convolve)
    with bfloat16._printed():
        assert bfloat16._wrong_passes() == ["backward_weights"]
    assert len(calls) == 2 * len(bfloat16.SHAPES)


# What follows from it.


def test_these_presets_leave_it_to_the_processor_and_no_other_does():
    asked = {name: (yaml.safe_load(file.read_text()).get("trainer") or {}) for name, file in presets().items()}
    assert {name for name, trainer in asked.items() if trainer.get("precision") == precision.AUTO} == set(WITH_AUTO)


def auto(*options):
    line = small.fit_line("--show", "none", "--name", "p", "--test", "false", *options)
    del line[(where := line.index("--trainer.precision")) : where + 2]
    return ["fit", "--config", "quick", *line[1:]]


@pytest.mark.parametrize(("fault", "expected"), [("", "bf16-mixed"), (bfloat16.EMULATED, "32-true")])
def test_a_run_holds_the_precision_that_it_has_and_keeps_it(tmp_path, finds, fault, expected):
    finds(fault)
    done = small.launch(auto(), tmp_path)
    assert done.code == 0, done.err
    assert f"1 epoch on cpu in {expected}" in done.out
    assert "--trainer.precision" not in done.err
    run = tmp_path / "lightning_logs/p/version_0"
    for wanted in (lambda: (run / "config.yaml").read_text(), lambda: (run / "results.json").read_text()):
        assert expected in wanted()
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["run_options"]["precision"] == expected
    finds("" if fault else bfloat16.EMULATED)  # the run goes on elsewhere
    again = small.launch(auto("--resume", "--trainer.max_epochs", "2"), tmp_path)
    assert again.code == 0, again.err
    assert f"2 epochs on cpu in {expected}" in again.out
    assert ("only emulates it" in again.err) == (expected == "bf16-mixed")
    assert json.loads((run / "results.json").read_text())["precision"] == expected
    tested = small.launch(["test", "--ckpt_path", str(run), "--trainer.precision", "auto", *DATA], tmp_path)
    assert tested.code == 0, tested.err
    assert "precision" not in tested.err


def test_kernels_that_err_are_said_and_not_used(tmp_path, finds):
    finds("its convolutions differ")
    done = small.launch(auto(), tmp_path)
    assert "note: --trainer.precision auto is 32-true, not bf16-mixed: its convolutions differ" in done.err
    assert "1 epoch on cpu in 32-true" in done.out
    asked = small.launch([*auto(), "--trainer.precision", "bf16-mixed"], tmp_path)
    assert "note: --trainer.precision bf16-mixed: its convolutions differ" in asked.err
    assert "1 epoch on cpu in bf16-mixed" in asked.out


def test_from_python_nothing_is_chosen_unless_it_is_asked_for(finds):
    finds("")
    parts = {"network": "lenet"}, {"dataset": "idx", "data_dir": str(small.data_folder())}

    def used(**trainer):
        trainer |= {"accelerator": "cpu", "max_epochs": 1}
        return prepare(*parts, trainer=trainer, record=False).trainer.precision

    assert used() == "32-true"
    assert used(precision="auto") == "bf16-mixed"
    assert used(precision="32-true") == "32-true"
    assert used(precision="auto", plugins=[DoublePrecision()]) == "64-true"
    assert L.Trainer(accelerator="cpu", logger=False).precision == "32-true"


def test_find_follows(tmp_path, finds, monkeypatch):
    from vgg_lightning.find import batch_size

    seen = []
    finds("")
    real = batch_size.measure_sizes
    monkeypatch.setattr(
        batch_size, "measure_sizes", lambda model, data, trainer, *rest: (
            seen.append(trainer.precision), real(model, data, trainer, *rest)
        )[1],
    )  # fmt: skip
    options = ["--config", "quick", *small.data_options(), *small.NETWORK, "--max_size", "8"]
    assert small.launch(["find", "batch_size", *options], tmp_path).code == 0
    assert seen == ["bf16-mixed"]


def test_predict_in_bfloat16_gives_the_same_classes(fashion_mnist_dir):
    if precision.chosen(True) == "32-true":
        pytest.skip("this processor has no instructions for bfloat16")
    classifier, (images, _) = load_classifier("reference"), FashionMNISTDataModule().images("test")
    exact = classifier.predict(images).labels
    with torch.autocast("cpu", torch.bfloat16):  # as `predict --trainer.precision bf16-mixed`
        fast = classifier.predict(images).labels
    assert int((exact == fast).sum()) >= 9_990
