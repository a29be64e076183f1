"""A run is prepared, then run: from Python as from the command line."""

import ast
import json
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningCLI

sys.path.insert(0, str(Path(__file__).parent / "reliability"))
from small import BRIEF, NETWORK, data_folder, data_options, launch

import vgg_lightning
from vgg_lightning import Classifier, FashionMNISTDataModule
from vgg_lightning import prepare as runs
from vgg_lightning.base.errors import UserError
from vgg_lightning.prepare import prepare
from vgg_lightning.run.checkpoints.locate import RunFinished

MODEL = {"network": "vgg11", "ratio": 64, "head": "gap", "lr": 0.1, "momentum": 0.9}
LIMITS = {"limit_val_batches": 1, "limit_test_batches": 1, "accelerator": "cpu", "enable_progress_bar": False}
TRAINER = {"max_epochs": 2, "limit_train_batches": 4, **LIMITS}


def data():
    return {"dataset": "idx", "data_dir": str(data_folder()), "val_size": 64, "batch_size": 16}


def parts(seed=0):
    L.seed_everything(seed)
    return Classifier(**MODEL), FashionMNISTDataModule(**data())


def weights(run_folder, name="last"):
    return torch.load(run_folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class StopAt(Callback):
    """Ends the process's run within a step, as an error of a callback does, after a checkpoint of that step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise RuntimeError("power cut")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run from Python with its results, and one of the command line with the same options."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = prepare(*parts(), trainer=TRAINER, name="mine", show="none")
        results = runs.fit(run)
    options = [f"--model.{name}={value}" for name, value in MODEL.items()]
    options += [f"--trainer.{name}={value}" for name, value in TRAINER.items()]
    preset = folder / "empty.yaml"
    preset.write_text("seed_everything: 0\n")
    launched = launch(
        ["fit", "--config", str(preset), *data_options(), *options, "--name", "theirs", "--show", "none"], folder
    )
    assert launched.code == 0, launched.err
    return run, results, folder


def test_python_gives_what_the_command_line_gives(finished):
    run, results, folder = finished
    mine, theirs = (folder / "lightning_logs" / name / "version_0" for name in ("mine", "theirs"))
    assert mine.samefile(folder / run.folder)
    assert same(weights(mine), weights(theirs))
    assert results == json.loads((mine / "results.json").read_text())
    other = json.loads((theirs / "results.json").read_text())
    assert {k: results[k] for k in ("test_acc", "val_acc", "steps")} == {
        k: other[k] for k in ("test_acc", "val_acc", "steps")
    }
    assert (mine / "metrics.csv").read_text().count("\n") == (theirs / "metrics.csv").read_text().count("\n")
    assert (mine / "checkpoints" / "best.ckpt").is_file()
    keys = [torch.load(place / "checkpoints/last.ckpt", weights_only=True)["callbacks"] for place in (mine, theirs)]
    names = [{key.partition("{")[0] for key in found} for found in keys]
    assert names[0] == names[1]


def test_its_config_is_a_recipe(finished):
    run, _, folder = finished
    assert yaml.safe_load((folder / run.folder / "config.yaml").read_text())["model"]["momentum"] == 0.9
    launched = launch(["fit", "--config", str(folder / run.folder / "config.yaml"), "--name", "again"], folder)
    assert launched.code == 0, launched.err
    assert same(weights(folder / run.folder), weights(folder / "lightning_logs/again/version_0"))


def test_options_give_the_weights_of_the_objects(finished, tmp_path, monkeypatch):
    run, _, folder = finished
    monkeypatch.chdir(tmp_path)
    torch.rand(3)  # what was drawn before has no part in it
    other = prepare(MODEL, data(), trainer=TRAINER, test=False, show="none")
    runs.fit(other)
    assert other.folder == Path("lightning_logs/vgg11/version_0")
    assert same(weights(folder / run.folder), weights(other.folder))


def test_a_checkpoint_is_tested_validated_and_predicted_with(finished, capsys):
    run, results, folder = finished
    place = {"ckpt_path": folder / run.folder, "data": data(), "trainer": LIMITS}
    tested = runs.test(prepare(stage="test", **place))
    assert tested["test_acc"] == pytest.approx(results["test_acc"], abs=1e-6)
    assert f"test accuracy  {100 * results['test_acc']:.2f} %" in capsys.readouterr().out
    assert runs.validate(prepare(stage="validate", **place))["val_acc"] == pytest.approx(results["val_acc"], abs=1e-6)
    batches = runs.predict(prepare(stage="predict", **{**place, "trainer": {"accelerator": "cpu"}}))
    assert sum(len(labels) for _, labels in batches) == 128
    assert {path.name for path in folder.iterdir()} == {"lightning_logs", "empty.yaml"}


def test_the_model_at_hand_is_tested_without_a_checkpoint():
    assert 0 <= runs.test(prepare(*parts(), stage="test", trainer=LIMITS))["test_acc"] <= 1


def test_a_run_that_was_cut_off_ends_with_the_bits_of_the_one_that_was_not(finished, tmp_path, monkeypatch):
    run, _, folder = finished
    monkeypatch.chdir(tmp_path)
    options = {"trainer": TRAINER, "show": "none", "checkpoint_every_n_steps": 1}
    cut = prepare(*parts(), **options, callbacks=[StopAt(6)])
    with pytest.raises(RuntimeError, match="power cut"):
        runs.fit(cut)
    resumed = prepare(*parts(seed=7), **options, ckpt_path=cut.folder)
    assert resumed.folder.resolve() == cut.folder.resolve()
    assert 4 < resumed.step < 8  # within the second epoch
    results = runs.fit(resumed)
    assert results["steps"] == 8
    assert same(weights(folder / run.folder), weights(cut.folder))
    with pytest.raises(RunFinished, match="is finished"):
        prepare(*parts(), **options, ckpt_path=cut.folder)


def test_a_run_without_a_record_leaves_no_trace_and_can_be_searched(tmp_path, monkeypatch):
    from vgg_lightning.find.lr import range_test

    monkeypatch.chdir(tmp_path)
    trainer = {**TRAINER, "max_epochs": 31, "logger": False, "enable_checkpointing": False, "limit_val_batches": 0}
    run = prepare(*parts(), trainer={**trainer, "default_root_dir": str(tmp_path / "scratch")}, record=False)
    assert len(range_test(run.model, run.data, run.trainer, 1e-3, 1.0, 30)) > 10
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trainer": {**TRAINER, "max_epochs": 0}}, "max_epochs 0 is out of range"),
        ({"trainer": {**TRAINER, "max_epoch": 1}}, "did you mean max_epochs?"),
        ({"trainer": {**TRAINER, "default_root_dir": "/proc/nowhere"}}, "default_root_dir"),
        ({"seed": -1}, "out of range"),
        ({"name": "a/b"}, "is not a valid folder name"),
        ({"show": "nothing"}, "nothing"),
        ({"early_stopping": 1, "trainer": {**TRAINER, "limit_val_batches": 0}}, "early_stopping needs validation"),
        ({"ckpt_path": "nowhere.ckpt"}, "nowhere.ckpt does not exist"),
        ({"model": {**MODEL, "lrr": 1}}, "option lrr is unknown"),
        ({"model": {**MODEL, "num_classes": 5}}, "classes"),
        ({"model": None}, "fit needs a model"),
        ({"stage": "test", "data": {**data(), "predict_path": "x.png"}}, "goes with predict"),
    ],
)
def test_a_mistake_is_one_line_without_dashes_and_leaves_nothing(change, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        prepare(**{"model": MODEL, "data": data(), "trainer": TRAINER, **change})
    assert said in str(caught.value)
    assert "--" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_run_as_it_was_prepared():
    run = prepare(*parts(), stage="test", trainer=LIMITS)
    with pytest.raises(UserError, match="prepared to test: prepare another one with stage='fit'"):
        runs.fit(run)


def test_the_command_line_says_the_same_with_dashes(tmp_path):
    launched = launch(["fit", *data_options(), *NETWORK, *BRIEF, "--trainer.max_epochs", "0"], tmp_path)
    assert "--trainer.max_epochs 0 is out of range" in launched.err


STAGES = ("fit", "validate", "test", "predict")
HOOKS = {f"{when}{stage}" for when in ("", "before_", "after_") for stage in STAGES}  # which LightningCLI looks up


def overridden():
    """Return (class, method) for all that the package overrides of LightningCLI, whatever the class is called."""
    known, classes, found = {"LightningCLI"}, [], []
    for file in Path(vgg_lightning.__file__).parent.rglob("*.py"):
        classes += [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)]
    while more := [c for c in classes if {ast.unparse(base).rpartition(".")[2] for base in c.bases} & known]:
        for node in more:
            known.add(node.name)
            for part in node.body:
                names = [part.name] if isinstance(part, ast.FunctionDef) else []
                names += [t.id for t in getattr(part, "targets", []) if isinstance(t, ast.Name)]
                found += [(node.name, name) for name in names if is_of_cli(name)]
        classes = [c for c in classes if c not in more]
    return found


def is_of_cli(name):
    return name in HOOKS or (hasattr(LightningCLI, name) and name != "__init__" and not hasattr(object, name))


def test_lightning_cli_parses_and_little_is_changed_of_it():
    methods = overridden()
    assert {"add_arguments_to_parser", "parse_arguments"} <= {name for _, name in methods}  # the count sees something
    assert len(methods) <= 4, methods
    assert not [name for _, name in methods if name.startswith("_")]


@pytest.mark.slow
def test_two_processes_train_and_test_what_python_has_built(tmp_path, monkeypatch):
    """The other process runs the package and not the script, so a notebook or standard input may start it."""
    monkeypatch.chdir(tmp_path)
    two = {"devices": 2, "accelerator": "cpu", "enable_progress_bar": False}
    results = runs.fit(prepare(*parts(), trainer={**TRAINER, **two, "limit_train_batches": 2}, show="none"))
    assert results["steps"] == 4
    run = tmp_path / "lightning_logs/vgg11/version_0"
    place = {"data": data(), "stage": "test", "ckpt_path": run}
    tested = runs.test(prepare(**place, trainer={**two, "devices": 1}))
    assert runs.test(prepare(**place, trainer=two)) == pytest.approx(tested, abs=1e-6)  # each image counts once


def test_what_other_processes_cannot_be_given_is_refused():
    two = {"devices": 2, "accelerator": "cpu"}
    with pytest.raises(UserError, match="devices: other processes have no weights: give ckpt_path"):
        prepare(*parts(), stage="test", trainer=two)
    with pytest.raises(UserError, match="strategy fsdp: give the options of the model, so that all build the same"):
        prepare(*parts(), trainer={**TRAINER, **two, "strategy": "fsdp"})


def test_a_model_that_was_trained_keeps_its_preprocessing_in_a_prepared_run(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, _, folder = finished
    model = vgg_lightning.load_classifier(folder / run.folder)
    again = prepare(model, FashionMNISTDataModule(**data(), mean=0.5, std=0.5), trainer=TRAINER, show="none")
    assert again.options["data"]["mean"] == again.data.preprocess.mean == model.preprocess.mean != 0.5
    runs.fit(again)
    assert yaml.safe_load((again.folder / "config.yaml").read_text())["data"]["mean"] == model.preprocess.mean
