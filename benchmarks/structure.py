"""How the package is built, in numbers: `python -m benchmarks.structure --base ../OTHER_CHECKOUT`.

Everything is read from the source with `ast`. Imports count wherever they stand: at the top of a
module, inside a function, for types alone, or as a name given to `import_module`.

    modules, lines, statements       of the package (a statement is an `ast.stmt`, docstrings left out)
    functions, private, called once  functions and methods; those that begin with one underscore; of these, those whose
                                     name stands once beside their definition
    modules behind Classifier        all that `vgg_lightning.classifier` reaches through imports, itself included
    largest circle of rooms          rooms (the first part of a module's name) that import each other in a circle
    private interfaces               lines that use a name with an underscore of something else, outside of the modules
                                     that are kept for that (`*_private`), and in how many modules
    methods of LightningCLI          overridden in the package, hooks included, and those of them that are private
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch.cli import LightningCLI

from benchmarks.runner import ROOT

Graph = dict[str, set[str]]
Function = ast.FunctionDef | ast.AsyncFunctionDef
# What a subclass of LightningCLI can override; it looks the last ones up by name.
CLI_METHODS = {name for name in dir(LightningCLI) if not name.startswith("__")} | {
    *("fit", "validate", "test", "predict"),
    *(f"{when}_{what}" for when in ("before", "after") for what in ("fit", "validate", "test", "predict")),
}
DOCUMENTED = {"_exit", "_asdict", "_fields", "_replace"}  # underscores that Python itself documents


class Package:
    """The sources of the package in a checkout.

    Args:
        checkout: its folder.
    """

    def __init__(self, checkout: Path) -> None:
        root = checkout / "vgg_lightning"
        files = sorted(root.rglob("*.py"))
        if not files:
            raise SystemExit(f"error: {checkout} holds no vgg_lightning: give the folder of a checkout")
        names = [file.relative_to(root).with_suffix("").as_posix().replace("/", ".") for file in files]
        self.names = [name.removesuffix(".__init__") for name in names]
        self.texts = [file.read_text(encoding="utf-8") for file in files]
        self.trees = dict(zip(self.names, map(ast.parse, self.texts), strict=True))

    def imports(self) -> Graph:
        """Return module -> the modules of the package that it imports."""
        return {name: set(self._imported(tree)) & set(self.names) for name, tree in self.trees.items()}

    def _imported(self, tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            found: list[str] = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                found = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            for name in found:
                package, _, inner = name.partition(".")
                if package == "vgg_lightning":
                    yield inner if inner in self.trees else inner.rpartition(".")[0] or "__init__"

    def nodes(self) -> Iterator[ast.AST]:
        """Yield every node of every module."""
        for tree in self.trees.values():
            yield from ast.walk(tree)

    def functions(self) -> list[Function]:
        """Return all functions and methods."""
        return [node for node in self.nodes() if isinstance(node, Function)]


def reached(graph: Graph, start: str) -> set[str]:
    """Return all modules that `start` imports, and those that they import, itself included."""
    found, waiting = set[str](), [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name]
    return found


def largest_circle(graph: Graph) -> set[str]:
    """Return the largest set of rooms of which each reaches every other one, empty if there is none."""
    rooms: Graph = {}
    for name, others in graph.items():
        room = name.partition(".")[0]
        rooms.setdefault(room, set()).update({other.partition(".")[0] for other in others} - {room})
    closure = {room: reached(rooms, room) for room in rooms}
    circles = [{other for other in closure[room] if room in closure[other]} for room in rooms]
    largest = max(circles, key=len)
    return largest if len(largest) > 1 else set()


def statements(package: Package) -> int:
    """Return the number of statements, docstrings left out."""
    found = [node for node in package.nodes() if isinstance(node, ast.stmt)]
    texts = [node for node in found if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    return len(found) - sum(
        isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) for node in texts
    )


def called_once(package: Package, names: set[str]) -> int:
    """Return how many of these functions have a name that stands in one place beside their definition."""
    used = [node.id for node in package.nodes() if isinstance(node, ast.Name)]
    used += [node.attr for node in package.nodes() if isinstance(node, ast.Attribute)]
    counts = Counter(name for name in used if name in names)
    return sum(counts[name] == 1 for name in names)


def private_interfaces(package: Package) -> dict[str, int]:
    """Return module -> lines in which it uses a name with an underscore of something that is not its own."""
    found = {}
    outside = {name: tree for name, tree in package.trees.items() if not name.endswith("_private")}
    for name, tree in outside.items():
        lines = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_foreign(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("vgg_lightning"):
                lines |= {node.lineno for alias in node.names if _is_private(alias.name)}
        if lines:
            found[name] = len(lines)
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def _is_foreign(node: ast.Attribute) -> bool:
    return _is_private(node.attr) and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))


def cli_methods(package: Package) -> list[str]:
    """Return the methods of LightningCLI that classes of the package override, each as often as it is overridden."""
    classes = [node for tree in package.trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    family = {"LightningCLI"}
    found: list[str] = []
    for _ in range(3):  # subclasses of subclasses
        family |= {c.name for c in classes if family & {ast.unparse(base).rpartition(".")[2] for base in c.bases}}
    for node in classes:
        if node.name in family:
            for item in node.body:
                if isinstance(item, ast.FunctionDef):
                    found += [item.name] if item.name in CLI_METHODS else []
                elif isinstance(item, ast.Assign):
                    found += [t.id for t in item.targets if isinstance(t, ast.Name) and t.id in CLI_METHODS]
    return found


def measures(checkout: Path) -> dict[str, str]:
    """Return what is measured -> its value in words."""
    package = Package(checkout)
    graph, functions = package.imports(), package.functions()
    private = {function.name for function in functions if _is_private(function.name)}
    circle, inner, methods = largest_circle(graph), private_interfaces(package), cli_methods(package)
    classifier = reached(graph, "classifier")
    return {
        "modules": str(len(package.names)),
        "lines": f"{sum(text.count(chr(10)) for text in package.texts):,}",
        "statements": f"{statements(package):,}",
        "functions": f"{len(functions):,}",
        "private functions, of which called once": f"{len(private)}, {called_once(package, private)}",
        "lines of classifier.py": str(package.texts[package.names.index("classifier")].count("\n")),
        "modules behind Classifier": str(len(classifier)),
        "largest circle of rooms": f"{len(circle)}" + (f": {' '.join(sorted(circle))}" if circle else ""),
        "private interfaces: lines, in modules": f"{sum(inner.values())}, {len(inner)}",
        "methods of LightningCLI, private ones": f"{len(methods)}, {sum(name.startswith('_') for name in methods)}",
    }


def main(args: list[str] | None = None) -> int:
    """Print the measures of this checkout, and beside them those of another one."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.structure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, metavar="CHECKOUT", help="another checkout to compare with")
    parser.add_argument("--private", action="store_true", help="list the modules that use private interfaces")
    own = parser.parse_args(args)
    here = measures(ROOT)
    there = measures(own.base) if own.base else {}
    width = max(map(len, here))
    if there:
        print(f"{'':<{width}}  {'base':<12}here")
    for name, value in here.items():
        print(f"{name:<{width}}  {there[name]:<12}{value}" if there else f"{name:<{width}}  {value}")
    if own.private:
        for name, lines in private_interfaces(Package(ROOT)).items():
            print(f"  {name}: {lines}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
