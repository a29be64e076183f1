"""An option is stated once: its signature, and one row beside it. Messages name it as their reader knows it."""

import ast
import re
from pathlib import Path

import pytest

import vgg_lightning
from vgg_lightning import Classifier, FashionMNISTDataModule
from vgg_lightning.base.errors import UserError, command_line, option

PACKAGE = Path(vgg_lightning.__file__).parent
LOWER = ("base", "run", "networks", "data", "training", "loading", "show", "classifier.py", "prepare.py")
# What is typed in a shell: the program stands before the option.
COMMANDS = ("fit --ckpt_path", "predict --ckpt_path", "--logdir", "data --dataset", "sbatch --ntasks", "--extract")


def messages():
    """Yield file and text of every string of the lower floors that is no docstring."""
    files = [
        file
        for name in LOWER
        for file in ([PACKAGE / name] if name.endswith(".py") else (PACKAGE / name).rglob("*.py"))
    ]
    for file in files:
        tree = ast.parse(file.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                yield file, node.value


def test_lower_floors_leave_the_dashes_to_the_command_line():
    texts = [text for _, text in messages() if re.search("--[a-z]", text)]
    assert [text for text in texts if not any(command in text for command in COMMANDS)] == []


@pytest.mark.parametrize(
    ("make", "bare"),
    [
        (lambda: FashionMNISTDataModule(batch_size=0), "batch_size 0 is out of range: batch_size takes 1 or more"),
        (lambda: Classifier(lr=-1.0), "lr -1.0 is out of range: lr takes a positive number"),
        (lambda: FashionMNISTDataModule(augment=["fli"]), "augment takes a list of"),
    ],
)
def test_python_hears_of_arguments_and_the_command_line_of_options(make, bare):
    with pytest.raises(UserError, match=bare) as told:
        make()
    assert "--" not in str(told.value)
    with command_line(), pytest.raises(UserError, match=r"--(data|model)\.\w+ takes"):
        make()


def test_an_option_has_dashes_on_the_command_line_alone():
    assert option("data.batch_size") == "batch_size"
    with command_line():
        assert option("data.batch_size") == "--data.batch_size"
    assert option("show") == "show"
