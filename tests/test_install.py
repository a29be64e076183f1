"""What installs a part of the project is true where it is printed; nothing names an address that there is not."""

import re
import tomllib
from pathlib import Path

import vgg_lightning
from vgg_lightning.base import text

ROOT = Path(__file__).parents[1]
WRITTEN = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("notebooks/*.ipynb"),
    *Path(vgg_lightning.__file__).parent.rglob("*.py"),
]


def test_nothing_tells_to_install_this_project_from_an_index():
    """It is on none: who follows such a line gets an error, or what somebody else has put there."""
    lines = [f"{file.name}: {line}" for file in WRITTEN for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if re.search(r"pip install [^#\n]*\bvgg-lightning", line)] == []


def test_in_the_folder_of_the_project_an_extra_is_installed_by_a_dot(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert text.install_line("serve") == 'pip install -e ".[serve]"'
    monkeypatch.chdir(tmp_path)
    assert text.install_line("serve") == f'pip install -e "{ROOT}[serve]"'


def test_an_installed_package_names_what_the_extra_brings(monkeypatch, tmp_path):
    monkeypatch.setattr(text, "ROOT", tmp_path)
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    line = text.install_line("serve")
    assert line.startswith("pip install ")
    assert re.findall(r'"(.*?)"', line) == wanted["serve"]
