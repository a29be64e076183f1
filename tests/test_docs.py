"""What README.md and the pages in docs/ say works: commands and Python run, files and links exist.

For who writes a page: a command is what stands in a ```bash block or in `inline code` and begins with one of PROGRAMS.
`vgg-lightning` commands are run in a folder like a clone (see `clone`), shortened by SHORTER. A command with a word in
capitals, such as RUN, is a form, and so is a lone subcommand on a page in docs/: only its name is looked at. What
cannot be run here goes into a ```text block.
"""

import importlib.util
import re
import shlex
import shutil
import sys
from typing import NamedTuple

import numpy as np
import pytest
from pages import ROOT, blocks_of, lines_of
from PIL import Image
from shapes import draw_shapes

from vgg_lightning.__main__ import SUBCOMMANDS, main
from vgg_lightning.data.files import DATASETS
from vgg_lightning.networks import NETWORKS

PAGES = [
    page
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "benchmarks/README.md"]
    if page.is_file()
]

# Programs that are recognised and not run, as they ask a person, the network or the machine.
PROGRAMS = {
    *("tensorboard", "jupyter", "pip", "source", "cd", "git", "export", "eval", "sudo", "ls", "cat", "curl", "ruff"),
    *("torchrun", "sbatch", "docker", "python"),
}
# subcommand, alone or with the word behind it -> options that make it quick; what is not here is run as it stands.
SHORTER: dict[str, list[str]] = {
    "fit": ["--trainer.fast_dev_run", "true", "--data.batch_size", "4"],
    "test": ["--trainer.limit_test_batches", "1"],
    "validate": ["--trainer.limit_val_batches", "1"],
    "predict": ["--trainer.limit_predict_batches", "2"],
    "sweep": [
        *("--trials", "1", "--trainer.max_epochs", "1", "--model.ratio", "32"),
        *("--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"),
    ],
    "find lr": ["--steps", "30", "--model.ratio", "32"],
    "find batch_size": ["--max_size", "16", "--model.ratio", "32"],
    "compare": ["--ratio", "16", "--hidden_units", "8", "--image_size", "96", "--batch_size", "2", "--batches", "1"],
}
ONLY_HELP = {"serve": "it never ends"}
# Data that cannot be had here, and more processes than one: fit is parsed and not run.
ONLY_PARSED = r"--data\.dataset[ =](mnist|kmnist|emnist_\w+)|--trainer\.(devices|num_nodes)"
VGG = r"--model\.network[ =]vgg|--config[ =]sources/s4"  # so much of the width that it takes seconds
BRIEF = [*(f"--trainer.limit_{stage}_batches=1" for stage in ("train", "val", "test")), "--trainer.max_epochs=1"]
ADVICE = "mend the page, add to SHORTER in tests/test_docs.py, or put what cannot run here into a ```text block"


class Command(NamedTuple):
    page: str
    text: str


