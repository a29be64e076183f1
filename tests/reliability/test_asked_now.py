"""A launch obeys what its user typed, not what a checkpoint or a saved file remembers."""

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
import small
import torch
import yaml

from vgg_lightning import Classifier
from vgg_lightning.base.options import RESUMED
from vgg_lightning.training.run_options import MODEL, resumed_as

PAGE = Path(__file__).parents[2] / "docs/train.md"
TEST = ("--trainer.limit_test_batches", "1", "--data.data_dir", str(small.data_folder()))
TWO = ("--trainer.max_epochs", "2")


def resume(cwd, *options):
    return small.launch(["fit", "--resume", *options], cwd)


def run_of(cwd, name, version=0):
    return cwd / f"lightning_logs/{name}/version_{version}"


def results(run):
    return json.loads((run / "results.json").read_text())


def config(run):
    return yaml.safe_load((run / "config.yaml").read_text())


def last(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def weights_equal(one, other):
    return all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of one epoch with momentum, in a folder of its own."""
    folder = tmp_path_factory.mktemp("begun")
    done = small.fit(folder, "--name", "a", "--model.momentum", "0.9", "--show", "none")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def again(begun, tmp_path):
    """The same run, to be resumed."""
    shutil.copytree(begun, tmp_path / "copy")
    return tmp_path / "copy"


# The table.


def test_the_docs_say_what_a_resumed_run_does_with_each_option():
    text = PAGE.read_text()
    for kind in ("kept", "refused", "ignored"):
        names = ", ".join(f"`--{name}`" for name in resumed_as(kind))
        assert f"| {names} | {RESUMED[kind]} |" in text
    assert f"| every other | {RESUMED['obeyed']} |" in text


def test_help_names_what_a_resumed_run_does_not_obey(tmp_path):
    text = small.launch(["fit", "--help", "all"], tmp_path).out
    entries = dict(re.findall(r"^  --([\w.]+)(.*(?:\n {6,}.*)*)", text, re.MULTILINE))
    entries = {name: " ".join(entry.split()) for name, entry in entries.items()}
    marks = {
        "kept": "; fixed by a checkpoint",
        "refused": "; fixed in a resumed run",
        "ignored": "; without effect in a",
    }
    for kind, mark in marks.items():
        assert {name for name, entry in entries.items() if mark in entry} == set(resumed_as(kind))


CHANGES = {
    "dropout": "0.3", "lr": "0.2", "momentum": "0.5", "nesterov": "false", "weight_decay": "0.5", "bias_lr_factor": "9",
    "schedule": "linear", "schedule_end": "0.5", "warmup_epochs": "1.5", "label_smoothing": "0.2", "ema_decay": "0.5",
    "lookahead_steps": "1", "sam_rho": "0.5",
}  # fmt: skip
ALONE = {"teacher", "distill", "distill_temperature"}  # which go together
# The same numbers, reached otherwise.
ELSEWHERE = {"tta", "channels_last", "compile"}


def test_every_option_that_is_obeyed_has_a_change_below():
    obeyed = {name for name, row in MODEL.items() if row.resumed == "obeyed"}
    assert obeyed == CHANGES.keys() | ALONE | ELSEWHERE


SECOND_EPOCH = ("--trainer.max_epochs", "2", "--model.warmup_epochs", "0", "--test", "false")


@pytest.fixture(scope="module")
def unchanged(begun, tmp_path_factory):
    """The weights of the run after a second epoch, with the quick preset's schedule and without any schedule."""
    found = {}
    for schedule in ("cosine", "constant"):
        folder = tmp_path_factory.mktemp("unchanged")
        shutil.copytree(begun, folder, dirs_exist_ok=True)
        assert resume(folder, "--name", "a", *SECOND_EPOCH, "--model.schedule", schedule).code == 0
        found[schedule] = last(run_of(folder, "a"))
    return found


@pytest.mark.parametrize("name", sorted(CHANGES.keys() - {"dropout"}))  # which the head `gap` does not have
def test_an_option_that_is_obeyed_changes_what_is_trained(again, unchanged, name):
    options = (*SECOND_EPOCH, "--model.schedule", "cosine")
    done = resume(again, "--name", "a", *options, f"--model.{name}", CHANGES[name])
    assert done.code == 0, done.err
    assert not weights_equal(last(run_of(again, "a")), unchanged["cosine"])


@pytest.mark.parametrize(
    ("name", "value", "group"),
    [("momentum", 0.5, 0), ("nesterov", False, 0), ("weight_decay", 0.5, 0), ("bias_lr_factor", 20.0, 1)],
)
def test_a_resumed_optimizer_has_the_settings_that_were_typed(again, name, value, group):
    done = resume(again, "--name", "a", "--trainer.max_epochs", "2", f"--model.{name}", str(value).lower())
    assert done.code == 0, done.err
    groups = last(run_of(again, "a"))["optimizer_states"][0]["param_groups"]
    assert groups[group]["lr_factor" if name == "bias_lr_factor" else name] == value
    assert config(run_of(again, "a"))["model"][name] == value


def test_settings_that_are_not_typed_keep_the_bits(begun, unchanged, tmp_path):
    whole = small.fit(
        tmp_path, *("--name", "a", "--model.momentum", "0.9", "--show", "none", "--trainer.max_epochs", "2"),
        *("--model.schedule", "constant", "--model.warmup_epochs", "0", "--test", "false"),
    )  # fmt: skip
    first = small.fit(
        tmp_path, *("--name", "b", "--model.momentum", "0.9", "--show", "none", "--model.schedule", "constant"),
        *("--model.warmup_epochs", "0", "--test", "false"),
    )  # fmt: skip
    second = resume(tmp_path, "--name", "b", "--trainer.max_epochs", "2")
    assert (whole.code, first.code, second.code) == (0, 0, 0)
    assert weights_equal(last(run_of(tmp_path, "a")), last(run_of(tmp_path, "b")))


# Refused, or said to change nothing.


@pytest.mark.parametrize(
    ("name", "value", "has"),
    [
        ("--model.ratio", "32", "64"),
        ("--model.optimizer", "adam", "sgd"),
        ("--data.batch_size", "8", "16"),
        ("--trainer.precision", "bf16-mixed", "32-true"),
        ("--seed_everything", "5", "0"),
    ],
)
def test_what_a_run_has_fixed_is_refused_in_one_line(begun, name, value, has):
    before = (run_of(begun, "a") / "config.yaml").read_bytes()
    refused = resume(begun, "--name", "a", "--trainer.max_epochs", "2", name, value)
    assert refused.code == 2
    line = small.one_line(refused)
    assert f"{name} {value} contradicts the checkpoint, which has {has}: leave the option out" in line
    assert (run_of(begun, "a") / "config.yaml").read_bytes() == before


def test_another_name_does_not_continue_a_run_under_its_old_name(begun):
    refused = small.launch(["fit", "--ckpt_path", "lightning_logs/a/version_0", "--name", "b"], begun)
    assert refused.code == 2
    assert "--name b contradicts" in small.one_line(refused)


@pytest.mark.parametrize(("name", "value"), [("--model.init", "xavier"), ("--trainer.default_root_dir", "elsewhere")])
def test_what_has_done_its_part_is_said_and_not_recorded(again, name, value):
    run = "lightning_logs/a/version_0"
    done = small.launch(["fit", "--ckpt_path", run, "--trainer.max_epochs", "2", name, value], again)
    assert done.code == 0, done.err
    assert f"note: {name} {value} changes nothing in a run that has begun" in done.err
    group, option = name[2:].split(".")
    assert config(run_of(again, "a"))[group][option] != value
    assert not (again / "elsewhere").exists()


def test_the_same_options_again_are_no_contradiction(again):
    line = small.fit_line("--name", "a", "--model.momentum", "0.9", "--show", "none", "--seed_everything", "0")
    done = small.launch([*line, "--resume", "--trainer.precision", "32", "--trainer.max_epochs", "2"], again)
    assert done.code == 0, done.err
    assert "changes nothing" not in done.err


# What ends a run, and what lets it go on.


def test_a_raised_patience_goes_on_and_a_lowered_one_stops(tmp_path):
    options = ("--name", "es", "--trainer.max_epochs", "20", "--test", "false")
    begin = small.fit(tmp_path, "--model.lr", "1e-12", "--early_stopping", "1", "--show", "none", *options)
    run = run_of(tmp_path, "es")
    assert begin.code == 0, begin.err
    assert (results(run)["epochs"], results(run)["ended_by"]) == (2, "early_stopping")
    assert "ended by --early_stopping 1: no val_acc better than" in begin.out
    raised = resume(tmp_path, *options, "--early_stopping", "6")
    assert raised.code == 0, raised.err
    assert results(run)["epochs"] == 7
    assert config(run)["early_stopping"] == 6
    lowered = resume(tmp_path, *options, "--early_stopping", "2")
    assert lowered.code == 0
    assert "is finished: 7 epochs, 14 steps; raise --early_stopping to resume" in lowered.out
    (run / "results.json").unlink()  # as if it had been cut off before its test
    assert resume(tmp_path, *options, "--early_stopping", "2").code == 0
    assert (results(run)["epochs"], results(run)["ended_by"]) == (7, "early_stopping")


def test_a_run_that_its_time_has_ended_says_so_and_the_next_launch_trains(tmp_path):
    options = ("--trainer.max_time", "00:00:00:01", "--trainer.max_epochs", "1000", "--show", "none", "--name", "t")
    done = small.fit(tmp_path, *options, "--test", "false", "--trainer.limit_train_batches", "20")
    assert done.code == 0, done.err
    assert "ended by --trainer.max_time 00:00:00:01" in done.out
    first = results(run_of(tmp_path, "t"))
    assert first["ended_by"] == "max_time"
    assert resume(tmp_path, "--name", "t").code == 0
    second = results(run_of(tmp_path, "t"))
    assert second["steps"] > first["steps"]
    assert second["ended_by"] == "max_time"


@pytest.mark.parametrize("given", ["1s", "00:00:61", "{years: 1}"])
def test_a_time_that_is_none_names_the_option(tmp_path, given):
    refused = small.fit(tmp_path, "--trainer.max_time", given)
    assert refused.code == 2
    assert "--trainer.max_time" in small.one_line(refused)
    assert list(tmp_path.iterdir()) == []


STEADY = ("--model.schedule", "constant", "--model.warmup_epochs", "0", "--show", "none", "--test", "false")


def test_a_run_that_max_steps_ended_within_an_epoch_reads_the_other_batches(tmp_path):
    size = ("--trainer.limit_train_batches", "10", "--trainer.max_epochs", "2", *STEADY)
    assert small.fit(tmp_path, *size, "--name", "whole").code == 0
    cut = small.fit(tmp_path, *size, "--name", "cut", "--trainer.max_steps", "14")
    assert cut.code == 0, cut.err
    found = results(run_of(tmp_path, "cut"))
    assert (found["epochs"], found["steps"], found["ended_by"]) == (1, 14, "max_steps")
    assert "ended by --trainer.max_steps 14, in epoch 2 after 4 of 10 batches" in cut.out
    assert "epoch 2/2, 4 of 10 batches: " in cut.out
    told = resume(tmp_path, "--name", "cut")
    assert "is finished: 1 epoch, 14 steps; raise --trainer.max_steps to resume" in told.out
    went_on = resume(tmp_path, "--name", "cut", "--trainer.max_steps", "20")
    assert went_on.code == 0, went_on.err
    whole, cut = run_of(tmp_path, "whole"), run_of(tmp_path, "cut")
    assert weights_equal(last(whole), last(cut))
    for name in ("epochs", "steps", "val_acc", "val_loss", "train_acc", "train_loss"):
        assert results(whole)[name] == results(cut)[name]


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--trainer.limit_train_batches", "4", "after 7 batches: give 7 or more"),
        ("--trainer.accumulate_grad_batches", "4", "after 7 batches: give a divisor of that"),
    ],
)
def test_a_run_within_an_epoch_refuses_what_it_cannot_go_on_with_there(tmp_path, option, value, why):
    cut = ("--trainer.limit_train_batches", "10", "--trainer.max_epochs", "2", "--trainer.max_steps", "7", *STEADY)
    assert small.fit(tmp_path, *cut, "--name", "cut").code == 0
    before = (run_of(tmp_path, "cut") / "config.yaml").read_bytes()
    refused = resume(tmp_path, "--name", "cut", "--trainer.max_steps", "-1", option, value)
    assert refused.code == 2
    assert f"{option} {value}: the run stands within an epoch, {why}" in refused.err
    assert (run_of(tmp_path, "cut") / "config.yaml").read_bytes() == before
    went_on = resume(tmp_path, "--name", "cut", "--trainer.max_steps", "-1", "--trainer.accumulate_grad_batches", "7")
    assert went_on.code == 0, went_on.err


