"""Every preset that is shipped: found, parsed, and run for a step."""

import pytest
import torch

from vgg_lightning.__main__ import main
from vgg_lightning.base.errors import UserError
from vgg_lightning.presets import find_config, header, presets


def test_the_expected_presets_are_there():
    assert {
        "quick",
        "speedrun",
        "record",
        "small",
        "record-cpu",
        "debug/overfit",
        "sources/s2-vgg",
        "sources/s4-96",
    } <= presets().keys()


@pytest.mark.parametrize("name", presets())
def test_header_says_what_it_is_and_how_to_run_it(name):
    fields = header(presets()[name])
    assert fields["about"].endswith(".")
    command = "vgg-lightning fit" if name == "quick" else f"vgg-lightning fit --config {name}"
    assert fields["command"] == command
    assert fields["cost"]
    assert fields["reaches"]


@pytest.mark.parametrize("name", presets())
def test_every_preset_runs(fashion_mnist_dir, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(2)
    assert main(["fit", "--config", name, "--trainer.fast_dev_run", "true", "--data.batch_size", "2"]) == 0
    assert not (tmp_path / "lightning_logs").exists()


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UserError, match="did you mean quick"):
        find_config("quik")


def test_presets_lists_each(capsys):
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(presets()) <= {line.split()[0] for line in lines if line}
