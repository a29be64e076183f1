"""The tables of benchmarks/, made by tiny runs of the real command line."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu, questions, sources
from benchmarks.machine import OtherWork, processor
from benchmarks.runner import RESULTS, Run
from benchmarks.table import Table
from vgg_lightning.presets import presets

ROOT = Path(__file__).parents[2]


def read(file):
    with file.open() as stream:
        return list(csv.DictReader(stream))


def versions_of_run(runs):
    return sorted(path.name for path in (runs / "lightning_logs").glob("*/version_*"))


@pytest.fixture
def tiny(tmp_path):
    """Return the arguments of a row of two batches, and where it goes."""
    file, runs = tmp_path / "sources.csv", tmp_path / "runs"
    return ["s2-lenet", "--epochs", "1", "--train_batches", "2", "--table", str(file), "--runs", str(runs)], file, runs


def test_a_row_says_what_was_measured_and_the_others_that_nothing_was(tiny):
    args, file, runs = tiny
    assert sources.main(args) == 0
    row, *others = read(file)
    assert row["preset"] == "s2-lenet"
    assert row["state"] == "1 of 10 epochs, 2 batches an epoch"
    assert 0 <= float(row["test_acc"]) <= 1
    assert 0 < float(row["train_acc"]) <= 1
    assert 1 < float(row["loss"]) < 5
    assert float(row["examples_per_second"]) > 0
    assert processor() in row["device"]
    assert "1 threads" in row["device"]
    assert "torch" in row["versions"]
    assert row["command"] == (
        "vgg-lightning fit --config sources/s2-lenet --seed_everything 0 "
        "--trainer.max_epochs 1 --trainer.limit_train_batches 2"
    )
    assert str(runs) not in file.read_text()
    assert {other["state"] for other in others} == {other["test_acc"] for other in others} == {"not measured"}
    assert len(others) == len(sources.REPORTED) - 1


def test_a_finished_row_is_not_run_again_and_a_longer_one_takes_its_place(tiny):
    args, file, runs = tiny
    assert sources.main(args) == 0
    before = file.read_text()
    assert sources.main(args) == 0
    assert file.read_text() == before
    assert versions_of_run(runs) == ["version_0"]
    assert sources.main([*args[:4], "3", *args[5:]]) == 0
    assert read(file)[0]["train_batches"] == "3"
    assert sources.main(args) == 0
    assert read(file)[0]["train_batches"] == "3"


def test_a_row_that_was_not_written_is_read_from_its_finished_run(tiny):
    args, file, runs = tiny
    assert sources.main(args) == 0
    (before,) = [row for row in read(file) if row["epochs"]]
    file.unlink()
    assert sources.main(args) == 0
    (after,) = [row for row in read(file) if row["epochs"]]
    assert versions_of_run(runs) == ["version_0"]
    assert after == before | {"quiet": "unknown"}


def test_an_interrupted_row_goes_on(tiny):
    args, file, runs = tiny
    args[args.index("--epochs") + 1] = "3"
    args[args.index("--train_batches") + 1] = "50"
    command = [sys.executable, "-m", "benchmarks.sources", *args]
    with subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: list(runs.rglob("last.ckpt")))
            os.kill(process.pid, signal.SIGTERM)
            _, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "goes on" in errors
    assert not list(runs.rglob("results.json"))
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert versions_of_run(runs) == ["version_0"]
    assert "epoch 1/3" not in done.stdout  # done before the interruption
    assert "epoch 3/3" in done.stdout
    assert read(file)[0]["epochs"] == "3"
    assert read(file)[0]["quiet"] == "unknown"


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_an_interrupted_row_without_a_checkpoint_starts_anew(tiny):
    args, file, runs = tiny
    run = sources.run_of("s2-lenet", 1, 0, 2)
    (runs / "lightning_logs" / run.folder_name / "version_0").mkdir(parents=True)
    assert sources.main(args) == 0
    assert read(file)[0]["epochs"] == "1"


def test_a_row_that_fails_leaves_the_others(tiny, capfd, monkeypatch):
    args, file, _ = tiny
    monkeypatch.setenv("VGG_LIGHTNING_DATA", "/proc/nowhere")
    assert sources.main(args) == 1
    assert "s2-lenet failed: " in capfd.readouterr().err
    assert read(file)[0]["state"] == "not measured"


def test_an_unknown_preset_is_one_line_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        sources.main(["s2-lent"])
    assert stop.value.code == 2
    assert "did you mean s2-lenet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["ordr"], "did you mean order"),
        (["sizes", "--rows", "33"], "row '33'"),
        (["sizes", "--seeds", "3"], "seed 3 is unknown: use 0, 1, 2"),
    ],
)
def test_an_unknown_question_row_or_seed_is_one_line(args, text, capsys):
    with pytest.raises(SystemExit) as stop:
        questions.main(args)
    assert stop.value.code == 2
    assert text in capsys.readouterr().err


def test_every_preset_of_the_sources_has_a_row():
    assert {f"sources/{name}" for name in sources.REPORTED} == {n for n in presets() if n.startswith("sources/")}


@pytest.fixture
def two_questions(tmp_path, monkeypatch):
    """Return arguments for two questions with tiny runs, of which the first has two seeds, and the results' folder."""
    short = ("--trainer.limit_train_batches", "2")
    found = [
        questions.Setting(question, name, short, seed, epochs, "sources/s2-lenet")
        for question, name, seed, epochs in (
            ("longer", "lenet", 0, 2),
            ("longer", "lenet", 1, 2),
            ("same", "net", 0, 2),
        )
    ]
    monkeypatch.setattr(questions, "settings", lambda: found)
    return ["--results", str(tmp_path), "--runs", str(tmp_path / "runs")], tmp_path


