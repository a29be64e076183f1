"""A checkpoint is looked at whole before anything uses it: what no run can use is one line and code 2, at once."""

import json
import math
import shutil
import time

import pytest
import torch
from small import data_options, fit, launch, one_line

from vgg_lightning import Classifier, FashionMNISTDataModule, load_classifier
from vgg_lightning.base.errors import NonFiniteError, UserError
from vgg_lightning.prepare import prepare
from vgg_lightning.prepare import test as evaluate
from vgg_lightning.run.checkpoints.read import fault_of, read_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with averages, BatchNorm and an optimizer with states."""
    folder = tmp_path_factory.mktemp("contents")
    options = ["--model.ema_decay", "0.5", "--model.optimizer", "adam", "--model.batch_norm", "true"]
    assert fit(folder, *options).code == 0
    return next(folder.rglob("version_0"))


@pytest.fixture
def got(run, tmp_path):
    """A copy of it."""
    return shutil.copytree(run, tmp_path / "lightning_logs" / "got" / "version_0")


def change(got, at, value):
    """Put `value`, or what it makes of the old one, into last.ckpt; `at` leads there."""
    file = got / "checkpoints" / "last.ckpt"
    whole = checkpoint = torch.load(file, weights_only=True)
    *way, last = [key(checkpoint) if callable(key) else key for key in at]
    for key in way:
        checkpoint = checkpoint[key]
    checkpoint[last] = value(checkpoint.get(last)) if callable(value) else value
    torch.save(whole, file)
    return file


def weight(checkpoint):
    return next(iter(checkpoint["state_dict"]))


def variance(checkpoint):
    return next(name for name in checkpoint["state_dict"] if "running_var" in name)


def best(checkpoint):
    return next(name for name in checkpoint["callbacks"] if name.startswith("BestCheckpoint"))


def laughs(_=None):
    found = [1]
    for _ in range(40):
        found = [found, found]
    return found


def itself(_):
    found = []
    found.append(found)
    return found


def nan(tensor):
    return torch.full_like(tensor, math.nan)


STATE = ("optimizer_states", 0, "state", 0)
PROGRESS = ("loops", "fit_loop", "epoch_progress", "current")
REFUSED = {  # by every door
    "a weight is NaN": (("state_dict", weight), nan),
    "a weight is Inf": (("state_dict", weight), lambda t: t / 0),
    "a buffer is NaN": (("state_dict", variance), nan),
    "the averaged weights are NaN": (("current_model_state", weight), nan),
    "the optimizer is Inf": ((*STATE, "exp_avg"), lambda t: t.abs().add(1) / 0),
    "the rate is NaN": (("optimizer_states", 0, "param_groups", 0, "lr"), math.nan),
    "complex": (("state_dict", weight), lambda t: t.to(torch.complex64)),
    "8-bit": (("state_dict", weight), lambda t: t.to(torch.float8_e4m3fn)),
    "whole numbers": (("state_dict", weight), lambda t: t.to(torch.int8)),
    "truth": (("state_dict", weight), lambda t: t.to(torch.bool)),
    "counters that are not": (("state_dict", lambda c: weight(c)), lambda t: t.to(torch.int64)),
    "meta": (("state_dict", weight), lambda t: t.to("meta")),
    "meta elsewhere": ((*STATE, "exp_avg"), lambda t: t.to("meta")),
    "no deviation": (("datamodule_hyper_parameters", "std"), 1e-300),
    "laughs in the optimizer": ((*STATE, "x"), laughs),
    "laughs for the optimizer": (("optimizer_states",), laughs),
    "laughs in the loops": (("loops", "fit_loop", "state_dict"), laughs),
    "laughs in a callback": (("callbacks", "X"), laughs),
    "laughs beside all": (("extra",), laughs),
    "itself": (("extra",), itself),
    "one number many times": ((*STATE, "exp_avg"), lambda _: torch.zeros(1).expand(10**5, 10**5)),
    "deep": (("extra",), lambda _: eval("[" * 90 + "]" * 90)),
    "digits": (("datamodule_hyper_parameters", "seed"), 10**400),
    "steps": (("global_step",), 10**40),
    "negative steps": (("global_step",), -1),
    "steps that are several": (("global_step",), torch.tensor([1, 2])),
    "an epoch that is a word": (("epoch",), "x"),
    "negative epochs": ((*PROGRESS, "processed"), -5),
    "epochs in words": ((*PROGRESS, "processed"), "x"),
    "names in names": (("class_names",), [["a"]] * 10),
    "too few names": (("class_names",), ["a"] * 3),
    "long names": (("class_names",), ["a" * 10**6] * 10),
    "a schedule in words": (("lr_schedulers", 0, "last_epoch"), "x"),
}
NOT_TO_RESUME = {  # the weights alone can be used
    "no optimizer": (("optimizer_states",), []),
    "an optimizer that is a number": (("optimizer_states",), 3),
    "no groups": (("optimizer_states", 0, "param_groups"), []),
    "another shape": ((*STATE, "exp_avg"), torch.zeros(3)),
    "no schedule": (("lr_schedulers",), []),
    "an empty schedule": (("lr_schedulers",), [{}]),
    "an average of another shape": (("current_model_state", weight), torch.zeros(3)),
    "an average that is a number": (("current_model_state",), 3),
    "loops without fit": (("loops", "fit_loop"), {}),
}
NOT_FOR_A_TRAINER = {  # nor by a Trainer to test
    "callbacks in a list": (("callbacks",), [1]),
    "callbacks that are numbers": (("callbacks",), lambda found: dict.fromkeys(found, 3)),
    "no loops": (("loops",), {}),
    "loops that are a number": (("loops",), 3),
    "another version": (("pytorch-lightning_version",), "x"),
    "an old version": (("pytorch-lightning_version",), "0.0.1"),
    "a version that is a number": (("pytorch-lightning_version",), 3),
    "a position that is a word": (("FashionMNISTDataModule",), {"position": "x"}),
    "a negative position": (("FashionMNISTDataModule", "position"), -3),
}


def refused(args, file, where):
    begin = time.process_time()
    said = launch([*args, "--ckpt_path", str(file), *data_options()[2:4]], where)
    assert said.code == 2, said
    assert "refused" in one_line(said)
    assert len(said.err) < 600
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("kind", REFUSED)
def test_what_nothing_can_use_is_refused_by_every_door(got, tmp_path, kind):
    file = change(got, *REFUSED[kind])
    with pytest.raises(UserError):
        load_classifier(file)
    refused(["fit", "--trainer.max_epochs", "2"], file, tmp_path)
    refused(["test"], file, tmp_path)


@pytest.mark.parametrize("kind", [*NOT_TO_RESUME, *NOT_FOR_A_TRAINER])
def test_what_no_run_can_go_on_from_is_refused(got, tmp_path, kind):
    file = change(got, *{**NOT_TO_RESUME, **NOT_FOR_A_TRAINER}[kind])
    assert load_classifier(file)
    refused(["fit", "--trainer.max_epochs", "2"], file, tmp_path)
    if kind in NOT_FOR_A_TRAINER:
        refused(["test"], file, tmp_path)


@pytest.mark.parametrize("kind", ["best is infinite", "half precision", "no best yet"])
def test_what_a_run_may_hold_is_not_refused(got, tmp_path, kind):
    if kind == "half precision":
        change(got, ("state_dict", weight), lambda t: t.half())
    if kind == "best is infinite":
        change(got, ("callbacks", best, "best_model_score"), torch.tensor(math.inf))
    if kind == "no best yet":
        change(got, ("callbacks", best, "best_model_path"), "")
    said = fit(tmp_path, "--ckpt_path", str(got), "--trainer.max_epochs", "2", "--model.optimizer", "adam",
               "--model.ema_decay", "0.5", "--model.batch_norm", "true")  # fmt: skip
    assert said.code == 0, said


def test_an_infinite_weight_is_refused_whatever_the_file_calls_it(got, tmp_path):
    file = change(got, ("state_dict", weight), lambda t: torch.full_like(t, -math.inf))
    name = weight(torch.load(file, weights_only=True))
    change(got, ("infinite_buffers",), [name])
    with pytest.raises(UserError, match=f"{name} has an Inf, and the model's own has none"):
        load_classifier(file)
    with pytest.raises(UserError, match="has an Inf"):
        Classifier(network="vgg11", ratio=64, head="gap", batch_norm=True, weights=str(file))
    refused(["fit", "--trainer.max_epochs", "2"], file, tmp_path)
    refused(["test"], file, tmp_path)


def test_a_fault_of_the_program_is_not_taken_for_one_of_the_file(got, monkeypatch):
    def broken(self, *_):
        raise KeyError("mine")

    monkeypatch.setattr(Classifier, "on_test_start", broken)
    data = FashionMNISTDataModule(dataset="idx", data_dir=data_options()[3], val_size=64)
    with pytest.raises(KeyError, match="mine"):
        evaluate(prepare(load_classifier(got), data, stage="test", ckpt_path=got, trainer={"accelerator": "cpu"}))


def test_looking_at_a_large_checkpoint_takes_a_moment():
    checkpoint = {"state_dict": {str(i): torch.ones(10_000) for i in range(2000)}, "x": [list(range(1000))] * 100}
    begin = time.process_time()
    assert fault_of(checkpoint, 80_000_000) == ""
    assert time.process_time() - begin < 3


def test_no_checkpoint_is_written_that_would_be_refused(tmp_path):
    import lightning as L

    from vgg_lightning.run.guards.finite import FiniteGuard

    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    states = {"optimizer_states": [{"state": {0: {"exp_avg_sq": torch.tensor([1.0, math.inf])}}}], "state_dict": {}}
    with pytest.raises(NonFiniteError, match=r"the optimizer's state.0.state.0.exp_avg_sq is NaN or Inf"):
        FiniteGuard().on_save_checkpoint(trainer, None, states)


# best.ckpt and last.ckpt are of one run.


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    """A run of two epochs, the second one better, and what it was after the first."""
    folder = tmp_path_factory.mktemp("two")
    options = ["--trainer.limit_train_batches", "8", "--trainer.limit_val_batches", "1.0", "--model.ratio", "32",
               "--model.batch_norm", "true"]  # fmt: skip
    for epochs in range(1, 8):
        more = ["--ckpt_path", str(folder / "lightning_logs/quick/version_0")] if epochs > 1 else []
        said = fit(folder, *options, "--trainer.max_epochs", str(epochs), *more)
        assert said.code == 0, said
        scores = [score_of(folder, name) for name in ("best", "best-prev") if file_of(folder, name).exists()]
        if len(scores) == 2 and scores[0] > scores[1]:
            return folder, [*options, "--trainer.max_epochs", str(epochs)]
    raise AssertionError("it does not learn")


def file_of(folder, name):
    return folder / "lightning_logs/quick/version_0/checkpoints" / f"{name}.ckpt"


def score_of(folder, name):
    checkpoint = read_checkpoint(file_of(folder, name))
    return float(checkpoint["callbacks"][best(checkpoint)]["best_model_score"])


@pytest.mark.parametrize("previous", [True, False])
def test_a_best_checkpoint_of_an_epoch_that_the_run_has_not_had_is_not_tested(two_epochs, tmp_path, previous):
    """As after a kill between writing best.ckpt and last.ckpt: last.ckpt is of the epoch before."""
    folder = shutil.copytree(two_epochs[0], tmp_path / "copy")
    earlier = read_checkpoint(file_of(folder, "best-prev"))
    file_of(folder, "last-prev").unlink(missing_ok=True)
    shutil.copy(file_of(folder, "best-prev"), file_of(folder, "last"))
    abandoned, before = file_of(folder, "best").read_bytes(), file_of(folder, "best-prev").read_bytes()
    if not previous:
        file_of(folder, "best-prev").unlink()
    epochs = earlier["epoch"] + 1
    (folder / "lightning_logs/quick/version_0/results.json").unlink()
    options = [*two_epochs[1][:-1], str(epochs)]
    said = fit(folder, *options, "--ckpt_path", str(folder / "lightning_logs/quick/version_0"))
    assert said.code == 0, said
    results = json.loads((folder / "lightning_logs/quick/version_0/results.json").read_text())
    if previous:
        assert "best.ckpt is not of the best epoch so far: best-prev.ckpt is, and takes its place" in said.err
        assert results["checkpoint"] == "checkpoints/best.ckpt"
        assert file_of(folder, "best").read_bytes() == before
        assert results["val_acc"] == pytest.approx(score_of(folder, "best"))
    else:
        assert "best.ckpt is lost, damaged or of another epoch" in said.err
        assert results["checkpoint"] == "checkpoints/last.ckpt"
        assert results["val_acc"] is None
        assert file_of(folder, "best").read_bytes() == abandoned