def test_an_epoch_that_a_run_of_before_counts_though_it_was_cut_short_is_named(tmp_path):
    size = ("--trainer.limit_train_batches", "10", "--trainer.max_epochs", "3", *STEADY)
    assert small.fit(tmp_path, *size, "--name", "cut", "--trainer.max_steps", "14").code == 0
    file = run_of(tmp_path, "cut") / "checkpoints/last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    loop = checkpoint["loops"]["fit_loop"]  # as before the epoch went on where it had been cut
    for counts in loop["epoch_progress"].values():
        counts["processed"] += 1
    for counts in (loop["epoch_loop.batch_progress"]["total"], loop["epoch_loop.batch_progress"]["current"]):
        counts["completed"] += 1
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    torch.save(checkpoint, file)
    told = resume(tmp_path, "--name", "cut", "--trainer.max_steps", "20")
    assert told.code == 0, told.err
    assert "note: epoch 2 of this run ended after 4 of 10 batches and counts as an epoch" in told.err


def test_an_average_that_begins_or_ends_on_resume_is_said_and_trains_the_weights_in_training(again):
    begins = resume(again, "--name", "a", "--model.ema_decay", "0.5", *STEADY, *TWO)
    assert begins.code == 0, begins.err
    assert "note: --model.ema_decay 0.5: the average begins with the weights of step 2\n" in begins.err
    assert "WeightAveraging" not in begins.err
    averaged = last(run_of(again, "a"))
    still = ("--model.lr", "1e-30", "--model.momentum", "0", "--model.weight_decay", "0")
    ends = resume(again, "--name", "a", "--model.ema_decay", "0", *STEADY, *still, "--trainer.max_epochs", "3")
    assert ends.code == 0, ends.err
    assert "note: --model.ema_decay 0: training goes on with the weights in training, without their average" in ends.err
    found, name = last(run_of(again, "a"))["state_dict"], "network.blocks.0.0.weight"
    assert torch.equal(found[name], averaged["current_model_state"][name])
    assert not torch.equal(found[name], averaged["state_dict"][name])


