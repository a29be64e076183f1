"""Best, epoch, step and precision mean the same in options, on the screen, in results.json and in checkpoints."""

import inspect
import json
import os
import re
import subprocess
import sys
import types

import lightning as L
import pytest
import small
import torch
import yaml

from vgg_lightning.cli.lightning import VGGLightningCLI
from vgg_lightning.prepare import prepare
from vgg_lightning.prepare import test as evaluate
from vgg_lightning.run import bfloat16, precision
from vgg_lightning.run.progress import EpochLines
from vgg_lightning.training.run_options import TRAINER

DATA = ("--data.data_dir", str(small.data_folder()))


def results(run):
    return json.loads((run / "results.json").read_text())


def run_of(cwd, name):
    return cwd / f"lightning_logs/{name}/version_0"


def learning_rates(options, name):
    """Return the learning rate of every step that a run of these options takes."""
    parsed = VGGLightningCLI("fit", [*small.fit_line("--name", name, "--show", "none", *options)[1:]]).arguments()
    run, rates = prepare(**{**parsed, "record": False}), []

    class Notes(L.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            rates.append(optimizer.param_groups[0]["lr"])

    run.trainer.callbacks.append(Notes())
    run.trainer.fit(run.model, run.data)
    return rates


RISES = ("--model.schedule", "linear", "--model.warmup_epochs", "1.5", "--trainer.limit_train_batches", "4")


def test_steps_without_epochs_have_the_schedule_of_as_many_epochs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    epochs = learning_rates((*RISES, "--trainer.max_epochs", "4"), "epochs")
    steps = learning_rates((*RISES, "--trainer.max_epochs", "-1", "--trainer.max_steps", "16"), "steps")
    assert len(epochs) == 16
    assert epochs == steps
    assert max(epochs) == epochs[6]  # after 1.5 epochs of 4 steps
    fewer = learning_rates((*RISES, "--trainer.max_epochs", "4", "--trainer.max_steps", "10"), "fewer")
    assert len(fewer) == 10
    assert max(fewer) == fewer[6]  # a warm-up is counted in epochs, however many of them follow


def test_a_run_of_steps_says_how_many_epochs_there_are_and_what_is_left(tmp_path):
    size = ("--trainer.limit_train_batches", "4", "--trainer.max_epochs", "-1", "--trainer.max_steps", "10")
    done = small.fit(tmp_path, *size, "--name", "s", "--show", "none", "--test", "false")
    assert done.code == 0, done.err
    assert "10 steps on cpu" in done.out
    lines = re.findall(r"^epoch (\S+?)[:,]", done.out, re.MULTILINE)
    assert lines == ["1/3", "2/3", "3/3"]
    assert [line.count("val_acc") for line in done.out.splitlines() if line.startswith("epoch ")] == [1, 1, 0]
    assert not re.search(r"-\d|/-1", done.out)
    assert results(run_of(tmp_path, "s"))["epochs"] == 2


def test_one_epoch_is_no_plural_and_a_short_time_is_no_zero(tmp_path):
    done = small.fit(tmp_path, "--show", "none")
    assert "1 epoch on cpu" in done.out
    assert "0.0 min" not in done.out
    assert re.search(r"^time +\d+ s, peak memory", done.out, re.MULTILINE)


def test_a_huge_loss_is_short(capsys):
    metrics = {"val_loss": torch.tensor(32685255173341184.0), "train_loss": torch.tensor(1.23456)}
    line = EpochLines(("train_loss", "val_loss"))
    line._done, line._validated = 1, True
    progress = types.SimpleNamespace(current=types.SimpleNamespace(processed=1, started=1))
    batches = types.SimpleNamespace(is_last_batch=True)
    loop = types.SimpleNamespace(epoch_progress=progress, epoch_loop=types.SimpleNamespace(batch_progress=batches))
    line._print(
        types.SimpleNamespace(
            is_global_zero=True, num_training_batches=1, callback_metrics=metrics, max_epochs=2, max_steps=-1,
            current_epoch=1, fit_loop=loop,
        )
    )  # fmt: skip
    assert "train_loss 1.2346, val_loss 3.269e+16, " in capsys.readouterr().out


def test_no_validation_before_the_end_is_said_and_nothing_is_claimed(tmp_path):
    done = small.fit(
        tmp_path, "--trainer.limit_train_batches", "20", "--trainer.max_steps", "3", "--early_stopping", "2"
    )
    assert done.code == 0, done.err
    run = tmp_path / "lightning_logs/quick/version_0"
    assert "ended by --trainer.max_steps 3, in epoch 1 after 3 of 20 batches" in done.out
    assert "no validation was run, so there is no best.ckpt: last.ckpt counts" in done.out
    assert "could not find the monitored key" not in done.err
    found = results(run)
    assert (found["epochs"], found["steps"], found["checkpoint"]) == (0, 3, "checkpoints/last.ckpt")
    assert found["val_acc"] is None
    assert not (run / "checkpoints/best.ckpt").exists()


def test_validations_that_never_come_are_said_before_training(tmp_path):
    done = small.fit(
        tmp_path, *("--trainer.check_val_every_n_epoch", "5", "--trainer.max_epochs", "2", "--early_stopping", "1"),
        *("--test", "false"),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "note: --trainer.check_val_every_n_epoch 5 of 2 epochs: no validation is run" in done.err
    assert "note: --early_stopping 1 cannot stop this run, which has 0 validations" in done.err


@pytest.mark.parametrize(
    "options",
    [
        ("--trainer.max_epochs", "4", "--trainer.check_val_every_n_epoch", "3"),
        ("--trainer.max_epochs", "3", "--trainer.val_check_interval", "0.5"),
        ("--trainer.max_epochs", "3", "--trainer.max_steps", "9"),
        ("--trainer.max_epochs", "6", "--early_stopping", "1"),
    ],
)
def test_the_numbers_of_a_run_are_those_of_the_checkpoint_that_it_names(tmp_path, options):
    size = ("--trainer.limit_train_batches", "4", "--model.lr", "0.5", "--show", "none", "--name", "n")
    assert small.fit(tmp_path, *size, *options).code == 0
    run = run_of(tmp_path, "n")
    found = results(run)
    named = str(run / found["checkpoint"])
    for subcommand, split, words in (("validate", "val", "validation  "), ("test", "test", "test accuracy")):
        limit = [f"--trainer.limit_{split}_batches", "1"]
        said = small.launch([subcommand, "--ckpt_path", named, *DATA, *limit], tmp_path)
        assert re.search(rf"{words} +{100 * found[f'{split}_acc']:.2f} %", said.out), said.out
        assert f"{found[f'{split}_loss']:.4f}" in said.out


# Refused before any work.


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("--trainer.val_check_interval", "100", "is out of range: an epoch has 2 batches"),
        ("--trainer.limit_test_batches", "0.1", "of 8 batches is none: give 1, or 0.125 or more"),
        ("--trainer.limit_val_batches", "0.01", "of 4 batches is none: give 1, or 0.25 or more"),
        ("--trainer.limit_train_batches", "0.01", "of 28 batches is none: give 1, or 0.036 or more"),
    ],
)
def test_a_limit_that_leaves_nothing_is_refused_before_training(tmp_path, name, value, why):
    refused = small.fit(tmp_path, name, value)
    assert refused.code == 2
    assert f"{name} {value} {why}" in small.one_line(refused)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "split", "batches"), [("validate", "val", 4), ("test", "test", 8), ("predict", "", 8)]
)
def test_a_limit_that_leaves_nothing_is_refused_by_every_verb_in_the_same_words(tmp_path, verb, split, batches):
    assert small.fit(tmp_path, "--name", "p", "--test", "false", "--show", "none").code == 0
    limit = f"--trainer.limit_{split or verb}_batches"
    line = [verb, "--ckpt_path", "lightning_logs/p/version_0", *DATA, limit, "0.01"]
    refused = small.launch(line, tmp_path)
    assert refused.code == 2
    assert f"{limit} 0.01 of {batches} batches is none: give 1, or {1 / batches:g} or more" in small.one_line(refused)
    assert "weights:" not in refused.out


