"""`make gpu`, on the CPU and with tiny work."""

import csv
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu, in_process
from benchmarks.runner import RESULTS

TINY = (
    *("--data.batch_size", "8", "--data.image_size", "32", "--model.compile", "aot_eager", "--trainer.max_epochs", "1"),
    *("--trainer.limit_train_batches", "26", "--trainer.limit_test_batches", "2"),
)


def read(file):
    with file.open() as stream:
        return list(csv.DictReader(stream))


def run(folder, *args, seconds=3000, more=TINY):
    where = ("--accelerator", "cpu", "--results", str(folder), "--seconds", str(seconds))
    return gpu.main([*where, *args, "--more", *more])


@pytest.fixture
def rows(tmp_path):
    """Return a function that reads a table as a dict from name and seed to row."""

    def rows_of(name, key):
        return {(row[key], row["seed"]): row for row in read(tmp_path / name)}

    return rows_of


def test_a_recipe_of_the_sources_has_a_row_and_is_not_run_again(tmp_path, rows, capsys):
    assert run(tmp_path, "--only", "source-s3") == 0
    row = rows("sources.csv", "preset")["s3", "0"]
    assert (row["state"], row["precision"], row["reported_test_acc"]) == ("whole recipe", "bf16-mixed", "0.83")
    assert "--trainer.precision bf16-mixed" in row["command"]
    assert 0 <= float(row["test_acc"]) <= 1
    assert "source-s3: test_acc" in capsys.readouterr().out
    assert run(tmp_path, "--plan") == 0
    plan = capsys.readouterr().out
    assert "source-s3 " not in plan
    assert plan.index("source-s2-vgg ") < plan.index("time-92.1-seed0 ") < plan.index("small-seed0 ")


def test_a_race_has_a_row_for_each_seed_with_its_seconds_of_training(tmp_path, rows):
    assert run(tmp_path, "--only", "time-92.1-seed1") == 0
    row = rows("gpu.csv", "row")["time-92.1", "1"]
    assert float(row["seconds"]) > 0 < float(row["examples_per_second"])
    assert 0 <= float(row["test_acc_tta"]) <= 1
    assert rows("gpu.csv", "row")["time-92.1", "0"]["test_acc"] == "not measured"
    place = gpu.Place(tmp_path)
    assert gpu._has_case("time-92.1", 1, place)
    assert not gpu._has_case("time-92.1", 0, place)


def test_a_rate_has_its_share_of_the_matrix_product(tmp_path, rows):
    assert run(tmp_path, "--only", "r4-96-graphs") == 0
    row = rows("gpu.csv", "row")["r4-96-graphs", "0"]
    assert float(row["share"]) > 0
    assert row["test_acc"] == ""  # it is ended before there is one
    assert row["goal"] == ""


def test_the_profile_has_the_kernels_with_the_most_expensive_first(tmp_path):
    assert run(tmp_path, "--only", "profile") == 0
    times = [float(row["milliseconds_per_step"]) for row in read(tmp_path / gpu.PROFILE)]
    assert len(times) > 5
    assert times == sorted(times, reverse=True)


def test_a_record_keeps_its_metrics_and_says_how_it_was_run(tmp_path, rows):
    assert run(tmp_path, "--only", "small-seed1") == 0
    row = rows("record.csv", "preset")["small", "1"]
    assert (row["state"], row["epochs"], row["parameters"]) == ("measured", "1", "288170")
    assert read(tmp_path / "record" / "small-1" / "metrics.csv")
    assert str(tmp_path) not in (tmp_path / "record" / "small-1" / "config.yaml").read_text()


def test_the_program_stops_in_time_and_leaves_the_row_unmeasured(tmp_path, rows, capsys, monkeypatch):
    monkeypatch.setitem(gpu.SOURCES, "s3", -1e9)  # so that it is begun
    assert run(tmp_path, "--only", "source-s3", seconds=0.001) == 0
    assert "the time is over" in capsys.readouterr().out
    assert not (tmp_path / "sources.csv").exists()


def test_a_task_that_does_not_fit_into_the_time_is_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(gpu.CASES, "r4-96", replace(gpu.CASES["r4-96"], expected=1e9))
    assert run(tmp_path, "--only", "r4-96", "profile") == 0
    out = capsys.readouterr().out
    assert out.count("not in this call") == 1
    assert "r4-96:" not in out
    assert "profile-r1-224:" in out


def test_a_task_that_fails_leaves_the_others(tmp_path, capsys):
    assert run(tmp_path, "--only", "source-s3", more=("--model.lr", "-1")) == 1
    assert "source-s3: failed: UserError: lr -1.0 is out of range" in capsys.readouterr().out


def test_no_gpu_is_one_line_and_the_plan(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu.main(["--results", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "time-94-seed4" in out
    assert err.count("\n") == 1
    assert "no GPU" in err
    rows = read(tmp_path / "gpu.csv")
    assert {row["row"] for row in rows} == set(gpu.CASES)
    assert {row["examples_per_second"] for row in rows} == {"not measured"}


def test_too_little_time_for_any_task_is_one_line(tmp_path, capsys):
    assert run(tmp_path, seconds=3) == 2
    assert "3 s are too short for any task: source-s3 takes 15 s" in capsys.readouterr().err


def test_an_unknown_task_is_one_line_with_those_that_there_are(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "--only", "sauce")
    assert stop.value.code == 2
    assert "no task begins with 'sauce'" in capsys.readouterr().err


def test_what_is_missing_here_is_listed(capsys, monkeypatch):
    assert gpu.main(["--needs"]) == 0
    assert "torch" not in capsys.readouterr().out.split()
    monkeypatch.setitem(gpu.NEEDED, "no_such_module", "no-such-package")
    assert gpu.main(["--needs"]) == 0
    assert "no-such-package" in capsys.readouterr().out


def test_the_stored_rows_are_those_of_the_program():
    place = gpu.Place(RESULTS)
    measured = [task.name for task in gpu.tasks(3) if task.done(place)]
    assert {f"source-{name}" for name in gpu.SOURCES} < set(measured)
    assert {"time-92.1-seed2", "time-94-seed2", "profile-r1-224", "r1-224", "small-seed1"} < set(measured)


def test_the_clock_counts_steps_that_compile_as_the_others():
    clock = in_process.StepClock(warmup=2, steps=3)
    for _ in range(4):
        clock.step()
    with pytest.raises(in_process.Enough):
        clock.step()
    assert clock.done == 5
    assert clock.training_seconds == pytest.approx(5 * clock.per_step)
