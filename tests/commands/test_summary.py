"""`vgg-lightning summary`, through its door."""

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vgg_lightning.base.errors import UserError
from vgg_lightning.cli.summary import main
from vgg_lightning.networks import NETWORKS


@pytest.fixture
def summary(capsys):
    """Return a function that runs the command and returns what it printed."""

    def run(*args: str) -> str:
        assert main(list(args)) == 0
        captured = capsys.readouterr()
        assert not captured.err
        return captured.out

    return run


@pytest.fixture
def as_json(summary):
    return lambda *args: json.loads(summary(*args, "--format", "json"))


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("vgg11", "132.86 M", "7.61 G"),
        ("vgg13", "133.05 M", "11.31 G"),
        ("vgg16", "138.36 M", "15.47 G"),
        ("vgg19", "143.67 M", "19.63 G"),
    ],
)
def test_published_figures_can_be_read_off(summary, name, params, macs):
    out = summary(name, "--in_channels", "3", "--num_classes", "1000")
    assert params in out
    assert macs in out


@pytest.mark.parametrize("name", NETWORKS)
def test_json(as_json, name):
    figures = as_json(name, "--image_size", "96")
    assert figures["network"] == name
    assert figures["input"] == [1, 96, 96]
    assert figures["options"] == {"in_channels": 1, "num_classes": 10, "image_size": 96}
    assert figures["layers"][-1]["output_shape"] == [10]
    for count in ("params", "macs", "training_macs", "activation_bytes"):
        for rows in ("layers", "blocks"):
            assert sum(row[count] for row in figures[rows]) == figures[count] > 0
    for layer in figures["layers"]:
        assert {"name", "type", "block", "receptive_field"} < set(layer)
        assert all(isinstance(side, int) for side in layer["output_shape"])


def test_eleven_layers_in_eight_rows(as_json, summary):
    figures = as_json("vgg11")
    assert [block["weight_layers"] for block in figures["blocks"]] == [1, 1, 2, 2, 2, 1, 1, 1]
    assert figures["weight_layers"] == 11
    shapes = [[64, 112, 112], [128, 56, 56], [256, 28, 28], [512, 14, 14], [512, 7, 7], [4096], [4096], [10]]
    assert [block["output_shape"] for block in figures["blocks"]] == shapes
    lines = summary("vgg11").splitlines()
    rows = [line for line in lines if line.startswith(("blocks.", "head."))]
    assert len(rows) == 8
    layers = [line.split()[1] for line in lines if line.startswith("  ")]
    assert layers.count("Conv2d") + layers.count("Linear") == 11
    assert any(line.startswith("layers with weights") and "11" in line and "8 blocks" in line for line in lines)


def test_csv(summary, as_json):
    rows = list(csv.DictReader(io.StringIO(summary("googlenet", "--format=csv"))))
    layers = as_json("googlenet")["layers"]
    assert [row["name"] for row in rows] == [layer["name"] for layer in layers]
    for row, layer in zip(rows, layers, strict=True):
        assert [int(side) for side in row["output_shape"].split("x")] == layer["output_shape"]
        assert all(int(row[c]) == layer[c] for c in ("params", "macs", "activation_bytes", "receptive_field"))


def test_markdown(summary):
    body, totals = summary("vgg11", "--ratio", "4", "--format", "markdown").split("\n\n")[1:]
    header, rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines())
    assert all(len(row) == len(header) == len(rule) for row in rows)
    assert set("".join(rule)) == {"-", ":"}
    bold = [row for row in rows if row[0].startswith("**")]
    assert len(bold) == 8
    parameters = sum(int(row[3].replace(",", "")) for row in bold)
    assert f"{parameters:,}" in totals


def test_table_is_aligned(summary):
    table = summary("resnet18", "--image_size", "28").split("\n\n")[1].splitlines()
    ends = [len(line) for line in table]
    assert max(ends) == len(table[1]) == ends[0]
    assert all(end == ends[0] for end in ends)  # the last column holds a number in every row


@pytest.mark.parametrize("flag", [["--batch_norm"], ["--batch_norm=true"], ["--batch_norm", "True"]])
def test_flags(as_json, flag):
    before, after = (as_json(*args) for args in ([*flag, "vgg11"], ["vgg11", *flag]))
    assert before == after
    assert before["options"]["batch_norm"] is True
    assert sum(layer["type"] == "BatchNorm2d" for layer in before["layers"]) == 8


@pytest.mark.parametrize("flag", [["--batch_norm", "false"], ["--batch_norm=False"], []])
def test_flags_off(as_json, flag):
    assert not any(layer["type"] == "BatchNorm2d" for layer in as_json("vgg11", *flag)["layers"])


def test_both_styles_of_arguments_and_all_kinds(as_json):
    options = {"image_size": 64, "ratio": 8, "hidden_units": 32, "head": "batchnorm", "dropout": 0.1}
    apart = [text for option, value in options.items() for text in (f"--{option}", str(value))]
    joined = [f"--{option}={value}" for option, value in options.items()]
    figures = as_json("vgg13", *apart)
    assert figures == as_json(*joined, "vgg13")
    assert options.items() <= figures["options"].items()
    assert any(layer["type"] == "BatchNorm1d" for layer in figures["layers"])


def test_batch_size_scales_the_memory_alone(as_json):
    one, many = as_json("vgg11"), as_json("vgg11", "--batch_size", "128")
    assert many["memory"]["kept_for_backward"] == 128 * one["memory"]["kept_for_backward"]
    assert many["layers"] == one["layers"]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ("vgg12", "use one of vgg11"),
        ("vgg11 --rato 4", r"--rato is unknown \(did you mean --ratio\?\)"),
        ("vgg11 --rato=4", r"did you mean --ratio\?"),
        ("vgg11 --image-size 96", r"did you mean --image_size\?"),
        ("alexnet --ratio 4", "alexnet has no option 'ratio': it has in_channels"),
        ("vgg11 --ratio x", "--ratio.*'x'"),
        ("vgg11 --ratio", "--ratio.*expected one argument"),
        ("vgg11 --ratio -4", "ratio -4 is too small"),
        ("vgg11 --batch_norm=maybe", "'maybe' is neither true nor false"),
        ("vgg11 --format xml", "xml.*json"),
        ("vgg11 --batch_size 0", "--batch_size.*1 or more"),
        ("vgg11 --image_size 16", "at least 32"),
        ("vgg11 vgg13", "vgg13 is unknown"),
        ("", "network"),
    ],
)
def test_bad_input_is_one_line(args, text):
    with pytest.raises(UserError, match=text) as error:
        main(args.split())
    assert "\n" not in str(error.value)


def test_help_names_networks_and_their_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in NETWORKS)
    assert "--growth_rate" in out


PROBE = """
import resource, sys, time
from vgg_lightning.cli.summary import main
main(["lenet", "--image_size", "28"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
main(["vgg19", "--in_channels", "3", "--num_classes", "1000", "--batch_size", "1024"])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, "lightning" in sys.modules)
"""


def test_nothing_is_allocated_and_lightning_is_not_imported():
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", PROBE], cwd=root, capture_output=True, text=True, check=True)
    growth, lightning = out.stdout.splitlines()[-1].split()
    assert int(growth) < 100  # MiB; the weights alone would take 548
    assert lightning == "False"


def test_vgg19_is_quick(summary):
    summary("lenet")  # torch imports what it needs
    start = time.perf_counter()
    summary("vgg19")
    assert time.perf_counter() - start < 3
