"""The door: light until a subcommand is known, and what `import vgg_lightning` promises."""

import subprocess
import sys
import time

import pytest

import vgg_lightning
from vgg_lightning.__main__ import SUBCOMMANDS, main


def run(*args, **kwargs):
    return subprocess.run([sys.executable, "-m", "vgg_lightning", *args], capture_output=True, text=True, **kwargs)


@pytest.mark.parametrize("args", [["--version"], ["--help"]])
def test_version_and_help_do_not_import_torch(args):
    code = f"import sys; from vgg_lightning.__main__ import main; main({args!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_version_is_quick():
    begin = time.perf_counter()
    result = run("--version")
    assert time.perf_counter() - begin < 1.0  # 0.3 s on an idle machine; tests share theirs
    assert result.stdout.strip() == f"vgg-lightning {vgg_lightning.__version__}"


def test_help_names_every_subcommand(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {subcommand} " in text for subcommand in SUBCOMMANDS)


def test_unknown_subcommand_suggests_the_nearest(capsys):
    assert main(["tset"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean test?" in error


def test_option_before_the_subcommand(capsys):
    assert main(["--config", "quick", "fit"]) == 2
    assert "must come after the subcommand" in capsys.readouterr().err


@pytest.mark.parametrize("name", vgg_lightning.__all__)
def test_public_names_exist(name):
    assert getattr(vgg_lightning, name)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        vgg_lightning.nope  # noqa: B018
