"""What README.md says works: its commands parse, its Python runs, its files exist."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vgg_lightning.__main__ import VERBS, main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
FAST = [f"--trainer.limit_{stage}_batches=1" for stage in ("train", "val", "test")]
COMMANDS = sorted(set(re.findall(r"`(vgg-lightning [a-z][^`]*)`", TEXT)))


@pytest.fixture
def clone(tmp_path, monkeypatch, fashion_mnist_dir):
    """A folder like a clone in which runs may be written."""
    for name in ("lightning_logs/reference", "lightning_logs/quick"):
        shutil.copytree(ROOT / "lightning_logs/reference", tmp_path / name)
    shutil.copy(ROOT / "vgg_lightning/configs/quick.yaml", tmp_path / "yours.yaml")
    monkeypatch.chdir(tmp_path)


def serves(args):
    """Whether a server starts, says where it is, and ends on SIGTERM."""
    command = [sys.executable, "-m", "vgg_lightning", *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        line = process.stdout.readline()
        process.terminate()
        return "http://127.0.0.1:" in line and process.wait(60) == 143


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command, clone, capsys):
    args = shlex.split(command)[1:]
    if args[0] == "serve":
        assert serves([*args, "--port", "0"])
        return
    if "--resume" in args:  # with something to resume: a run that is finished says so
        assert main([*args[:1], *FAST, "--trainer.max_epochs", "1"]) == 0
        args += [*FAST, "--trainer.max_epochs", "1"]
    elif args[0] == "fit":
        args += ["--trainer.fast_dev_run", "true", "--data.batch_size", "4", "--model.ratio", "4"]
    if args[0] == "sweep":  # it may write where it is, and do little
        args[1] = str(ROOT / args[1])
        args += ["--trials", "1", "--trainer.max_epochs", "1", "--model.ratio", "32"]
        args += FAST[:2]
    if args[0] == "predict":
        args += ["--trainer.limit_predict_batches", "2", "--trainer.default_root_dir", "."]
    if args[0] == "compare":
        args += ["--ratio", "16", "--hidden_units", "8", "--image_size", "96", "--batch_size", "2", "--batches", "1"]
    assert main(args) == 0, capsys.readouterr().err


def test_every_verb_is_told_of():
    told = {command.split()[1] for command in COMMANDS}
    assert set(VERBS) - told <= {"validate"}


def test_the_python_of_the_page_runs(clone, capsys):
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(compile(block, "README.md", "exec"), {})
        printed = capsys.readouterr().out.strip()
        assert printed in block  # the answer is in the comment beside the call


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)", TEXT)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_files_and_folders_exist():
    for path in re.findall(r"`((?:vgg_lightning|notebooks|tests|benchmarks)/[\w./-]*)`", TEXT):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", TEXT):
        assert (ROOT / path).exists(), path
