"""An option is stated once: its signature, and one row beside it. Messages name it as their reader knows it."""

import ast
import inspect
import re
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import lightning as L
import pytest
from jsonargparse import ArgumentParser

import vgg_lightning
from vgg_lightning import Classifier, FashionMNISTDataModule
from vgg_lightning.base.errors import UserError, command_line, option
from vgg_lightning.base.options import check, fits
from vgg_lightning.cli.fit_options import add_fit_options
from vgg_lightning.data.options import DataOptions
from vgg_lightning.data.sources.catalogue import DATASETS, DatasetName
from vgg_lightning.loading.opened import checked_options
from vgg_lightning.networks import INIT_SCHEMES, NETWORKS, Head, InitScheme, build_network, is_whitened
from vgg_lightning.training.compiling import COMPILE_MODES, CompileMode
from vgg_lightning.training.optimizers import OPTIMIZERS, OptimizerName
from vgg_lightning.training.options import GIVEN, NETWORK_OPTIONS
from vgg_lightning.training.run_options import (
    DATA,
    FIT,
    GROUPS,
    LINKED,
    MODEL,
    TRAINER,
    equal_on_all,
    left_out_of_presets,
)
from vgg_lightning.training.schedules import SCHEDULES, ScheduleName
from vgg_lightning.training.tta import VIEWS, ViewsName

PACKAGE = Path(vgg_lightning.__file__).parent
LOWER = ("base", "run", "networks", "data", "training", "loading", "show", "classifier.py", "prepare")
# What is typed in a shell: the program stands before the option.
COMMANDS = (
    "fit --ckpt_path",
    "predict --ckpt_path",
    "serve --ckpt_path",
    "--logdir",
    "data --dataset",
    "sbatch --ntasks",
    "--extract",
    "ui --backend-store-uri",
)


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
    texts = [text for text in texts if not re.fullmatch("--[a-z_]+", text)]  # an argument for a program
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


def defaults(owner):
    return {name: p.default for name, p in inspect.signature(owner).parameters.items()}


def test_every_argument_has_a_row():
    assert MODEL.keys() == defaults(Classifier).keys()
    assert DATA.keys() == defaults(FashionMNISTDataModule).keys()


def test_every_option_of_fit_has_a_row():
    parser = ArgumentParser()
    add_fit_options(parser)
    own = {action.dest for action in parser._actions} - {"help"}
    assert FIT.keys() == own | {"seed_everything", "ckpt_path"}  # Lightning's own


def test_rows_of_the_trainer_are_options_of_it():
    assert TRAINER.keys() <= defaults(L.Trainer).keys()


@pytest.mark.parametrize("owner", [Classifier, FashionMNISTDataModule])
def test_defaults_are_within_their_rows(owner):
    rows = MODEL if owner is Classifier else DATA
    check("x", {name: row for name, row in rows.items() if not row.place}, defaults(owner))


def test_a_place_is_saved_by_nobody_and_taken_from_no_file():
    saved = {**Classifier().hparams, **FashionMNISTDataModule().hparams}
    for name in ("weights", "teacher", "data_dir", "predict_path"):
        assert name not in saved
        for owner in (Classifier, FashionMNISTDataModule):
            with pytest.raises(UserError, match="has no option"):
                checked_options({name: "x"}, owner)


def test_options_of_networks_have_the_defaults_of_vgg():
    assert NETWORK_OPTIONS.keys() <= MODEL.keys()
    assert NETWORK_OPTIONS.items() <= defaults(Classifier).items()
    assert not {*NETWORK_OPTIONS} & {*GIVEN}


def test_dropout_has_one_range():
    for value in (1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match="at least 0 and less than 1"):
            build_network("vgg11", dropout=value)
        with pytest.raises(UserError, match="at least 0 and less than 1"):
            Classifier(dropout=value)


def test_an_option_that_follows_another_has_it_in_the_parser():
    assert LINKED == {"model.image_size": "data.image_size", "data.in_channels": "model.in_channels"}
    for target, source in LINKED.items():
        for name in (target, source):
            group, _, option = name.partition(".")
            assert option in GROUPS[group]


def test_processes_compare_what_must_be_equal():
    config = {
        "model": {"lr": 0.1},
        "data": {"batch_size": 8, "data_dir": "/here"},
        "trainer": {"max_epochs": 2, "precision": "32-true", "devices": 2},
        "name": "a",
        "early_stopping": 3,
    }
    compared = equal_on_all(config)
    assert compared == equal_on_all({**config, "name": "b", "data": {"batch_size": 8, "data_dir": "/there"}})
    trainers = [{**config["trainer"], "max_epochs": 3}, {**config["trainer"], "precision": "bf16-mixed"}]
    for other in ({"early_stopping": 4}, {"data": {"batch_size": 9}}, *({"trainer": trainer} for trainer in trainers)):
        assert compared != equal_on_all({**config, **other})


def test_presets_leave_out_what_belongs_to_a_machine():
    assert set(left_out_of_presets("data")) == {"data_dir", "seed", "in_channels"}
    assert set(left_out_of_presets("model")) == {"image_size"}


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [(Literal["a", "b"], "a", "c"), (Literal["a", "b"] | None, None, 1), (Literal["1"], "1", 1)],
)
def test_an_option_with_choices_is_read_from_a_checkpoint(hint, good, bad):
    assert fits(good, hint)
    assert not fits(bad, hint)


@pytest.mark.parametrize(
    ("choices", "table"),
    [
        (OptimizerName, OPTIMIZERS),
        (ScheduleName, SCHEDULES),
        (ViewsName, VIEWS),
        (CompileMode, COMPILE_MODES),
        (InitScheme, INIT_SCHEMES),
        (DatasetName, DATASETS),
    ],
)
def test_the_choices_of_an_option_are_the_rows_of_its_table(choices, table):
    assert get_args(choices) == tuple(table)


def test_every_head_can_be_built():
    for head in get_args(Head):
        build_network("vgg11", ratio=16, image_size=32, head=head)


@pytest.mark.parametrize("owner", [Classifier, FashionMNISTDataModule])
def test_all_options_are_keywords(owner):
    assert {p.kind for p in inspect.signature(owner).parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_a_checkpoint_is_held_against_the_types_of_the_data_module():
    hints = get_type_hints(FashionMNISTDataModule.__init__)
    saved = {name: hint for name, hint in hints.items() if name not in ("return", "data_dir", "predict_path")}
    assert get_type_hints(DataOptions) == {**saved, "dataset": str}


def test_fsdp_refuses_every_network_with_a_whitening_stem():
    whitened = {name for name in NETWORKS if is_whitened(name)}
    assert whitened == {"whitened_vgg", "deep_whitened_vgg"}
    for name in NETWORKS:
        assert MODEL["network"].fsdp.fits(name) is (name not in whitened)
