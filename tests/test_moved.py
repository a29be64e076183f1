"""Code that was written for the modules as they were before the rooms goes on working."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from vgg_lightning.moved import MOVED

# A line for each module of then: its name below the package, and the public names that it defined.
NAMES = {
    module: names.split()
    for module, _, names in (
        line.partition(":") for line in Path(__file__).with_name("names_before_rooms.txt").read_text().splitlines()
    )
}


@pytest.mark.parametrize("module", NAMES)
def test_a_module_of_before_has_the_names_that_it_had(module):
    found = importlib.import_module(f"vgg_lightning.{module}".removesuffix(".__init__"))
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []


@pytest.mark.parametrize("module", [old for old, new in MOVED.items() if isinstance(new, str)])
def test_a_module_has_not_been_loaded_twice(module):
    assert importlib.import_module(f"vgg_lightning.{module}") is importlib.import_module(
        f"vgg_lightning.{MOVED[module]}"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vgg_lightning.callbacks.show.base:Show", "vgg_lightning.show.base:Show"),
        ("vgg_lightning.callbacks:fit_callbacks", "vgg_lightning.prepare:fit_callbacks"),
        ("vgg_lightning.checkpoints.load:load_classifier", "vgg_lightning:load_classifier"),
        ("vgg_lightning.commands:render", "vgg_lightning.base:text"),
        ("vgg_lightning.cli:main", "vgg_lightning.cli.lightning:main"),
        ("vgg_lightning:configs", "vgg_lightning:presets"),
    ],
)
def test_old_and_new_are_one_in_a_fresh_process(old, new):
    lines = "\n".join(f"from {a.replace(':', ' import ')} as {b}" for a, b in ((old, "old"), (new, "new")))
    subprocess.run([sys.executable, "-c", f"{lines}\nassert old is new"], check=True)


def test_a_name_that_never_was_is_an_import_error():
    with pytest.raises(ImportError, match="nope"):
        importlib.import_module("vgg_lightning.checkpoints.nope")
    with pytest.raises(ImportError, match="cannot import name 'nope'"):
        exec("from vgg_lightning.checkpoints.load import nope")
