"""What installs the project or a part of it works where it is printed; nothing names an address that there is not."""

import re
import tomllib
from pathlib import Path

import yaml

import vgg_lightning
from vgg_lightning.base import text
from vgg_lightning.version import ADDRESS

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


def test_the_address_of_the_project_is_stated_once():
    """`ADDRESS` in version.py; once it has one, this says which pages and files have to name it."""
    pages = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/install.md")}
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    notebooks = [file.read_text(encoding="utf-8") for file in (ROOT / "notebooks").glob("*.ipynb")]
    assert notebooks
    told = f"%pip install git+{ADDRESS}" if ADDRESS else "copy the project's folder to this machine, then %pip install"
    assert all(told in notebook for notebook in notebooks)  # in the first cell, for Colab and the like
    if ADDRESS:
        assert set(urls.values()) >= {ADDRESS}
        assert all(f"git clone {ADDRESS}" in page for page in pages.values())
        assert "no public address" not in pages["docs/install.md"]
        return
    assert urls == {}
    assert "The project has no public address yet: copy the folder" in pages["docs/install.md"]
    for file in WRITTEN:
        found = re.findall(
            r"git clone (?:https?:|git@)\S*|colab\.research\.google\.com\S*", file.read_text(encoding="utf-8")
        )
        assert found == [], file.name


def test_the_hosted_check_names_three_systems_and_four_versions_of_python():
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))["jobs"]
    systems = {jobs["linux"]["runs-on"], *jobs["others"]["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu-latest", "macos-latest", "windows-latest"}
    versions = ["3.11", "3.12", "3.13", "3.14"]
    assert all(job["strategy"]["matrix"]["python"] == versions for job in jobs.values())
    for job in jobs.values():
        for path in re.findall(r"tests/[\w/.]+", " ".join(step.get("run", "") for step in job["steps"])):
            assert (ROOT / path).exists()


def test_the_page_of_installation_names_every_extra():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert set(re.findall(r'"\.\[(\w+)\]"', page)) == set(wanted) - {"dev"}