def test_no_validation_asked_for_is_no_warning():
    line = small.fit_line("--data.val_size", "0", "--test", "false", "--show", "none", "--trainer.fast_dev_run", "true")
    command = [sys.executable, "-m", "vgg_lightning", *line]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "across ranks is zero" not in done.stderr


def test_a_rank_that_is_no_number_is_one_line(tmp_path, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "one", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    refused = small.fit(tmp_path)
    assert refused.code == 2
    assert "RANK is 'one' in the environment" in small.one_line(refused)


# Precision.


@pytest.mark.parametrize("asked", ["bf16-mixed", "bf16-true", "32-true", "64-true"])
def test_fit_and_test_print_one_number_whatever_the_precision_of_training(tmp_path, asked):
    size = ("--trainer.max_epochs", "2", "--trainer.limit_test_batches", "8", "--show", "none", "--name", "p")
    assert small.fit(tmp_path, *size, "--trainer.precision", asked).code == 0
    run = run_of(tmp_path, "p")
    found = results(run)
    saved = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert found["precision"] == saved["run_options"]["precision"] == asked
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == asked
    tested = small.launch(["test", "--ckpt_path", str(run), *DATA], tmp_path)
    assert f"test accuracy  {100 * found['test_acc']:.2f} %" in tested.out
    assert f"test loss      {found['test_loss']:.4f}" in tested.out
    validated = small.launch(["validate", "--ckpt_path", str(run), *DATA, "--trainer.limit_val_batches", "1"], tmp_path)
    assert f"{found['val_loss']:.4f}" in validated.out


def test_evaluation_is_in_float32_to_the_last_bit(tmp_path):
    size = ("--trainer.max_epochs", "2", "--trainer.limit_test_batches", "8", "--show", "none", "--name", "p")
    assert small.fit(tmp_path, *size, "--trainer.precision", "bf16-mixed").code == 0
    found = results(run_of(tmp_path, "p"))
    data = {"dataset": "idx", "data_dir": DATA[1], "batch_size": 16}
    again = prepare(stage="test", ckpt_path=run_of(tmp_path, "p"), data=data)
    assert again.options["trainer"]["precision"] == "32-true"
    assert evaluate(again)["test_loss"] == found["test_loss"]


def test_a_run_that_says_nothing_of_precision_is_in_float32(tmp_path):
    line = small.fit_line("--config", str(small.without_precision(tmp_path)), "--show", "none", "--name", "p")
    del line[(where := line.index("--trainer.precision")) : where + 2]
    assert small.launch([*line, "--test", "false"], tmp_path).code == 0
    run = run_of(tmp_path, "p")
    file = run / "config.yaml"
    assert "precision: 32-true" in file.read_text()
    saved = run / "checkpoints/last.ckpt"
    checkpoint = torch.load(saved, weights_only=True)
    del checkpoint["run_options"]  # as in a file of before
    torch.save(checkpoint, saved)
    file.write_text(file.read_text().replace("precision: 32-true", "precision: null"))
    options = ["fit", "--resume", "--name", "p", "--trainer.max_epochs", "2", "--test", "false"]
    refused = small.launch([*options, "--trainer.precision", "bf16-mixed"], tmp_path)
    assert "bf16-mixed contradicts the checkpoint, which has 32-true" in small.one_line(refused)
    assert small.launch(options, tmp_path).code == 0
    assert results(run)["precision"] == "32-true"


def test_emulated_precision_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(bfloat16, "fault", lambda: bfloat16.EMULATED)
    slow = small.fit(tmp_path, "--trainer.precision", "bf16-mixed", "--name", "slow", "--test", "false")
    assert "note: --trainer.precision bf16-mixed: this cpu only emulates it" in slow.err
    again = small.launch(
        ["fit", "--resume", "--name", "slow", "--trainer.max_epochs", "2", "--test", "false"], tmp_path
    )
    assert "note: --trainer.precision bf16-mixed: this cpu only emulates it" in again.err
    monkeypatch.undo()
    assert not precision.fault("32-true", torch.device("cpu"))


def test_mixed_float16_on_a_cpu_is_named_for_what_it_is(tmp_path):
    done = small.fit(tmp_path, "--trainer.precision", "16-mixed", "--name", "half", "--test", "false")
    assert done.code == 0, done.err
    assert "note: --trainer.precision 16-mixed: a CPU computes in bf16-mixed" in done.err
    assert results(run_of(tmp_path, "half"))["precision"] == "bf16-mixed"
    again = ["--resume", "--trainer.precision", "16-mixed", "--trainer.max_epochs", "2"]
    assert small.launch(["fit", "--name", "half", "--test", "false", *again], tmp_path).code == 0


# All arguments of the Trainer.

WORKS = {  # seen in other tests, or below; what is left is Lightning's own and silent: it computes the same otherwise
    *("accelerator", "strategy", "devices", "num_nodes", "precision", "logger", "callbacks", "fast_dev_run"),
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "limit_train_batches", "limit_val_batches"),
    *("limit_test_batches", "limit_predict_batches", "overfit_batches", "val_check_interval"),
    *("check_val_every_n_epoch", "num_sanity_val_steps", "log_every_n_steps", "enable_checkpointing"),
    *("enable_progress_bar", "enable_model_summary", "accumulate_grad_batches", "gradient_clip_val"),
    *("gradient_clip_algorithm", "deterministic", "benchmark", "inference_mode", "profiler", "detect_anomaly"),
    *("plugins", "sync_batchnorm", "reload_dataloaders_every_n_epochs", "default_root_dir", "enable_autolog_hparams"),
}
REFUSED = {"barebones"}