# config.yaml is a recipe.


@pytest.mark.parametrize("of_before", [False, True])
def test_the_config_of_a_resumed_run_starts_a_new_run(again, of_before):
    assert resume(again, "--name", "a", "--trainer.max_epochs", "2").code == 0
    run = run_of(again, "a")
    file, before = run / "config.yaml", (run / "checkpoints/last.ckpt").read_bytes()
    assert not {"ckpt_path", "resume"} & config(run).keys()
    if of_before:  # what the launch resumed was written down then
        file.write_text(file.read_text() + f"ckpt_path: {run}/checkpoints/last.ckpt\nresume: false\n")
    options = ("--name", "b", "--trainer.max_epochs", "1", "--test", "false")
    made = small.launch(["fit", "--config", str(file), *options], again)
    assert made.code == 0, made.err
    assert results(run_of(again, "b"))["steps"] == 2
    assert (run / "checkpoints/last.ckpt").read_bytes() == before


def test_resume_in_a_configuration_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("resume: true\n")
    refused = small.fit(tmp_path, "--config", "mine.yaml")
    assert refused.code == 2
    assert "type --resume" in small.one_line(refused)


def test_paths_of_a_resumed_run_stay_as_they_were_typed(begun, tmp_path):
    done = small.fit(tmp_path, "--trainer.default_root_dir", "runs", "--name", "r", "--show", "none")
    assert done.code == 0, done.err
    run = run_of(tmp_path / "runs", "r")
    again = small.launch(
        ["fit", "--resume", "--trainer.default_root_dir", "runs", "--name", "r", "--trainer.max_epochs", "2"], tmp_path
    )
    assert again.code == 0, again.err
    assert str(tmp_path) not in again.out
    assert config(run)["trainer"]["default_root_dir"] == "runs"
    third = small.launch(
        ["fit", "--ckpt_path", "runs/lightning_logs/r/version_0", "--trainer.max_epochs", "3"], tmp_path
    )
    assert str(tmp_path) not in third.out
    assert config(run)["trainer"]["default_root_dir"] == "runs"  # also where it is not typed


