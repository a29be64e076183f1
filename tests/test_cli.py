"""The command line from end to end on a small network: fit, then everything that reads the run."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vgg_lightning import load_classifier
from vgg_lightning.__main__ import main

FIT = [
    "fit",
    *("--model.ratio", "16", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "20"),
    *("--trainer.log_every_n_steps", "5", "--data.val_size", "500"),
]
FEW_TESTED = ["--trainer.limit_test_batches", "2"]


@pytest.fixture(scope="module")
def run(fashion_mnist_dir, tmp_path_factory):
    """Return the run folder of one small fit, made by the real command."""
    folder = tmp_path_factory.mktemp("fit")
    result = subprocess.run(
        [sys.executable, "-m", "vgg_lightning", *FIT], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    (folder / "stdout").write_text(result.stdout)
    return folder / "lightning_logs/quick/version_0"


def test_the_run_folder_is_complete(run):
    names = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}
    assert {"config.yaml", "metrics.csv", "results.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)


def test_the_end_of_fit_says_accuracy_time_place_and_next_steps(run):
    text = (run.parents[2] / "stdout").read_text()
    accuracy = json.loads((run / "results.json").read_text())["test_acc"]
    for part in (
        f"{100 * accuracy:.2f} %",
        "time ",
        "lightning_logs/quick/version_0",
        "tensorboard --logdir",
        "predict",
    ):
        assert part in text


def test_results_hold_what_a_table_needs(run):
    results = json.loads((run / "results.json").read_text())
    assert results["epochs"] == 2
    assert results["steps"] == 40
    assert 0 < results["val_acc"] <= 1
    assert results["checkpoint"] == "checkpoints/best.ckpt"
    assert results["versions"]["torch"] == torch.__version__
    assert set(map(len, results["data_checksums"].values())) == {64}


def test_tensorboard_has_steps_epochs_rate_graph_and_hyperparameters(run):
    events = EventAccumulator(str(run)).Reload()
    tags = {
        name: set(EventAccumulator(str(run / name)).Reload().Tags()["scalars"]) for name in ("train", "val", "test")
    }
    curves = {"curves/loss", "curves/accuracy"}
    assert tags["train"] == {*curves, "every_step/loss", "every_step/learning_rate"}
    assert tags["val"] == tags["test"] == curves
    assert "hp_metric" not in events.Tags()["scalars"]
    assert events.Tags()["graph"]
    assert "_hparams_/session_start_info" in events.summary_metadata
    validated = EventAccumulator(str(run / "val")).Reload().Scalars("curves/accuracy")
    assert [event.step for event in validated] == [19, 39]


def test_metrics_csv_has_the_same_numbers(run):
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows if row["val_acc"]] == ["19", "39"]


def test_config_yaml_can_be_run_again(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(run / "config.yaml"), "--trainer.fast_dev_run", "true"]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["ratio"] == 16


def test_test_gives_the_accuracy_that_fit_printed(run, capsys):
    assert main(["test", "--ckpt_path", str(run)]) == 0
    accuracy = json.loads((run / "results.json").read_text())["test_acc"]
    text = capsys.readouterr().out
    assert f"test accuracy  {100 * accuracy:.2f} %" in text
    assert re.search(r"^test loss +\d\.\d{4}$", text, re.MULTILINE)
    assert "checkpoints/best.ckpt" in text


def test_validate_gives_the_best_validation_accuracy(run, capsys):
    assert main(["validate", "--ckpt_path", str(run / "checkpoints/best.ckpt")]) == 0
    accuracy = json.loads((run / "results.json").read_text())["val_acc"]
    assert f"{100 * accuracy:.2f} %" in capsys.readouterr().out


def test_predict_writes_a_row_a_picture(run, capsys):
    assert main(["predict", "--ckpt_path", str(run)]) == 0
    with (run / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    right = sum(row["label"] == row["predicted"] for row in rows)
    accuracy = json.loads((run / "results.json").read_text())["test_acc"]
    assert len(rows) == 10_000
    assert right == round(10_000 * accuracy)


def test_the_checkpoint_gives_the_same_bits_in_a_fresh_process(run, tmp_path):
    script = (
        "import sys, torch; from vgg_lightning import load_classifier;"
        "torch.set_num_threads(1); model = load_classifier(sys.argv[1]);"
        "x = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(0));"
        "torch.save(model(x).detach(), sys.argv[2])"
    )
    logits = []
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", script, run, tmp_path / name], check=True)
        logits.append(torch.load(tmp_path / name, weights_only=True))
    assert torch.equal(*logits)
    checkpoint = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    here = load_classifier(run).state_dict()
    assert all(torch.equal(here[key], value) for key, value in checkpoint["state_dict"].items())


def test_weights_of_a_run_can_be_fine_tuned(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--model.weights", str(run), "--model.lr", "0.001", "--name", "tuned"]
    assert main([*FIT, *FEW_TESTED, *options]) == 0
    assert "start anew" not in capsys.readouterr().out
    assert (tmp_path / "lightning_logs/tuned/version_0/results.json").is_file()


def test_early_stopping_stops(tmp_path, monkeypatch, fashion_mnist_dir):
    monkeypatch.chdir(tmp_path)
    options = ["--model.lr", "1e-12", "--early_stopping", "1"]
    longer = list(FIT)
    longer[FIT.index("--trainer.max_epochs") + 1] = "9"
    assert main([*longer, *FEW_TESTED, *options]) == 0
    assert json.loads(Path("lightning_logs/quick/version_0/results.json").read_text())["epochs"] < 9


def test_print_config(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["network"] == "vgg11"


def test_of_an_option_given_twice_the_last_counts(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model.lr", "0.1", "--config", "quick", "--model.lr", "0.2", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["model"]["lr"] == 0.2


def test_a_network_of_another_family_takes_its_own_preset(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model.network", "lenet", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["image_size"] == 28


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["fit", "--model.network", "vgg12"], ["vgg12", "vgg11"]),
        (["fit", "--config", "quik"], ["quik", "quick"]),
        (["fit", "--model.learning_rat", "1"], ["--model.learning_rat"]),
        (["fit", "--model.momentun", "0.5"], ["did you mean --model.momentum?"]),
        (["fit", "--data.image_size", "28"], ["image_size 28", "32"]),
        (["fit", "--model.ratio", "5"], ["ratio 5"]),
        (["fit", "--model.lr", "-1"], ["--model.lr"]),
        (["fit", "--model.lr", "nan"], ["--model.lr"]),
        (["fit", "--data.batch_size", "0"], ["--data.batch_size"]),
        (["fit", "--model.num_classes", "5"], ["10", "5", "--model.num_classes"]),
        (["fit", "--data.dataset", "mnist5"], ["mnist5"]),
        (["fit", "--trainer.default_root_dir", "/proc/nowhere"], ["/proc/nowhere", "--trainer.default_root_dir"]),
        (["fit", "--ckpt_path", "nope.ckpt"], ["nope.ckpt"]),
        (["test"], ["--ckpt_path"]),
        (["test", "--ckpt_path", "nope.ckpt"], ["nope.ckpt"]),
        (["predict", "--ckpt_path", "/"], ["checkpoints/best.ckpt"]),
    ],
)
def test_bad_input_is_one_line_with_the_remedy_and_writes_nothing(args, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert all(part in captured.err for part in parts), captured.err
    assert list(tmp_path.iterdir()) == []


def test_foreign_checkpoint(tmp_path, capsys):
    torch.save({"state_dict": {}, "hyper_parameters": {"learning_rate": 1}}, tmp_path / "other.ckpt")
    assert main(["test", "--ckpt_path", str(tmp_path / "other.ckpt")]) == 2
    assert "learning_rate" in capsys.readouterr().err
    (tmp_path / "page.ckpt").write_text("<html>not found</html>")
    assert main(["test", "--ckpt_path", str(tmp_path / "page.ckpt")]) == 2
    assert "not a checkpoint" in capsys.readouterr().err


def test_structure_cannot_be_changed_but_the_batch_can(run, capsys):
    assert main(["test", "--ckpt_path", str(run), "--model.ratio", "8"]) == 2
    error = capsys.readouterr().err
    assert "8" in error
    assert "16" in error
    assert main(["test", "--ckpt_path", str(run), "--data.batch_size", "1000"]) == 0


def test_a_folder_of_another_run_is_not_touched(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "copy").rglob("*")}
    load_classifier(tmp_path / "copy")
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "copy").rglob("*")}


def test_debug_shows_a_traceback(capsys):
    assert main(["fit", "--debug", "--model.lr", "-1"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("written", "kind"), [("1", int), ("0.5", float)])
def test_a_whole_number_is_batches_whatever_typing_has_in_its_cache(written, kind):
    script = (
        "import typing; typing.Optional[typing.Union[float, int]]\n"  # as some libraries ask for, before Lightning does
        "from vgg_lightning.__main__ import main\n"
        f"main(['fit', '--trainer.limit_train_batches', '{written}', '--trainer.val_check_interval', '{written}',"
        " '--print_config'])"
    )
    text = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    trainer = yaml.safe_load(text)["trainer"]
    assert type(trainer["limit_train_batches"]) is kind
    assert type(trainer["val_check_interval"]) is kind
