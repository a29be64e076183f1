"""`vgg-lightning find`: a suggestion, and no trace."""

import csv
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "reliability"))
from small import BRIEF, NETWORK, data_options, launch, one_line

from vgg_lightning.base.errors import UserError
from vgg_lightning.find import batch_size as find_batch_size
from vgg_lightning.find import lr as find_lr
from vgg_lightning.find.batch_size import Trial
from vgg_lightning.find.finder import ready, scratch

FIT = [*data_options(), *NETWORK, *BRIEF]


def find(what, cwd, *options):
    return launch(["find", what, *FIT, *options], cwd)


def test_lr(tmp_path):
    launched = find(
        "lr", tmp_path, "--model.batch_norm", "true", "--steps", "60", "--trial_steps", "30", "--output", "found"
    )
    assert launched.code == 0, launched.err
    assert "suggested lr" in launched.out
    assert "--model.lr" in launched.out
    assert not launched.err  # no bar where there is no terminal
    assert {file.name for file in tmp_path.iterdir()} == {"found"}
    assert {file.name for file in (tmp_path / "found").iterdir()} == {"lr_finder.csv", "lr_finder.png", "lr_trials.csv"}
    rows = list(csv.reader((tmp_path / "found" / "lr_finder.csv").open()))
    assert rows[0] == ["lr", "smoothed_loss"]
    assert float(rows[1][0]) == pytest.approx(1e-4 * 1e5 ** (find_lr.SKIPPED / 60), rel=0.3)  # the first that is used
    trials = [(float(lr), float(loss)) for lr, loss in list(csv.reader((tmp_path / "found/lr_trials.csv").open()))[1:]]
    advised = float(launched.out.split("suggested lr")[1].split(",")[0])
    assert advised == pytest.approx(find_lr.best_of(trials)[0], rel=0.1)
    assert 2 <= len(trials) <= find_lr.MOST


def test_the_search_goes_to_the_largest_of_the_best_rates():
    def search(start, loss_of):
        trials = find_lr.search(start, loss_of)
        assert trials == sorted(trials)
        return find_lr.best_of(trials)[0]

    def bowl(lr):
        return 1 + abs(math.log2(lr / 0.1))

    assert search(0.0125, bowl) == search(0.8, bowl) == search(0.1, bowl) == pytest.approx(0.1)
    assert search(0.01, lambda lr: 0.8 if lr < 0.1 else math.inf) == pytest.approx(0.08)
    with pytest.raises(UserError, match="finite at no rate"):
        search(0.1, lambda lr: math.inf)
    assert len(find_lr.search(1.0, lambda lr: 1.0)) == find_lr.MOST


@pytest.mark.parametrize(
    "options",
    [
        ("--model.ema_decay", "0.9", "--model.lookahead_steps", "2"),
        ("--model.network", "whitened_vgg", "--model.ratio", "64", "--model.head", "classic"),
    ],
)
def test_it_leaves_the_model_as_it_was(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with scratch() as folder:
        run = ready([*FIT, *options], folder, 30)
        before = {k: v.clone() for k, v in run.model.network.state_dict().items() if "whiten" not in k}
        find_lr.range_test(run.model, run.data, run.trainer, 1e-3, 1.0, 30)
    trained = [k for k in before if not k.startswith("blocks.0.0.") or "ema" in options[0]]  # the stem is computed
    assert trained
    assert all(torch.equal(before[k], run.model.network.state_dict()[k]) for k in trained)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("asked", "used"), [(None, "32-true"), ("bf16-mixed", "bf16-mixed"), ("64-true", "64-true")])
def test_it_measures_in_the_precision_of_the_run_that_it_is_for(asked, used):
    with scratch() as folder:
        run = ready([*FIT, *(["--trainer.precision", asked] if asked else [])], folder, 1)
        assert run.trainer.precision == run.options["trainer"]["precision"] == used


def test_lr_of_falling_and_exploding_losses():
    """Made-up curves as Lightning gives them: a running average with weight 0.98."""

    def smoothed(losses):
        average, points = 0.0, []
        for i, loss in enumerate(losses):
            average = 0.98 * average + 0.02 * loss
            points.append((1e-4 * 1.08**i, average / (1 - 0.98 ** (i + 2))))
        return points

    gentle = [2.3 - 0.01 * i for i in range(100)] + [1.3 + 0.02 * i for i in range(30)]
    cliff = [2.3 - 0.01 * i for i in range(100)] + [50.0] * 5
    rate = find_lr.start_of(smoothed(gentle))
    assert 1e-4 * 1.08**95 < rate < 1e-4 * 1.08**130
    assert find_lr.start_of(smoothed(cliff)) < 1e-4 * 1.08**100 / 3
    with pytest.raises(UserError, match="the loss falls at no rate"):
        find_lr.start_of(smoothed([2.3] * 60))


def test_batch_size(tmp_path):
    launched = find("batch_size", tmp_path, "--max_size", "32", "--output", "found")
    assert launched.code == 0, launched.err
    assert "stopped        --max_size" in launched.out
    assert "--data.batch_size" in launched.out
    rows = list(csv.reader((tmp_path / "found" / "batch_sizes.csv").open()))
    assert [row[0] for row in rows] == ["size", "8.0", "16.0", "32.0"]
    assert (tmp_path / "found" / "batch_sizes.png").stat().st_size > 1000
    assert {file.name for file in tmp_path.iterdir()} == {"found"}


def test_batch_size_stops_before_the_memory_is_used_up(tmp_path, monkeypatch):
    used = iter(range(0, 10**12, 10**9))  # 1 GB more with every look
    monkeypatch.setattr(find_batch_size, "_used", lambda device: next(used))
    monkeypatch.setattr(find_batch_size, "_free", lambda device: 6 * 10**9)
    launched = find("batch_size", tmp_path)
    assert launched.code == 0, launched.err
    assert "a batch of 32 would take 3.7 GiB, 2.8 GiB are allowed" in launched.out


def test_the_smallest_of_the_fast_batches_is_suggested():
    assert find_batch_size.suggestion([Trial(8, 50, 0), Trial(16, 97, 0), Trial(32, 100, 0)]) == 16
    with pytest.raises(UserError, match="not even a batch of 8"):
        find_batch_size.suggestion([])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rl"], "did you mean lr?"),
        (["lr", "--steps", "many"], "--steps takes a whole number"),
        (["lr", "--steps=-5"], "out of range"),
        (["lr", "--trial_steps", "5"], "--trial_steps 5 is too few"),
        (["lr", "--min_lr", "1", "--max_lr", "0.1"], "is not below"),
        (["lr", "--model.lrr", "1"], "--model.lrr is unknown"),
        (["lr", "--output"], "--output has no value"),
        (["batch_size", "--memory", "2"], "--memory 2 is out of range"),
    ],
)
def test_bad_input_is_one_line(args, said, tmp_path):
    launched = launch(["find", *args], tmp_path)
    assert launched.code == 2
    assert said in one_line(launched)
    assert not list(tmp_path.iterdir())