def test_every_argument_of_the_trainer_works_or_is_named():
    arguments = {*inspect.signature(L.Trainer).parameters}
    idle = {name for name, row in TRAINER.items() if row.idle}
    assert TRAINER.keys() == arguments
    assert arguments == WORKS | REFUSED | idle
    assert not WORKS & idle
    assert not WORKS & REFUSED


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("use_distributed_sampler", "false", "the data module shares its batches"),
        ("model_registry", "mine", "checkpoints stay in the run folder"),
        ("sync_batchnorm", "true", "there is one process"),
        ("gradient_clip_algorithm", "value", "give --trainer.gradient_clip_val as well"),
        ("limit_predict_batches", "2", "it is for predict"),
        ("min_steps", "5", "neither --early_stopping nor --trainer.max_time ends the run before"),
    ],
)
def test_an_option_of_the_trainer_that_does_nothing_is_named(tmp_path, name, value, why):
    done = small.fit(tmp_path, f"--trainer.{name}", value, "--test", "false", "--show", "none")
    assert done.code == 0, done.err
    assert f"note: --trainer.{name} does nothing here: {why}" in done.err


def test_barebones_is_refused_in_one_line(tmp_path):
    refused = small.fit(tmp_path, "--trainer.barebones", "true")
    assert refused.code == 2
    assert "--trainer.barebones" in small.one_line(refused)


