"""Runs that an older commit was stopped in (see runs_of_before/make.py) go on today as they would have then."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from vgg_lightning.__main__ import main

STORED = Path(__file__).parent / "runs_of_before"
SPEC = importlib.util.spec_from_file_location("runs_of_before", STORED / "make.py")
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)

STEPS = {"averaged": 117, "lookahead": 26}  # at which the stored runs were stopped


class Resumed:
    """A stored run that this code has resumed, and what it was before."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder / "lightning_logs" / name / "version_0"
        self.stored = torch.load(STORED / name / "run" / "checkpoints" / "last.ckpt", weights_only=True)
        self.unbroken = torch.load(STORED / name / "unbroken.pt", weights_only=True)
        self.facts = json.loads((STORED / name / "unbroken.json").read_text())
        assert make.make_data(folder / "data") == make.DATA_SHA256
        shutil.copytree(STORED / name / "run", self.folder)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self.same_arithmetic = make.machine() == {key: self.facts[key] for key in ("torch", "probe")}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert main(["fit", "--ckpt_path", str(self.folder)]) == 0
        torch.set_num_threads(threads)
        self.last = torch.load(self.folder / "checkpoints" / "last.ckpt", weights_only=True)
        self.results = json.loads((self.folder / "results.json").read_text())

    def rows(self):
        return list(csv.DictReader((self.folder / "metrics.csv").read_text().splitlines()))


@pytest.fixture(scope="module", params=list(make.RUNS))
def resumed(request, tmp_path_factory):
    return Resumed(request.param, tmp_path_factory.mktemp(request.param))


def test_it_goes_on_at_the_step_where_it_was_stopped_and_ends_where_it_would_have(resumed):
    stored, facts = resumed.stored, resumed.facts
    assert stored["global_step"] == STEPS[resumed.name]
    assert stored["global_step"] % (facts["results"]["steps"] // facts["results"]["epochs"])  # within an epoch
    assert resumed.last["global_step"] == resumed.results["steps"] == facts["results"]["steps"]
    assert resumed.results["epochs"] == facts["results"]["epochs"]
    steps = [int(row["step"]) for row in resumed.rows() if row["train_loss_step"]]
    assert steps == sorted(set(steps))
    # The runs of before have the learning rate of every batch, also of several that make a step.
    others = [row for row in resumed.rows() if not any(row[name] for name in row if name.startswith("lr-"))]
    batches = resumed.last["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]
    assert len(others) + batches + len(["header"]) == facts["rows"]


def test_the_final_weights_are_those_of_the_run_that_nothing_stopped(resumed):
    found = make.tensors(resumed.last)
    assert found.keys() == resumed.unbroken.keys()
    # Other instruction sets (ONEDNN_MAX_CPU_ISA=SSE41, ATEN_CPU_CAPABILITY=default) moved a value by up to 3e-6.
    for name, value in resumed.unbroken.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=3e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    for name, value in resumed.facts["results"].items():
        assert resumed.results[name] == pytest.approx(value, rel=1e-3), name


def test_they_are_so_bit_for_bit_where_the_machine_computes_alike(resumed):
    assert make.digest(resumed.unbroken) == resumed.facts["sha256"]
    if not resumed.same_arithmetic:
        pytest.skip("this machine or this torch rounds otherwise than the one that made the runs")
    assert make.digest(make.tensors(resumed.last)) == resumed.facts["sha256"]


def test_the_callbacks_took_over_what_they_had_counted(resumed):
    before, after = (checkpoint["callbacks"] for checkpoint in (resumed.stored, resumed.last))
    assert before.keys() == after.keys()
    counts = make.counts(resumed.last)
    expected = resumed.facts["counts"]
    assert counts.pop("metrics") == pytest.approx(expected.pop("metrics"), rel=1e-3)
    assert counts == expected
    assert 0 < before["RunReport"]["examples"] < after["RunReport"]["examples"]
    assert after["RunReport"]["seconds"] > before["RunReport"]["seconds"]
    assert after["RunReport"]["train_seconds"] > before["RunReport"]["train_seconds"]
    assert resumed.results["seconds"] > round(before["RunReport"]["seconds"], 1)


@pytest.mark.parametrize("resumed", ["averaged"], indirect=True)
def test_an_average_that_had_begun_goes_on(resumed):
    state = resumed.last["averaging_state"]
    assert int(state["n_averaged"]) == resumed.last["global_step"] > resumed.stored["global_step"]
    assert resumed.last["callbacks"]["AveragedWeights"]["latest_update_step"] == resumed.last["global_step"]


@pytest.mark.parametrize("resumed", ["averaged"], indirect=True)
def test_early_stopping_goes_on_counting_and_keeps_the_best_epoch_of_before(resumed):
    (key,) = (key for key in resumed.stored["callbacks"] if key.startswith("EarlyStopping"))
    before, after = resumed.stored["callbacks"][key], resumed.last["callbacks"][key]
    assert 0 < before["wait_count"] < before["patience"] == after["wait_count"]  # it stopped, and for want of patience
    assert after["best_score"] == before["best_score"]
    best = torch.load(resumed.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] < resumed.stored["global_step"]
    assert resumed.results["checkpoint"] == "checkpoints/best.ckpt"


def test_stored_files_are_small_and_name_no_place():
    files = [file for file in STORED.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    assert {"last.ckpt", "config.yaml", "metrics.csv", "unbroken.pt"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) < 600_000
    places = (b"/home/", b"/tmp/", b"/root/", b"/work/", b"/Users/")
    assert not [file for file in files if any(place in file.read_bytes() for place in places)]
