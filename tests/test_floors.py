"""The floors: imports go downwards only, and rooms of one floor do not import each other in a circle."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import vgg_lightning
from vgg_lightning.networks import NETWORKS

OURS = {*NETWORKS, "Classifier", "FashionMNISTDataModule"}  # before other tests add networks of theirs

PACKAGE = Path(vgg_lightning.__file__).parent
FLOORS = (
    ("base", "version"),
    ("run",),
    ("networks", "data", "training", "loading", "classifier", "show"),
    ("prepare",),
    ("cli", "presets", "find", "compare", "serve", "export", "sweep"),
    ("__init__", "__main__", "moved"),  # the package itself, which nothing imports
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
SPLIT = ("run", "data")  # whose own rooms form no circle either


def modules():
    """Return dotted name below the package -> file."""
    found = {file.relative_to(PACKAGE).with_suffix("").as_posix(): file for file in PACKAGE.rglob("*.py")}
    return {name.removesuffix("/__init__").replace("/", "."): file for name, file in found.items()}


MODULES = modules()


def imported(name, tree):
    """Yield the modules of the package that a module imports: at its top, in functions and for types alike."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
        else:
            continue
        for dotted in names:
            package, _, inner = dotted.partition(".")
            if package == "vgg_lightning":
                yield inner if inner in MODULES else inner.rpartition(".")[0] or "__init__"


GRAPH = {name: set(imported(name, ast.parse(file.read_text()))) for name, file in MODULES.items()}


def room(name):
    return name.partition(".")[0]


def place(name):
    """Return the room; of `run` and `data`, the room or file in it."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in SPLIT else parts[0]


def check_no_circle(place):
    graph = {}
    for name, others in GRAPH.items():
        graph.setdefault(place(name), set()).update(place(other) for other in others)
    TopologicalSorter({here: others - {here} for here, others in graph.items()}).prepare()  # raises CycleError


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downwards(name):
    assert room(name) in LEVEL, f"{name} belongs to no floor: give its room a place in FLOORS"
    upwards = [other for other in GRAPH[name] if LEVEL[room(other)] > LEVEL[room(name)]]
    assert not upwards, f"{name} imports {', '.join(upwards)}, of a floor above"


def test_every_room_is_there():
    assert {room(name) for name in MODULES} == set(LEVEL)


@pytest.mark.parametrize("of", [room, place])
def test_rooms_do_not_import_each_other_in_a_circle(of):
    check_no_circle(of)


def test_the_package_itself_is_imported_by_nobody():
    assert [name for name, others in GRAPH.items() if "__init__" in others] == []


def test_an_import_upwards_is_seen_wherever_it_is():
    text = """
from vgg_lightning.base.errors import UserError
if TYPE_CHECKING:
    from vgg_lightning import classifier
def late():
    import vgg_lightning.cli.entry
    importlib.import_module("vgg_lightning.prepare")
"""
    assert set(imported("x", ast.parse(text))) == {"base.errors", "classifier", "cli.entry", "prepare"}


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in ("base", "run")])
def test_the_run_kit_names_nothing_of_the_project(name):
    words = set(re.findall(r"\w+", MODULES[name].read_text()))
    assert words & OURS == set()


def test_the_ground_does_not_import_torch():
    ground = [f"vgg_lightning.{name}" for name in MODULES if room(name) == "base"]
    code = f"import sys, {', '.join(ground)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def reached(start):
    """Return the modules that `start` imports, and those that they import, itself included."""
    found, waiting = set(), [start]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += GRAPH[name]
    return found


def test_the_classifier_stands_on_little():
    """Imports inside functions and for types count, a network's own file does not. This number may only get smaller."""
    papers = {name for name in GRAPH["networks"] if name.startswith("networks.")}
    assert len(reached("classifier") - papers) <= 38


def test_the_classifier_knows_neither_where_data_comes_from_nor_what_is_shown():
    foreign = {"data.datamodule", "data.files", "data.augment", "run.loggers.tensorboard", "run.parallel.strategies"}
    behind = reached("classifier")
    assert not behind & foreign
    assert [name for name in behind if name.startswith(("data.sources", "show", "run.loggers"))] == []


def test_the_lightning_module_is_short_and_has_no_bases_but_lightnings():
    from vgg_lightning import Classifier

    assert [base for base in Classifier.__mro__ if base.__module__.startswith("vgg_lightning")] == [Classifier]
    assert len(MODULES["classifier"].read_text().splitlines()) <= 200
