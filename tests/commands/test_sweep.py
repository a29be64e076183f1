"""`vgg-lightning sweep`, through its door: searches on small data, killed, stopped, shared and refused."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import optuna
import pytest
import yaml
from harness import environment, make_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vgg_lightning.__main__ import main
from vgg_lightning.presets import header
from vgg_lightning.sweep import study as studies

FIT = [
    *("--trainer.precision", "32-true"),  # that of the preset depends on the processor
    *("--model.network", "vgg11", "--model.ratio", "32", "--model.batch_norm", "true", "--model.head", "gap"),
    *("--model.momentum", "0.9", "--model.schedule", "cosine", "--model.warmup_epochs", "0"),
    *("--data.dataset", "idx", "--data.batch_size", "16", "--data.val_size", "48"),
    *("--data.mean", "0.286", "--data.std", "0.353", "--trainer.max_epochs", "5", "--trainer.accelerator", "cpu"),
]
SPACE = "model.lr: {low: 2e-2, high: 1e-1, log: true}\nmodel.nesterov: [true, false]\n"


@pytest.fixture(scope="session")
def idx(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "idx")


@pytest.fixture
def command(idx, tmp_path, monkeypatch):
    """Return the arguments of a search in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def make(*args, space=SPACE, name="space"):
        (tmp_path / f"{name}.yaml").write_text(space)
        return ["sweep", f"{name}.yaml", *FIT, "--data.data_dir", str(idx), *args]

    return make