def test_a_run_keeps_what_it_was_fine_tuned_from_in_its_recipe(begun, tmp_path):
    source = str(run_of(begun, "a"))
    assert small.fit(tmp_path, "--model.weights", source, "--name", "tuned", "--show", "none").code == 0
    assert resume(tmp_path, "--name", "tuned", "--trainer.max_epochs", "2").code == 0
    assert config(run_of(tmp_path, "tuned"))["model"]["weights"] == source


CALLBACK = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{monitor: val_loss, filename: mine{dirpath}}}
"""


@pytest.mark.parametrize("outside", [True, False])
def test_a_checkpoint_callback_of_ones_own_changes_no_number(tmp_path, monkeypatch, outside):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "own.yaml").write_text(CALLBACK.format(dirpath=f", dirpath: {tmp_path}/outside" if outside else ""))
    size = ("--trainer.max_epochs", "4", "--model.lr", "0.3", "--trainer.limit_train_batches", "28", "--show", "none")
    done = small.fit(tmp_path, "--config", "own.yaml", *size, "--name", "own")
    assert done.code == 0, done.err
    run = run_of(tmp_path, "own")
    assert results(run)["checkpoint"] == "checkpoints/best.ckpt"
    mine = tmp_path / "outside/mine.ckpt" if outside else run / "checkpoints/mine.ckpt"
    assert mine.is_file()
    said = small.launch(["validate", "--ckpt_path", str(run / "checkpoints/best.ckpt"), *TEST[2:], *LIMIT], tmp_path)
    assert f"{100 * results(run)['val_acc']:.2f} %" in said.out
    went_on = resume(tmp_path, "--name", "own", "--trainer.max_epochs", "5")  # by --resume alone
    assert went_on.code == 0, went_on.err
    assert results(run)["epochs"] == 5


LIMIT = ("--trainer.limit_val_batches", "1")


def test_a_config_with_classes_from_elsewhere_is_still_refused(begun, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "own.yaml").write_text(CALLBACK.format(dirpath=""))
    assert small.fit(tmp_path, "--config", "own.yaml", "--name", "own", "--show", "none").code == 0
    run = run_of(tmp_path, "own")
    moved = shutil.copytree(run, tmp_path / "got/version_0")
    refused = small.launch(["fit", "--ckpt_path", str(moved), "--trainer.max_epochs", "2"], tmp_path)
    assert refused.code == 2
    assert "trainer.callbacks may import a class" in small.one_line(refused)
    changed = run / "config.yaml"
    changed.write_text(changed.read_text().replace("mine", "yours"))
    refused = small.launch(["fit", "--ckpt_path", str(run), "--trainer.max_epochs", "2"], tmp_path)
    assert "trainer.callbacks may import a class" in small.one_line(refused)


def test_python_takes_over_what_it_does_not_say(again):
    from vgg_lightning import FashionMNISTDataModule
    from vgg_lightning.prepare import prepare

    run = run_of(again, "a")
    options = {"ratio": 64, "head": "gap", "momentum": 0.9, "batch_norm": True}
    saved = last(run)["hyper_parameters"]
    data = copy.deepcopy(last(run)["datamodule_hyper_parameters"])
    data.pop("in_channels"), data.pop("image_size")
    made = prepare(
        {**{k: v for k, v in saved.items() if k != "image_size"}, **options},
        {**data, "data_dir": str(small.data_folder())},
        ckpt_path=run,
        trainer={"max_epochs": 2, "limit_train_batches": 2, "limit_val_batches": 1, "accelerator": "cpu"},
    )
    assert made.options["trainer"]["precision"] == "32-true"
    assert made.options["seed_everything"] == 0
    assert isinstance(made.model, Classifier)
    assert isinstance(made.data, FashionMNISTDataModule)