def test_a_question_is_scored_on_validation_images_alone(two_questions):
    args, folder = two_questions
    args = ["longer", "--rows", "lenet", "--seeds", "0", *args]
    assert questions.main(args) == 0
    row, *not_run = read(folder / "questions.csv")
    assert [other["state"] for other in not_run] == ["not measured"] * 2
    assert row["state"] == "measured"
    assert row["val_acc_by_epoch"].split()[-1] == row["val_acc"]
    assert len(row["val_acc_by_epoch"].split()) == int(row["epochs"]) == 2
    assert row["val_examples"] == "5000"
    assert row["precision"] == "32-true"
    (results,) = folder.rglob("results.json")
    assert '"test_acc": null' in results.read_text()
    assert questions.main(args) == 0
    assert versions_of_run(folder / "runs") == ["version_0"]


def test_questions_share_a_run_of_the_same_command(two_questions):
    args, folder = two_questions
    assert questions.main(["longer", "same", "--seeds", "0", *args]) == 0
    row, _, twin = read(folder / "questions.csv")
    assert twin == row | {"question": "same", "setting": "net"}
    assert len(list(folder.rglob("results.json"))) == 1


def test_a_row_of_another_command_is_measured_again(two_questions):
    args, folder = two_questions
    assert questions.main(["same", *args]) == 0
    table = questions.table(folder / "questions.csv")
    table.put([row | {"command": "of before"} for row in table.rows()])
    assert questions.main(["longer", "--seeds", "1", *args]) == 0
    assert [row["state"] for row in table.rows()] == ["not measured", "measured", "not measured"]


def test_compare_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(questions, "COMPARED", (("lenet", ""),))
    small = ["compare", "lenet", "--image_size", "28", "--batch_size", "2", "--batches", "1", "--format", "csv"]
    monkeypatch.setattr(questions, "compare_command", lambda network, ratio: small)
    assert questions.main(["compare", "--results", str(tmp_path)]) == 0
    (row,) = read(tmp_path / "compare.csv")
    assert (row["network"], row["ratio"], row["params"]) == ("lenet", "", "44878")
    assert float(row["training_examples_per_second"]) > 0
    before = (tmp_path / "compare.csv").stat().st_mtime_ns
    assert questions.main(["compare", "--results", str(tmp_path)]) == 0
    assert (tmp_path / "compare.csv").stat().st_mtime_ns == before


def test_the_settings_of_the_questions_differ():
    found = questions.settings()
    assert len({setting.run.folder_name for setting in found}) == len({setting.run.command for setting in found})
    keys = [(setting.question, setting.name, setting.seed) for setting in found]
    assert len(set(keys)) == len(keys)
    assert len([key for key in keys if key[0] == "order"]) >= 6
    assert {(setting.question, setting.epochs) for setting in found if setting.epochs != 5} <= {
        ("longer", epochs) for epochs in (1, 2, 10)
    }
    seeds = [setting.seed for setting in found if setting.name not in questions.LATE]
    assert seeds == sorted(seeds)


def test_another_option_makes_another_run():
    assert Run("a", ("--x", "1")).folder_name != Run("a", ("--x", "2")).folder_name


def test_the_table_is_whole_at_any_moment(tmp_path):
    table = Table(tmp_path / "t.csv", ("a", "b"), key=("a",))
    table.put([{"a": "1", "b": "x"}, {"a": "2", "b": "y, z"}])
    table.put([{"a": "1", "b": "new"}])
    table.put([{"a": "1", "b": "late"}, {"a": "3", "b": ""}], overwrite=False)
    assert read(tmp_path / "t.csv") == [{"a": "1", "b": "new"}, {"a": "2", "b": "y, z"}, {"a": "3", "b": ""}]
    table.file.chmod(0o444)
    with pytest.raises(KeyError):
        table.put([{"b": "no key"}])
    assert len(read(tmp_path / "t.csv")) == 3


def test_work_of_others_is_noticed():
    if not Path("/proc/stat").is_file():
        pytest.skip("the system does not say")
    watch = OtherWork()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    time.sleep(1)
    quiet = watch.quiet()  # they have not ended, so that their time is not this process's
    for process in busy:
        process.kill()
        process.wait()
    assert quiet == "no"


def test_stored_tables_have_the_columns_and_name_no_place():
    gpu_table = Table(RESULTS / "gpu.csv", gpu.COLUMNS, ("row", "seed"))
    for table in (sources.table(RESULTS / "sources.csv"), questions.table(RESULTS / "questions.csv"), gpu_table):
        assert table.file.read_text().splitlines()[0].split(",") == table.columns
        assert "/tmp" not in table.file.read_text()