@pytest.mark.parametrize("profiler", ["simple", "advanced"])
def test_a_profile_is_written_and_named(tmp_path, profiler):
    done = small.fit(tmp_path, "--trainer.profiler", profiler, "--test", "false", "--show", "none", "--name", "p")
    assert done.code == 0, done.err
    file = run_of(tmp_path, "p") / "fit-profile.txt"
    assert "run_training_batch" in file.read_text()
    assert "profile        lightning_logs/p/version_0/fit-profile.txt" in done.out


def test_tables_that_are_asked_for_are_shown(tmp_path):
    line = small.fit_line("--trainer.enable_model_summary", "true", "--trainer.profiler", "simple", "--show", "none")
    command = [sys.executable, "-m", "vgg_lightning", *line, "--trainer.fast_dev_run", "true"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout + done.stderr
    assert "Trainable params" in shown  # enable_model_summary
    assert "FIT Profiler Report" in shown  # profiler, where there is no run folder


# Nothing to do.


def test_a_try_of_some_batches_says_that_nothing_is_left_of_it(tmp_path):
    launched = small.fit(tmp_path, "--trainer.fast_dev_run", "2")
    assert launched.code == 0, launched.err
    assert "note: --trainer.fast_dev_run: it tries 2 batches, and saves and tests nothing" in launched.err


@pytest.mark.parametrize(
    ("trained", "asked", "option"),
    [
        (("--data.val_size", "0"), (), "--data.val_size"),
        ((), ("--trainer.limit_val_batches", "0"), "--trainer.limit_val_batches"),
    ],
)
def test_validation_on_nothing_is_refused(tmp_path, trained, asked, option):
    assert small.fit(tmp_path, "--name", "all", "--show", "none", *trained).code == 0
    line = ["validate", "--ckpt_path", str(run_of(tmp_path, "all")), *DATA, *asked]
    refused = small.one_line(small.launch(line, tmp_path))
    assert f"there is nothing to validate on: {option} is 0" in refused
