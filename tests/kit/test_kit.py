"""The program in docs/kit.md, with another network, task and loader, survives what this project survives."""

import random
import re
import signal
from pathlib import Path

import pytest
import torch
from harness import Server, differences, essence, output, record, rows

from vgg_lightning.run.checkpoints.seal import damage_of

PAGE = Path(__file__).parents[2] / "docs" / "kit.md"
EPOCHS, STEPS, VALIDATED = 4, 8, 2  # batches of an epoch: trained on, and validated
SEED = 5
KILLS = 10


@pytest.fixture(scope="module")
def server():
    server = Server(Path(__file__).with_name("server.py"))
    yield server
    server.process.stdin.close()
    server.process.wait()


def program(folder, *changes):
    """Write the program of the page into a folder, with pieces of it replaced."""
    (text,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "waves.py").write_text(text)
    return folder


def run(server, folder, **at):
    """Run the program of a folder, with a signal at a place; return its exit code, which is negative after a kill."""
    return server.run(folder, program="waves.py", at=at)


def left(folder):
    """Return what a run leaves behind."""
    files = [folder / "runs" / "waves" / "checkpoints" / f"{name}.ckpt" for name in ("last", "best")]
    return {file.name: essence(file) for file in files}


def last(folder):
    file = folder / "runs" / "waves" / "checkpoints" / "last.ckpt"
    assert damage_of(file) is None
    return torch.load(file, weights_only=True)


@pytest.fixture(scope="module")
def unbroken(server, tmp_path_factory):
    folder = program(tmp_path_factory.mktemp("unbroken"))
    assert run(server, folder) == 0, output(folder)
    return folder


def test_the_kit_is_about_ten_lines_of_a_page():
    lines = re.search(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[1].splitlines()
    assert 4 <= sum(line.endswith("# kit") for line in lines) <= 10
    assert len(lines) <= 80


def test_a_run_learns_and_leaves_checkpoints_metrics_and_curves(unbroken):
    values = [float(row["val_loss"]) for row in rows(unbroken / "runs" / "waves" / "metrics.csv") if "val_loss" in row]
    assert len(values) == EPOCHS
    assert values[-1] < 0.7 * values[0]
    assert last(unbroken)["global_step"] == EPOCHS * STEPS
    assert left(unbroken)["best.ckpt"]["global_step"] == STEPS * (1 + values.index(min(values)))
    assert list((unbroken / "runs" / "waves").glob("events*"))
    assert [line[:10] for line in output(unbroken).splitlines() if line.startswith("epoch")] == [
        f"epoch {i + 1}/{EPOCHS}:" for i in range(EPOCHS)
    ]


def places():
    """Return where the ten runs are killed: six steps of training, two of validation, two moments of saving."""
    draw = random.Random(SEED)
    found = [("training", step) for step in draw.sample(range(2, EPOCHS * STEPS + 1), 6)]
    found += [("validation", step) for step in draw.sample(range(3, EPOCHS * VALIDATED + 1), 2)]
    return [*found, ("written", draw.randrange(3, 20)), ("renamed", draw.randrange(3, 20))]


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["sample", "campaign"])
def test_killed_and_resumed_it_ends_bit_for_bit_as_if_nothing_had_happened(long, server, unbroken, tmp_path):
    expected, same = left(unbroken), 0
    chosen = places() if long else [places()[i] for i in (0, 6, 8)]
    for place, count in chosen:
        folder = program(tmp_path / f"{place}{count}")
        assert run(server, folder, place=place, count=count, signal=signal.SIGKILL) == -signal.SIGKILL, output(folder)
        assert run(server, folder) == 0, output(folder)
        found = differences(expected, left(folder))
        table = rows(folder / "runs" / "waves" / "metrics.csv")
        found += differences(val_rows(unbroken), [row for row in table if "val_loss" in row])
        print(place, count, found[:5])
        same += not found
    if long:
        record("a project of its own with the run kit, kill -9 at random steps", same, len(chosen), SEED)
    assert same == len(chosen)
    assert len(places()) == KILLS


def val_rows(folder):
    return [row for row in rows(folder / "runs" / "waves" / "metrics.csv") if "val_loss" in row]