def commands() -> list[Command]:
    """Return every distinct command of all pages with the first page that has it."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        blocks += ["\n".join(re.findall(r"^\$ (.*)$", text, re.MULTILINE))]  # of a ```console block, with its answers
        inline = re.findall(r"`((?:vgg-lightning [a-z]|make [a-z]|python -m )[^`\n]*)`", prose)
        for command in [*inline, *(line for block in blocks for line in lines_of(block))]:
            found.setdefault(command.strip(), page.relative_to(ROOT).as_posix())
    return [Command(page, text) for text, page in found.items()]


COMMANDS = commands()


@pytest.fixture
def clone(tmp_path, monkeypatch, fashion_mnist_dir):
    """A folder like a clone: runs, yours.yaml, shirt.png, my_pictures/*.png, clothes/train/bag/*.png, shapes."""
    for name in ("lightning_logs/reference", "lightning_logs/quick", "lightning_logs/shapes"):
        shutil.copytree(ROOT / "lightning_logs/reference", tmp_path / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.png"))
    shutil.copy(ROOT / "vgg_lightning/presets/quick.yaml", tmp_path / "yours.yaml")
    random = np.random.default_rng(0)
    places = [
        "",
        "my_pictures",
        *(f"clothes/{split}/{name}" for split in ("train", "test") for name in ("bag", "shirt")),
    ]
    for place in places:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name in ("shirt", "one", "two", "three") if place else ("shirt",):
            Image.fromarray(random.integers(0, 255, (40, 30, 3), np.uint8)).save(tmp_path / place / f"{name}.png")
    draw_shapes(tmp_path / "shapes", count=10)
    (tmp_path / "mine.py").write_text(blocks_of(ROOT / "docs/extend.md")[0])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)
    for table in (NETWORKS, DATASETS):
        for name in table.keys() - table.shipped:
            del table[name]


def shortened(args: list[str]) -> list[str]:
    """Return the arguments of `vgg-lightning` so that they take seconds."""
    subcommand = args[0]
    if subcommand in ONLY_HELP or "--help" in args:
        return [subcommand, "--help"]
    if subcommand == "fit" and re.search(ONLY_PARSED, " ".join(args)):
        return [*args, "--print_config"]
    if subcommand == "fit" and "--resume" in args:
        return [*args, *BRIEF]
    if subcommand == "fit" and re.search(VGG, " ".join(args)):
        args = [*args, "--model.ratio", "4"]
    return [*args, *SHORTER.get(" ".join(args[:2]), SHORTER.get(subcommand, []))]


def run(text: str, in_readme: bool) -> int:
    args = shlex.split(text)
    args = args[3:] if args[:3] == ["python", "-m", "vgg_lightning"] else args[1:]
    assert args[0] in SUBCOMMANDS or args[0].startswith("-"), f"there is no subcommand {args[0]!r}"
    if any(re.fullmatch(r"[A-Z][A-Z_]+(/.*)?", arg) for arg in args) or (len(args) == 1 and not in_readme):
        return 0
    if "--resume" in args:  # with something to resume: a run that is finished says so
        others = [arg for arg in args[1:] if arg != "--resume"]
        assert main(["fit", *others, *BRIEF]) == 0
    try:
        return main(shortened(args))
    except SystemExit as stop:  # of --help and --print_config
        return int(stop.code or 0)


WITH_IMPORT = [c for c in COMMANDS if "--import" in c.text]  # in order, in an empty folder: tests/test_extend.py
OURS = [
    c
    for c in COMMANDS
    if re.match(r"(\.venv/bin/)?vgg-lightning |python -m vgg_lightning ", c.text) and c not in WITH_IMPORT
]
OTHERS = [c for c in COMMANDS if c not in OURS + WITH_IMPORT]


@pytest.mark.parametrize("command", OURS, ids=lambda command: f"{command.page}: {command.text}")
def test_our_commands_run(command, clone, capsys):
    code = run(command.text, command.page == "README.md")
    said = capsys.readouterr()
    assert code == 0, f"{command.page}: `{command.text}` ends with {code}: {said.err[-500:]}\n{ADVICE}"


@pytest.mark.parametrize("command", OTHERS, ids=lambda command: f"{command.page}: {command.text}")
def test_other_commands_are_known(command):
    words = [word for word in shlex.split(command.text) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    program = words[0].rpartition("/")[2] if words else "export"
    if program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (word for word in words[1:] if "=" not in word and not word.startswith("-")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{command.page}: the Makefile has no {target}"
    elif words[1:2] == ["-m"] and program.startswith("python"):
        assert importlib.util.find_spec(words[2]), f"{command.page}: there is no module {words[2]}"
    elif program != "vgg-lightning":
        assert program in PROGRAMS, f"{command.page}: what is {program!r}? {ADVICE}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, clone, capsys, monkeypatch):
    """From top to bottom, as one who types it in does; the answer of a print is in the comment beside it."""
    monkeypatch.syspath_prepend(clone)  # as in a Python that is started there
    for command in OURS:  # which make the files that the Python opens
        if command.page == page.relative_to(ROOT).as_posix() and " export " in command.text:
            assert run(command.text, in_readme=False) == 0, command.text
    capsys.readouterr()
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks_of(page):
        exec(compile(block, str(page), "exec"), names)
        printed = capsys.readouterr().out
        for answer in re.findall(r"^\s*print\(.*\)  # (.*)$", block, re.MULTILINE):
            assert answer in printed, f"{page.name} says {answer!r}, it printed {printed!r}"


def test_the_page_on_own_images_runs_from_top_to_bottom(clone, capsys):
    """Each command works on what the ones before it have made."""
    shutil.rmtree(clone / "lightning_logs/shapes")
    section = (ROOT / "docs/train.md").read_text(encoding="utf-8").partition("## Your own images")[2]
    blocks = re.findall(r"^```bash\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line)[1:] for block in blocks for line in lines_of(block)]
    assert [line[0] for line in lines] == ["data", "fit", "test", "predict", "export", "serve"]
    for line in lines[:-2]:
        assert main([*line, *(["--trainer.max_epochs", "1"] if line[0] == "fit" else [])]) == 0, line
    said = capsys.readouterr().out
    assert "contact sheet: contact_sheet.png" in said
    assert "% on 8 held-out images of shapes" in said
    for line in lines[-2:]:
        run = next(word for word in line if word.startswith("lightning_logs/"))
        assert (clone / run / "checkpoints/best.ckpt").is_file()


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_links_exist(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:vgg_lightning|notebooks|tests|benchmarks|docs)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}, which does not exist"
    for link in re.findall(r"\]\(((?!\w+:)[^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        if anchor and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name} links to {link}: no such heading"


def test_every_page_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in ROOT.glob("docs/*.md"):
        assert f"docs/{page.name}" in text, f"README.md does not link to docs/{page.name}"
