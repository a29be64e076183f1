"""CONTRIBUTING.md, followed by a reader: what it adds, it adds to a copy of the package, which then works."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small import BRIEF, data_folder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in PAGE.split("\n## ")[1:] if "```bash" in text}


def blocks(text, kind):
    return re.findall(rf"```{kind}\n(.*?)```", text, flags=re.S)


def write(folder, block):
    """Write the file that the first line of a block of Python names."""
    first, _, content = block.partition("\n")
    file = folder / first.removeprefix("# ")
    assert not file.exists()
    file.write_text(content)


def change(folder, block):
    """Make the changes of a block: where the lines with ' ' and '-' stand one after the other, exactly once."""
    first, _, rest = block.partition("\n")
    file = folder / first.removeprefix("--- ")
    text = file.read_text()
    for hunk in rest.split("---\n"):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        if not text.count(before):  # the last line stands for one that begins so
            before, after = before.rstrip("\n"), after.rstrip("\n")
        assert text.count(before) == 1, (file, before)
        text = text.replace(before, after)
    file.write_text(text)


def shell(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package with everything that the page adds."""
    folder = tmp_path_factory.mktemp("contributing")
    shutil.copytree(ROOT / "vgg_lightning", folder / "vgg_lightning", ignore=shutil.ignore_patterns("__pycache__"))
    for section in SECTIONS.values():
        for block in blocks(section, "python"):
            write(folder, block)
        for block in blocks(section, "diff"):
            change(folder, block)
    return folder


@pytest.mark.parametrize("section", SECTIONS)
def test_what_the_page_adds_works(section, package):
    own = ["--data.data_dir", str(data_folder()), "--data.val_size", "64", "--data.batch_size", "16"]
    for line in "".join(blocks(SECTIONS[section], "bash")).splitlines():
        program, *words = shlex.split(line.replace("FOLDER", str(data_folder())))
        assert program == "vgg-lightning"
        if words[0] == "fit":
            words += [*BRIEF[:-2], *own] + ([] if "--data.dataset" in words else ["--data.dataset", "idx"])
        shell(package, "-m", "vgg_lightning", *words)


def test_what_the_page_adds_is_in_order(package):
    for name in ("tests", "benchmarks", "pyproject.toml"):
        (package / name).symlink_to(ROOT / name)
    shell(package, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_floors.py", "tests/test_options.py")
    shell(package, "-m", "ruff", "check", "vgg_lightning")


def test_five_ways_are_shown():
    assert list(SECTIONS) == ["A network", "An option", "A callback", "A data set", "A subcommand"]
