"""The measures of the package's structure, on a small package."""

import textwrap

import pytest

from benchmarks import structure


@pytest.fixture
def checkout(tmp_path):
    """Return a checkout whose package has a circle of two rooms, a private interface and a command line."""
    files = {
        "__init__": "",
        "a.one": "from vgg_lightning.b import two\n",
        "b.two": 'def late():\n    """Say why."""\n    import vgg_lightning.a.one\n    return _helper()\n'
        "def _helper():\n    return 1\n",
        "classifier": "import importlib\nimportlib.import_module('vgg_lightning.a.one')\n",
        "cli": """
            from lightning.pytorch.cli import LightningCLI
            class Own(LightningCLI):
                def _parse_ckpt_path(self): self._mine = self.trainer._signal_connector
                before_test = before_predict = None
            class Other(Own):
                def own_method(self): ...
        """,
    }
    for name, text in files.items():
        file = tmp_path / "vgg_lightning" / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    return tmp_path


def test_imports_count_wherever_they_stand(checkout):
    package = structure.Package(checkout)
    graph = package.imports()
    assert graph["b.two"] == {"a.one"}
    assert structure.reached(graph, "classifier") == {"classifier", "a.one", "b.two"}
    assert structure.largest_circle(graph) == {"a", "b"}


def test_private_interfaces_and_methods_of_the_command_line_are_counted(checkout):
    package = structure.Package(checkout)
    assert structure.private_interfaces(package) == {"cli": 1}
    assert structure.cli_methods(package) == ["_parse_ckpt_path", "before_test", "before_predict"]
    assert structure.called_once(package, {"_helper"}) == 1
    assert structure.statements(package) == 16  # all but the docstring


def test_the_command_prints_both_checkouts(checkout, capsys):
    assert structure.main(["--base", str(checkout)]) == 0
    out = capsys.readouterr().out
    assert "2: a b" in out
    assert "largest circle of rooms" in out
    with pytest.raises(SystemExit):
        structure.main(["--base", str(checkout / "vgg_lightning")])
