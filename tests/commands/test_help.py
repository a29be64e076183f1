"""`--help` of the subcommands that train or use a checkpoint, and `--resume` without a name."""

import os
import re
import shutil
from pathlib import Path

import pytest
from small import NETWORK, data_options, fit, launch, one_line

from vgg_lightning.base.text import narrow_table, table
from vgg_lightning.cli.help import SHORT
from vgg_lightning.presets import presets
from vgg_lightning.training.run_options import GROUPS


def help_of(tmp_path, *args):
    launched = launch([*args], tmp_path)
    assert launched.code == 0, launched.err
    return launched.out


def shown(text):
    """Return option -> value of a help text."""
    return dict(re.findall(r"^  --([\w.]+) ?((?:\S+ )*\S+|)(?:  |$)", text, re.MULTILINE))


def test_help_of_fit_fits_one_screen_and_shows_the_values_of_the_default_preset(tmp_path):
    text = help_of(tmp_path, "fit", "--help")
    assert len(text.splitlines()) <= 50
    assert max(map(len, text.splitlines())) <= 100
    values = shown(text)
    assert values["config"] == "quick"
    assert (values["model.lr"], values["model.ratio"], values["model.head"]) == ("0.1", "4", "gap")
    assert (values["trainer.max_epochs"], values["data.batch_size"]) == ("5", "128")
    assert "--help all" in text


def test_help_shows_the_values_that_this_command_line_would_use(tmp_path):
    text = help_of(tmp_path, "fit", "--config", "sources/s2-lenet", "--model.lr", "0.25", "--help")
    values = shown(text)
    assert (values["config"], values["model.network"], values["model.lr"]) == ("sources/s2-lenet", "lenet", "0.25")


@pytest.mark.parametrize("subcommand", SHORT)
def test_help_all_names_every_option_and_stays_within_100_columns(tmp_path, subcommand):
    text = help_of(tmp_path, subcommand, "--help", "all")
    assert max(len(line) for line in text.splitlines() if "/" not in line) <= 100
    named = set(shown(text))
    linked = {f"{group}.{name}" for group, rows in GROUPS.items() for name, row in rows.items() if row.follows}
    expected = {f"{group}.{name}" for group in ("model", "data", "trainer") for name in GROUPS[group]} - linked
    assert expected <= named
    assert set(SHORT[subcommand]) <= named
    assert set(GROUPS["fit"]) <= named or subcommand != "fit"


def test_help_of_a_group_has_the_options_of_that_group_alone(tmp_path):
    named = shown(help_of(tmp_path, "fit", "--help", "data"))
    assert named
    assert all(name.startswith("data.") for name in named)


def test_help_does_not_ask_for_a_checkpoint(tmp_path):
    assert "--ckpt_path" in help_of(tmp_path, "test", "--help")


def test_another_word_behind_help_is_refused(tmp_path):
    assert "did you mean model?" in one_line(launch(["fit", "--help", "modle"], tmp_path))


# The presets.


def test_presets_are_a_table_of_100_columns_with_the_default_marked(tmp_path):
    text = help_of(tmp_path, "presets")
    assert max(map(len, text.splitlines())) <= 100
    rows = [line.split("  ")[0] for line in text.splitlines()[2:-2]]
    assert rows == [f"{name}{' *' if name == 'quick' else ''}" for name in presets()]


def test_a_preset_is_described_by_its_name(tmp_path):
    text = help_of(tmp_path, "presets", "speedrun94")
    assert "command: vgg-lightning fit --config speedrun94" in text
    assert "record-cpu" not in text
    assert "did you mean quick?" in one_line(launch(["presets", "qick"], tmp_path))


# --resume without a name.


@pytest.fixture
def interrupted(tmp_path):
    """Return a folder with a finished run of the default name and an older, unfinished one of another name."""
    for name in ("mine", "quick"):
        assert fit(tmp_path, "--name", name).code == 0
    (tmp_path / "lightning_logs/mine/version_0/results.json").unlink()
    return tmp_path


RESUME = ["fit", "--resume", "--trainer.max_epochs", "2"]


def test_resume_without_a_name_takes_the_newest_unfinished_run_and_says_which(interrupted):
    launched = launch(RESUME, interrupted)
    assert launched.code == 0, launched.err
    run = Path("lightning_logs/mine/version_0")
    assert f"resuming {run}, the newest run that is not finished" in launched.out
    assert (interrupted / run / "results.json").is_file()
    assert not (interrupted / "lightning_logs/quick/version_1").exists()


def test_resume_with_a_name_takes_that_run(interrupted):
    launched = launch([*RESUME, "--name", "quick", *data_options(), *NETWORK], interrupted)
    assert launched.code == 0, launched.err
    assert "resuming" not in launched.out
    assert not (interrupted / "lightning_logs/mine/version_0/results.json").exists()


def test_a_run_that_trained_after_its_results_is_not_finished(interrupted):
    newest = interrupted / "lightning_logs/quick/version_0"
    os.utime(newest / "checkpoints/last.ckpt")
    launched = launch(RESUME, interrupted)
    assert f"resuming {Path('lightning_logs/quick/version_0')}" in launched.out


def test_resume_where_all_runs_are_finished_says_so(interrupted):
    shutil.rmtree(interrupted / "lightning_logs/mine")
    launched = launch(["fit", "--resume"], interrupted)
    assert launched.code == 0
    assert "is finished" in launched.out


# Tables of a search.


def test_a_table_that_is_too_wide_leaves_out_columns_and_says_where_they_are():
    header = ("trial", *(f"a_long_option_{i}" for i in range(8)))
    text = narrow_table(header, [tuple(map(str, range(9)))] * 3, 100, "trials.csv")
    assert max(map(len, text.splitlines()[:-1])) <= 100
    shown = text.splitlines()[0].split()
    assert text.splitlines()[-1] == f"{', '.join(header[len(shown) :])}: in trials.csv"
    assert narrow_table(("a", "b"), [("1", "2")], 100, "trials.csv") == table(("a", "b"), [("1", "2")])
