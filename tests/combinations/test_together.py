"""Pairs of options that the draws have found not to go together once, each by name."""

from __future__ import annotations

from datetime import timedelta

import harness
import pytest
from small import data_folder, fit, one_line

from vgg_lightning.base.errors import UserError
from vgg_lightning.prepare import prepare

LENET = ("--model.network", "lenet", "--model.ratio", "1", "--model.head", "classic")


def rows(folder):
    return harness.rows(harness.only_run(folder) / "metrics.csv")


def test_validations_further_apart_than_an_epoch_are_refused_before_the_work(tmp_path):
    launched = fit(tmp_path, "--trainer.val_check_interval", "3", "--trainer.limit_train_batches", "2")
    assert launched.code == 2
    assert "--trainer.val_check_interval 3" in one_line(launched)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("time", ["00:00:00:00", timedelta(0), {"minutes": 0}])
def test_no_time_to_train_is_refused(time, tmp_path):
    data = {"dataset": "idx", "data_dir": str(data_folder()), "val_size": 64}
    with pytest.raises(UserError, match=r"max_time .* leaves no time to train"):
        prepare({"ratio": 64}, data, trainer={"max_time": time, "default_root_dir": str(tmp_path)})
    assert not list(tmp_path.iterdir())


def test_the_learning_rate_of_a_step_is_logged_once_where_gradients_accumulate(tmp_path):
    options = ("--trainer.accumulate_grad_batches", "2", "--trainer.limit_train_batches", "5")
    launched = fit(tmp_path, *options, "--trainer.log_every_n_steps", "1")
    assert launched.code == 0, launched.err
    (name,) = {name for row in rows(tmp_path) for name in row if name.startswith("lr-") and name.endswith("1")}
    assert [row["step"] for row in rows(tmp_path) if name in row] == ["0", "1", "2"]


def test_the_warm_up_has_as_many_epochs_as_asked_for_where_max_steps_ends_the_run(tmp_path):
    """4 batches an epoch: a warm-up of one epoch has 4 steps, whatever the run's length."""
    options = ("--trainer.max_epochs", "10", "--trainer.max_steps", "6", "--trainer.limit_train_batches", "4")
    rate = ("--model.lr", "0.05", "--model.warmup_epochs", "1", "--trainer.log_every_n_steps", "1")
    launched = fit(tmp_path, *options, *rate, "--model.schedule", "constant")
    assert launched.code == 0, launched.err
    (name,) = {name for row in rows(tmp_path) for name in row if name.startswith("lr-") and name.endswith("1")}
    rates = [float(row[name]) for row in rows(tmp_path) if name in row]
    assert rates == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05, 0.05])


def test_weights_in_float64_resume_with_the_same_bits(tmp_path):
    options = ("--trainer.precision", "64-true", "--model.momentum", "0.9")
    for name, epochs in (("whole", "2"), ("broken", "1")):
        launched = fit(tmp_path, *options, "--name", name, "--trainer.max_epochs", epochs)
        assert launched.code == 0, launched.err
    whole, broken = (tmp_path / "lightning_logs" / name / "version_0" for name in ("whole", "broken"))
    again = ("--name", "broken", "--ckpt_path", str(broken))
    assert fit(tmp_path, *options, *again, "--trainer.max_epochs", "2").code == 0
    states = [harness.essence(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (whole, broken)]
    assert not harness.differences(*states)
