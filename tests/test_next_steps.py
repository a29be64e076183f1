"""What stands under `next:` works as printed, in the folder where it is printed."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "reliability"))
from small import fit

from vgg_lightning.base import text

NOTEBOOK = "notebooks/01_reuse_a_checkpoint.ipynb"


def next_steps(launched):
    return [line.strip().split() for line in launched.out.partition("\nnext:\n")[2].splitlines()]


@pytest.mark.parametrize("cloned", [True, False])
def test_the_notebook_is_named_where_it_is(cloned, tmp_path):
    if cloned:
        (tmp_path / "notebooks").mkdir()
        (tmp_path / NOTEBOOK).write_text("{}")
    launched = fit(tmp_path)
    assert launched.code == 0, launched.err
    steps = next_steps(launched)
    assert all(shutil.which(program) for program, *_ in steps)
    assert ([NOTEBOOK] in [words[-1:] for words in steps]) == cloned
    assert all((tmp_path / words[-1]).exists() for words in steps)


def test_where_no_script_was_installed_python_runs_the_package(monkeypatch, tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "")
    assert text.program("vgg-lightning") == f"{python} -m vgg_lightning"
    assert text.program("tensorboard") == f"{python} -m tensorboard.main"
    assert text.program("jupyter") == "jupyter"
    (python.parent / "vgg-lightning").touch(mode=0o755)
    assert text.program("vgg-lightning") == str(python.parent / "vgg-lightning")
    monkeypatch.chdir(tmp_path)
    assert text.program("vgg-lightning") == str(Path("bin/vgg-lightning"))
    monkeypatch.setenv("PATH", str(python.parent))
    assert text.program("vgg-lightning") == "vgg-lightning"
