"""`vgg-lightning doctor`: what it finds, and that each fault comes with a remedy."""

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "reliability"))
from small import launch, one_line

from vgg_lightning.cli import checks


def doctor(cwd, *options):
    launched = launch(["doctor", "--json", *options], cwd)
    return launched.code, {finding["what"]: finding for finding in json.loads(launched.out)["findings"]}


def test_a_run_works_here(tmp_path):
    launched = launch(["doctor", "--data_dir", str(tmp_path)], tmp_path)
    assert launched.code == 0
    assert launched.out.splitlines()[-1] == "a run works here"
    assert "no Fashion-MNIST in" in launched.out
    assert not list(tmp_path.iterdir())  # nothing is fetched


@pytest.mark.parametrize(("version", "says"), [("2.6.3", "malware"), ("2.1", "not tested"), ("2.9.0", "not tested")])
def test_versions_known_to_be_bad(version, says, tmp_path, monkeypatch):
    true = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == "lightning" else true(name))
    code, found = doctor(tmp_path)
    assert code == 1
    assert found["lightning"]["state"] == "broken"
    assert says in found["lightning"]["found"]
    assert 'pip install "lightning>=2.6.6' in found["lightning"]["remedy"]


def test_more_threads_than_the_container_has_cores(tmp_path, monkeypatch):
    limit = tmp_path / "cpu.max"
    limit.write_text("50000 100000\n")
    monkeypatch.setattr(checks, "CGROUP", limit)
    assert checks.allowed_cores() == 0.5
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    found = next(iter(checks.threads()))
    assert found.state == "slow"
    assert found.remedy == "export OMP_NUM_THREADS=1"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    code, found = doctor(tmp_path)
    assert code == 1
    assert "--trainer.default_root_dir" in found["runs"]["remedy"]


def test_a_full_disk_and_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "RUN_DISK", 1e18)
    monkeypatch.setattr("vgg_lightning.cli.checks.free_memory", lambda: 500_000_000)
    code, found = doctor(tmp_path)
    assert code == 1
    assert found["runs"]["state"] == "broken"
    assert found["memory"]["state"] == "slow"


def test_damaged_data_extras_and_variables(tmp_path, monkeypatch):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-labels-idx1-ubyte").write_bytes(b"half")
    monkeypatch.setitem(checks.EXTRAS, "serve", ("no_such_package",))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    code, found = doctor(tmp_path, "--data_dir", str(tmp_path))
    assert code == 0
    assert "train-labels-idx1-ubyte" in found["data"]["found"]
    assert found["extras"]["remedy"].endswith('[serve]"')
    assert found["safety"]["state"] == "note"


def test_bad_input_is_one_line(tmp_path):
    launched = launch(["doctor", "--jsn"], tmp_path)
    assert launched.code == 2
    assert "did you mean --json?" in one_line(launched)
