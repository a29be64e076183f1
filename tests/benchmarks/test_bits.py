"""The command that compares what two checkouts train, bit for bit."""

import inspect
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from benchmarks import bits
from benchmarks.bits_cases import PRESETS, Case, all_cases
from benchmarks.runner import ROOT
from vgg_lightning import Classifier, FashionMNISTDataModule
from vgg_lightning.presets import presets


@pytest.fixture
def copy(tmp_path):
    """Return a checkout whose preset `quick` has another learning rate."""
    shutil.copytree(ROOT / "vgg_lightning", tmp_path / "copy" / "vgg_lightning")
    file = tmp_path / "copy" / "vgg_lightning" / "presets" / "quick.yaml"
    assert file.read_text().count("\n  lr: 0.1\n") == 1
    file.write_text(file.read_text().replace("\n  lr: 0.1\n", "\n  lr: 0.2\n"))
    return tmp_path / "copy"


def test_equal_code_is_the_same_and_other_arithmetic_is_not(copy, capfd, monkeypatch):
    refused = Case("wrong", (("-m", "vgg_lightning", "fit", "--model.lr", "-1"),))
    monkeypatch.setattr(bits, "all_cases", lambda *args: [*all_cases(*args), refused])
    chosen = ["small", "lr", "open", "wrong"]  # of which `lr` has a rate of its own
    assert bits.main(["--base", str(copy), "--only", *chosen, "--steps", "2"]) == 1
    out = capfd.readouterr().out
    outcomes = dict(re.findall(r"^(\S+) +(same|DIFFERENT|refused alike) ", out, re.MULTILINE))
    assert outcomes == {"small": "DIFFERENT", "lr": "same", "open": "same", "wrong": "refused alike"}, out
    assert "checkpoints/last.ckpt" in next(line for line in out.splitlines() if line.startswith("small"))
    assert out.splitlines()[-1] == "4 cases: 2 same, 1 DIFFERENT, 1 refused alike"


def write(folder, change=None):
    folder.mkdir()
    content = {
        "state_dict": {"weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3), "momentum": torch.ones(3)}}, "lr": 0.5}],
        "callbacks": {"Report": {"seconds": time.monotonic()}, "Best": {f"{folder}/best.ckpt": torch.tensor(0.5)}},
        "epoch": 1,
    }
    metrics = "step,val_loss\n1,0.25\n"
    if change == "metrics":
        metrics = metrics.replace("0.25", "0.5")
    elif change:
        change(content)
    torch.save(content, folder / "last.ckpt")
    (folder / "metrics.csv").write_text(metrics)
    (folder / "results.json").write_text(f'{{"steps": 3, "val_loss": 0.25, "seconds": {time.monotonic()}}}')
    return folder


def bump(tensor):
    tensor.view(torch.uint8).reshape(-1)[0] ^= 1  # the last bit of the first value


CHANGES = {
    "weight": lambda c: bump(c["state_dict"]["weight"]),
    "half": lambda c: bump(c["state_dict"]["half"]),
    "shape": lambda c: c["state_dict"].update(weight=c["state_dict"]["weight"].reshape(3, 2)),
    "name": lambda c: c["state_dict"].update(bias=c["state_dict"].pop("half")),
    "momentum": lambda c: bump(c["optimizer_states"][0]["state"][0]["momentum"]),
    "rate": lambda c: c["optimizer_states"][0].update(lr=0.25),
    "callback": lambda c: c["callbacks"]["Best"].update({k: v + 0.1 for k, v in c["callbacks"]["Best"].items()}),
    "epoch": lambda c: c.update(epoch=2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_changed_value_is_noticed(change, tmp_path):
    one, other = bits.digests(write(tmp_path / "a")), bits.digests(write(tmp_path / "b", CHANGES[change]))
    assert {name for name in one if one[name] != other[name]} == {"last.ckpt"}


def test_places_and_times_do_not_count_and_metrics_do(tmp_path):
    one, other, third = (
        bits.digests(write(tmp_path / name, change))
        for name, change in zip("abc", (None, None, "metrics"), strict=True)
    )
    assert one == other
    assert one.keys() == {"last.ckpt", "metrics.csv", "results.json"}
    assert {name for name in one if one[name] != third[name]} == {"metrics.csv"}


def test_a_failure_says_where():
    assert bits.failure((2, 2), ("error: a", "error: a")) == ("refused alike", "error: a")
    assert bits.failure((2, 2), ("error: a", "error: b")) == ("failed in A and B", "error: a")
    assert bits.failure((0, 1), ("", "error: b")) == ("failed in B", "error: b")
    assert bits.failure((-9, 0), ("", "note")) == ("failed in A", "")


def test_ctrl_c_ends_everything(tmp_path):
    command = [sys.executable, "-m", "benchmarks.bits", "--base", str(ROOT), "--keep", str(tmp_path / "runs")]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            until = time.monotonic() + 300
            while not list(tmp_path.rglob("last.ckpt")):
                assert time.monotonic() < until, "waited in vain"
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)  # which also waits for all that hold its output
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert errors.strip() == "interrupted"


def test_unknown_names_and_places_are_one_line(tmp_path, capsys):
    for args, text in (
        (["--only", "nonsense"], "no case begins with 'nonsense'"),
        (["--base", str(tmp_path)], "not a checkout"),
    ):
        with pytest.raises(SystemExit) as stop:
            bits.main(args)
        assert stop.value.code == 2
        assert text in capsys.readouterr().err


def test_every_preset_and_every_option_has_a_case():
    assert set(PRESETS) == set(presets())
    cases = all_cases(20)
    assert len({case.name for case in cases}) == len(cases)
    used = {arg for case in cases for command in case.commands for arg in command}
    for group, owner in (("model", Classifier), ("data", FashionMNISTDataModule)):
        options = set(inspect.signature(owner).parameters) - {"predict_path"}  # which is of `predict`
        options -= {"image_size"} if group == "model" else {"in_channels"}  # they follow the data's, and the model's
        assert not {name for name in options if f"--{group}.{name}" not in used}
