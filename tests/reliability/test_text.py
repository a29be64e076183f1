"""Text from files: on the terminal, in CSV files, on the page and in TensorBoard it is shown, and does nothing."""

import ast
import csv
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from small import NETWORK, data_options, fit, fit_line, launch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vgg_lightning import load_classifier
from vgg_lightning.__main__ import main
from vgg_lightning.base.text import FORMULA, csv_cell, csv_text, markdown, say, table

ROOT = Path(__file__).parents[2]
TITLE = "\x1b]0;pwned\x07\x1b[2J"
NAMES = [TITLE, "=cmd|'/c calc'!A1", "@SUM(1)", "-1+2", "+3", "a\nb", "\u202eabc", "été 日本", "tab\tand\rreturn", "z"]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose classes have names that would do something."""
    folder = tmp_path_factory.mktemp("text")
    assert fit(folder).code == 0
    got = next(folder.rglob("version_0"))
    for file in (got / "checkpoints").glob("*.ckpt"):
        checkpoint = torch.load(file, weights_only=True)
        checkpoint["class_names"] = NAMES
        if "datamodule_hyper_parameters" in checkpoint:
            checkpoint["datamodule_hyper_parameters"]["classes"] = NAMES
        torch.save(checkpoint, file)
    (got / "config.yaml").unlink()
    return got


def is_quiet(said):
    return not CONTROL.search(said.out + said.err)


def options():
    return [*data_options()]


def test_what_the_commands_print_moves_no_cursor(run, tmp_path):
    for args in (["test"], ["validate"], ["predict"], ["fit", *NETWORK, "--trainer.max_epochs", "2", "--show", "all"]):
        said = launch([args[0], "--ckpt_path", str(run), *args[1:], *options()], tmp_path)
        assert said.code == 0, said
        assert is_quiet(said), said
        if args[0] == "test":
            assert r"\x1b]0;pwned\x07\x1b[2J" in said.out


def test_no_cell_of_a_table_is_a_formula(run, tmp_path):
    Image.linear_gradient("L").save(tmp_path / "=1+1.png")
    for own in ([], ["--data.predict_path", str(tmp_path), "--top_k", "10"]):
        said = launch(["predict", "--ckpt_path", str(run), "--output", str(tmp_path), *options(), *own], tmp_path)
        assert said.code == 0, said
        text = (tmp_path / "predictions.csv").read_text()
        assert not CONTROL.search(text)
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert cells
        assert not [cell for cell in cells if cell.startswith(FORMULA)]
    assert any("'=cmd" in cell for cell in cells)


def test_tensorboard_has_the_names_with_escapes(run, tmp_path):
    said = fit(tmp_path, "--ckpt_path", str(run), "--trainer.max_epochs", "3", "--show", "curves")
    assert said.code == 0, said
    events = EventAccumulator(str(run))
    events.Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("val_curve/")]
    assert any("pwned" in tag for tag in tags)
    assert not any(CONTROL.search(tag) for tag in tags)


def test_the_page_shows_names_with_escapes(run):
    pytest.importorskip("gradio")
    from vgg_lightning.serve.command import classify

    buffer = io.BytesIO()
    Image.linear_gradient("L").save(buffer, "PNG")
    classes, *_ = classify(load_classifier(run), buffer.getvalue())
    assert len(classes) == len(NAMES)
    assert not any(CONTROL.search(name) for name in classes)


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1", "utf-8", "cp437", "utf-8:strict"])
def test_every_terminal_shows_something(run, encoding, tmp_path):
    code = f"""
import sys
from vgg_lightning.__main__ import main
sys.exit(main(["test", "--ckpt_path", {str(run)!r}, *{options()!r}]))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"pwned" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp437"])
def test_a_lone_surrogate_is_shown_as_an_escape(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    say("name \udcff\nand \ud83d 日本", stream)
    text = raw.getvalue().decode(encoding)
    assert text.startswith("name \\udcff\nand \\ud83d")
    assert ("日本" in text) == (encoding == "utf-8")


def test_no_table_lets_a_name_out():
    rows = [(name, 1) for name in NAMES]
    for form in (table, markdown, csv_text):
        assert not CONTROL.search(form(["class", "n"], rows))
    assert len(table(["class", "n"], rows).splitlines()) == 2 + len(rows)
    assert csv_cell("=1") == "'=1"
    assert csv_cell("shirt") == "shirt"
    assert csv_text(["a"], [(-1.5,)]) == "a\n-1.5"


def test_a_mistake_in_a_name_is_one_line(tmp_path):
    said = launch(["test", "--ckpt_path", f"no{TITLE}\nwhere"], tmp_path)
    assert said.code == 2
    assert is_quiet(said)
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("module", ["loading/load", "export/command", "sweep/command", "sweep/trial", "show/base"])
def test_no_name_is_printed_as_it_is(module):
    """What they print has names and reasons from files: `say` shows it."""
    tree = ast.parse((ROOT / "vgg_lightning" / f"{module}.py").read_text())
    calls = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert "print" not in calls
    assert "say" in calls


def test_a_path_that_moves_the_cursor_is_shown_with_escapes(run, tmp_path):
    place = tmp_path / f"a{TITLE.replace('/', '')}"
    shutil.copytree(run, place / "got")
    said = fit(tmp_path, "--model.weights", str(place / "got"), "--data.classes", "null")
    assert said.code == 0, said
    assert r"weights: " in said.out
    assert is_quiet(said)
    assert r"\x1b[2J" in said.out
    pytest.importorskip("safetensors")
    said = launch(["export", str(run), "--output", str(place / "m.safetensors")], tmp_path)
    assert said.code == 0, said
    assert is_quiet(said)
    assert r"\x1b[2J" in said.out


def test_what_cannot_be_shown_says_why_with_escapes(capsys):
    from types import SimpleNamespace

    from vgg_lightning.show.base import Show

    def draw(*_):
        raise ValueError(TITLE)

    logger = SimpleNamespace(write=lambda log: log(None))
    trainer = SimpleNamespace(is_global_zero=True, global_step=1, loggers=[logger])
    shows = Show()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vgg_lightning.show.base.boards.show", lambda trainer, log, *_: log(None))
        shows.attempt(trainer, draw)
    said = capsys.readouterr().err
    assert not CONTROL.search(said)
    assert r"Show is not shown: ValueError: \x1b]0;pwned" in said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_run_is_shown_on_a_terminal_of_any_encoding(tmp_path, monkeypatch, encoding):
    folder = tmp_path / "été 日本"
    folder.mkdir()
    monkeypatch.chdir(folder)
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=e) for e in ("strict", "backslashreplace")]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    root = str(folder)
    code = main([*fit_line(), "--show", "none", "--trainer.default_root_dir", root])
    code += main(["predict", "--ckpt_path", f"{root}/lightning_logs/quick/version_0", *options()])
    assert code == 0
    for stream in streams:
        stream.flush()
    said = streams[0].buffer.getvalue().decode(encoding)
    assert r"\u65e5\u672c" in said
    assert "test accuracy" in said