def table(folder, name="space"):
    text = (folder / "lightning_logs" / name / "trials.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


def essence(rows):
    """Return what a stopped and an unbroken search have in common."""
    return sorted((row["state"], row["val_acc"], row["epochs"], row["model.lr"], row["model.nesterov"]) for row in rows)


def hparams(folder):
    """Return the hyperparameters, and the last value of each scalar, of a run that TensorBoard reads."""
    events = EventAccumulator(str(folder)).Reload()
    data = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = HParamsPluginData.FromString(data).session_start_info.hparams
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}
    return values, {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def study_of(folder, name="space"):
    studies.quiet()
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/lightning_logs/{name}/study.db")


def test_a_search_leaves_a_table_hparams_and_a_preset_that_runs(command, tmp_path, idx, capsys):
    args = command("--trials", "2")
    assert main(args) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    rows = table(tmp_path)
    assert [row["state"] for row in rows] == ["complete"] * 2
    assert float(rows[0]["val_acc"]) >= float(rows[1]["val_acc"])
    assert out.count("\ntrial ") == 3  # a line each, and the head of the table
    for row in rows:
        results = json.loads((tmp_path / row["run_folder"] / "results.json").read_text())
        assert results["test_acc"] is None  # the test images are left alone
        assert results["val_acc"] == float(row["val_acc"])
        options, scalars = hparams(tmp_path / f"lightning_logs/space/hparams/trial_{row['trial']}")
        assert options["model.lr"] == pytest.approx(float(row["model.lr"]))
        assert options["model.nesterov"] == (row["model.nesterov"] == "True")
        assert scalars["best_val_acc"] == [pytest.approx(float(row["val_acc"]))]
        assert max(scalars["val_acc"]) == pytest.approx(float(row["val_acc"]))
        assert len(scalars["val_acc"]) == int(row["epochs"]) == 5
    preset = tmp_path / "lightning_logs/space/best.yaml"
    assert set(header(preset)) == {"about", "command", "cost", "reaches"}
    assert yaml.safe_load(preset.read_text())["model"]["lr"] == float(rows[0]["model.lr"])
    assert f"fit --config {preset.relative_to(tmp_path)} --data.data_dir {idx}\n" in out
    assert main(["fit", "--config", str(preset), "--data.data_dir", str(idx), "--trainer.accelerator", "cpu"]) == 0
    again = json.loads((tmp_path / "lightning_logs/best/version_0/results.json").read_text())
    assert again["val_acc"] == float(rows[0]["val_acc"])  # the same seed, to the last bit
    capsys.readouterr()
    assert main(args) == 0  # there is nothing left to do
    assert len(table(tmp_path)) == 2
    assert main([*args, "--model.momentum", "0.8"]) == 2
    assert "other options" in capsys.readouterr().err
    assert main(command("--trials", "2", space=SPACE.replace("2e-2", "1e-2"))) == 2
    assert "another space" in capsys.readouterr().err


def test_the_precision_of_a_search_is_that_of_its_trials_and_of_its_preset(command, tmp_path, capsys):
    args = command("--trials", "1", "--trainer.max_epochs", "1")
    assert main([*args, "--trainer.precision", "bf16-mixed"]) == 0, capsys.readouterr().err
    logs = tmp_path / "lightning_logs/space"
    assert json.loads((logs / "version_0/results.json").read_text())["precision"] == "bf16-mixed"
    for file in (logs / "version_0/config.yaml", logs / "best.yaml"):
        assert yaml.safe_load(file.read_text())["trainer"]["precision"] == "bf16-mixed"
    assert main([*args, "--trainer.precision", "32-true"]) == 2
    assert "was begun with other options" in capsys.readouterr().err


def test_a_hopeless_trial_is_pruned_and_a_broken_one_fails(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(studies, "UNPRUNED", 2)
    assert main(command("--trials", "2")) == 0
    for lr in (1e-9, 1e30):  # outside of the space, by Optuna's own means
        study_of(tmp_path).enqueue_trial({"model.lr": lr, "model.nesterov": True})
    assert main(command("--trials", "5")) == 0
    rows = {row["trial"]: row for row in table(tmp_path)}
    assert [rows[number]["state"] for number in "01234"] == ["complete"] * 2 + ["pruned", "failed", "complete"]
    assert 1 < int(rows["2"]["epochs"]) < 5
    assert "NaN or Inf" in rows["3"]["note"]
    out = capsys.readouterr().out
    assert "trial 2: pruned" in out
    assert "trial 3: failed" in out
    assert len(list((tmp_path / "lightning_logs/space/hparams").iterdir())) >= 4


def launch(folder, *args):
    """Start the command as users do."""
    return subprocess.Popen(
        [sys.executable, "-m", "vgg_lightning", *args],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for(condition, process, seconds=600):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_stopped_and_killed_it_goes_on_as_if_it_had_not_been(command, tmp_path, capsys):
    args = command("--trials", "2", "--trainer.max_epochs", "10")
    (tmp_path / "unbroken").mkdir()
    assert main([*args, "--trainer.default_root_dir", "unbroken"]) == 0, capsys.readouterr().err

    first = launch(tmp_path, *args)
    wait_for(lambda: list(tmp_path.glob("lightning_logs/space/version_0/checkpoints/last.ckpt")), first)
    first.send_signal(signal.SIGINT)
    text, _ = first.communicate(timeout=300)
    assert first.returncode == 130, text
    assert "vgg-lightning sweep space.yaml" in text.splitlines()[-1]
    assert not list(tmp_path.glob("lightning_logs/space/version_0/results.json"))

    second = launch(tmp_path, *args)
    wait_for(lambda: list(tmp_path.glob("lightning_logs/space/version_1/checkpoints/last.ckpt")), second)
    os.kill(second.pid, signal.SIGKILL)
    second.communicate()

    third = launch(tmp_path, *args)
    text, _ = third.communicate(timeout=600)
    assert third.returncode == 0, text
    assert "leaked" not in text  # semaphores, says Python of what a process leaves behind
    assert essence(table(tmp_path)) == essence(table(tmp_path / "unbroken"))
    runs = sorted(path.name for path in tmp_path.glob("lightning_logs/space/version_*"))
    assert runs == ["version_0", "version_1"]  # what was cut off went on in its own folder
    states = [trial.state.name for trial in study_of(tmp_path).get_trials()]
    assert states.count("FAIL") == 2
    assert "RUNNING" not in states


def test_processes_share_a_search(command, tmp_path):
    args = command("--trials", "3", "--storage", f"sqlite:///{tmp_path}/shared.db")
    processes = [launch(tmp_path, *args) for _ in range(2)]
    texts = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    rows = table(tmp_path)
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert len({row["run_folder"] for row in rows}) == len({row["model.lr"] for row in rows}) == 3
    assert all(": complete" in text for text in texts)  # both have worked
    assert all("the best       trial" in text for text in texts)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ("model.lrr: [0.1]", "no option 'model.lrr' (did you mean model.lr?)"),
        ("model.lr: {low: 1, high: 0.1}", "low 1 is above high 0.1"),
        ("model.lr: {low: 0, high: 0.1, log: true}", "with log it must be positive"),
        ("model.lr: {low: 0.1, hihg: 1}", "'hihg' is unknown (did you mean high?)"),
        ("model.lr: {low: 0.1}", "the range has no high"),
        ("model.lr: {low: .nan, high: 1}", "low takes a finite number"),
        ("model.lr: {low: a, high: 1}", "low takes a finite number, got 'a'"),
        ("model.lr: {low: 0.1, high: 1, log: true, step: 0.1}", "log and step do not go together"),
        ("model.lr: {low: -1, high: 1}", "model.lr -1.0 of the space cannot be used"),
        ("model.lr: 0.1", "0.1 is not a range"),
        ("model.lr: []", "the list is empty"),
        ("model.lr: [0.1, 0.1]", "a value stands twice"),
        ("model.lr: [fast]", "--model.lr takes a number"),
        ("model.ratio: {low: 1, high: 2.5}", "it takes whole numbers"),
        ("model.network: {low: 1, high: 2}", "it takes no number"),
        ("model.network: [vgg11, vgg12]", "'vgg12' is unknown"),
        ("model.image_size: [28, 32]", "did you mean data.image_size?"),
        ("name: [a, b]", "no option 'name'"),
        ("trainer.max_epochs: [0]", "trainer.max_epochs 0 of the space cannot be used"),
        ("- model.lr", "is not a search space"),
        ("", "is not a search space"),
        ("a: &a [x, x]\nb: *a", "without * aliases"),
        ("model.lr: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("[" * 50_000, "deep nesting"),
        ("# " + "x" * 200_000, "too large"),
        ("\x00", "is not YAML"),
    ],
)
def test_bad_spaces_get_one_line(space, says, command, tmp_path, capsys):
    assert main(command(space=space)) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--trials", "0"], "--trials takes a whole number of 1 or more"),
        (["--trials"], "--trials has no value"),
        (["--trails", "3"], "did you mean --trials?"),
        (["--prune", "maybe"], "--prune takes true or false"),
        (["--name", "a/b"], "is not a valid folder name"),
        (["--storage", "nonsense"], "--storage nonsense cannot be opened"),
        (["--test", "true"], "never looks at the test images"),
        (["--ckpt_path", "x"], "--ckpt_path is set by sweep itself"),
        (["--trainer.devices", "2"], "a trial runs on one device"),
        (["--trainer.fast_dev_run", "true"], "writes no run folder"),
        (["--data.val_size", "0"], "compares val_acc"),
        (["--model.lrr", "1"], "--model.lrr is unknown"),
    ],
)
def test_bad_options_get_one_line(args, says, command, capsys):
    assert main(command(*args)) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_the_space_comes_first_and_must_be_there(capsys):
    assert main(["sweep", "--trials", "3"]) == 2
    assert main(["sweep", "nowhere.yaml"]) == 2
    assert "the space nowhere.yaml cannot be read" in capsys.readouterr().err
