"""A network that stays at chance is told so once, with what helps; one that learns hears nothing."""

import math

import pytest
from small import fit

from vgg_lightning.training.metrics import at_chance

LONGER = [
    "--trainer.limit_train_batches",
    "28",
    "--trainer.max_epochs",
    "4",
    "--trainer.logger",
    "false",
    "--test",
    "false",
]
PLAIN = [
    *("--model.batch_norm", "false", "--model.ratio", "64", "--model.head", "classic", "--model.hidden_units", "32"),
    *("--model.label_smoothing", "0", "--model.schedule", "constant", "--model.lr", "0.05"),
]


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_plain_deep_vgg_is_told_once(tmp_path, network):
    launched = fit(tmp_path, *LONGER, *PLAIN, "--model.network", network)
    assert launched.code == 0
    (note,) = [line for line in launched.out.splitlines() if line.startswith("note:")]
    assert "--model.init xavier" in note
    assert "--model.batch_norm true" in note
    assert "--model.lr" in note


def test_learning_network_hears_nothing(tmp_path):
    launched = fit(tmp_path, *LONGER, "--model.batch_norm", "true", "--model.warmup_epochs", "0")
    assert launched.code == 0
    assert "chance" not in launched.out


@pytest.mark.parametrize(
    ("loss", "right", "seen", "expected"),
    [
        (math.log(10), 100, 1000, True),
        (math.log(10) - 0.02, 120, 1000, True),
        (math.log(10), 400, 1000, False),
        (2.2, 110, 1000, False),
        (math.log(10), 0, 0, False),
    ],
)
def test_chance_is_near_guessing(loss, right, seen, expected):
    assert at_chance(loss, right, seen, 10) is expected
