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
EPOCHS, STEPS = 4, 8  # batches of an epoch
VALIDATED = 2  # batches of a validation, and of a sanity check before the first epoch
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
    found += [("validation", step) for step in draw.sample(range(VALIDATED + 1, (EPOCHS + 1) * VALIDATED + 1), 2)]
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


LOADER = "ResumableLoader(waves(256, seed=1), batch_size=32, shuffle=True)"
PLAIN = ("train = " + LOADER, "train = DataLoader(waves(256, seed=1), batch_size=32, shuffle={})")


@pytest.mark.parametrize(
    ("signum", "place", "count"),
    [(signal.SIGTERM, "training", 13), (signal.SIGINT, "validation", 6), (signal.SIGUSR1, "training", 16)],
)
def test_a_signal_ends_it_with_a_checkpoint_and_the_line_that_resumes_it(
    server, unbroken, tmp_path, signum, place, count
):
    folder = program(tmp_path)
    assert run(server, folder, place=place, count=count, signal=signum) == 128 + signum, output(folder)
    line = output(folder).splitlines()[-1]
    step = count if place == "training" else 2 * STEPS
    assert line == f"stopped by {signum.name}: saved after step {step}; resume with: python waves.py"
    assert last(folder)["global_step"] == step
    assert "Traceback" not in output(folder)
    assert run(server, folder) == 0, output(folder)
    assert not differences(left(unbroken), left(folder))


def test_nan_stops_it_before_the_weights(server, tmp_path):
    folder = program(
        tmp_path,
        ("        return loss\n", "        return loss * float('nan') if self.global_step == 10 else loss\n"),
        ("checkpoint_every_n_steps=3", "checkpoint_every_n_steps=1"),
    )
    assert run(server, folder) == 3
    line = output(folder).splitlines()[-1]
    assert line.startswith("error: the loss is NaN or Inf in epoch 1, step 10, batch 2, at the learning rate 0.00")
    assert "model.lr" not in line  # an option of the project
    checkpoint = last(folder)
    assert checkpoint["global_step"] == 10
    assert all(bool(weight.isfinite().all()) for weight in checkpoint["state_dict"].values())


def test_a_validation_that_is_nan_is_not_the_best(server, tmp_path):
    folder = program(
        tmp_path,
        (
            '        self.log("val_loss", F.',
            '        self.log("val_rmse", (float("nan") if self.current_epoch else 1) * F.',
        ),
        ('monitor="val_loss"', 'monitor="val_rmse"'),
    )
    assert run(server, folder) == 3
    assert "error: val_rmse is nan in epoch 1, step 16" in output(folder)
    best = torch.load(folder / "runs" / "waves" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == STEPS


@pytest.mark.parametrize("options", ["True", "True, num_workers=1"])
def test_a_loader_that_cannot_be_restored_is_named_and_the_epoch_repeated(server, tmp_path, options):
    change = (PLAIN[0], PLAIN[1].format(options))
    folder, whole = program(tmp_path / "broken", change), program(tmp_path / "whole", change)
    assert run(server, whole) == 0, output(whole)
    warning = "the training loader (DataLoader) cannot be restored within an epoch"
    assert output(whole).count(warning) == 1
    assert run(server, folder, place="training", count=STEPS + 4, signal=signal.SIGTERM) == 143, output(folder)
    assert "stopped by SIGTERM: the newest checkpoint is older; resume with" in output(folder).splitlines()[-1]
    assert last(folder)["global_step"] == STEPS
    assert run(server, folder, place="validation", count=3 * VALIDATED, signal=signal.SIGTERM) == 143
    assert last(folder)["global_step"] == 3 * STEPS
    assert run(server, folder) == 0, output(folder)
    assert not differences(left(whole), left(folder))


def test_killed_before_a_first_checkpoint_it_says_so(server, tmp_path):
    folder = program(tmp_path, (PLAIN[0], PLAIN[1].format(True)))
    assert run(server, folder, place="training", count=3, signal=signal.SIGTERM) == 143
    assert "stopped by SIGTERM: nothing is saved yet; resume with: python waves.py" in output(folder)
    assert not list(folder.rglob("*.ckpt"))


NOISY = """
class Noisy(torch.utils.data.Dataset):
    def __init__(self, waves):
        self.waves = waves

    def __len__(self):
        return len(self.waves)

    def __getitem__(self, index):
        x, y = self.waves[index]
        return x + 0.05 * torch.randn(x.shape) + 0.05 * random.random() + 0.05 * np.random.rand(), y


class Forecaster("""
DRAWS = [
    ("import sys\n", "import random\nimport sys\n\nimport numpy as np\n"),
    ("class Forecaster(", NOISY),
    ("waves(256, seed=1), batch_size=32, shuffle=True)", "Noisy(waves(256, seed=1)), batch_size=32, shuffle=True{})"),
]


def test_what_a_data_set_draws_is_drawn_again_with_any_number_of_workers(server, tmp_path):
    runs = []
    for name, options in (("none", ""), ("two", ", num_workers=2")):
        folder = program(tmp_path / name, *DRAWS[:2], (DRAWS[2][0], DRAWS[2][1].format(options)))
        if options:
            assert run(server, folder, place="training", count=12, signal=signal.SIGKILL) == -signal.SIGKILL
        assert run(server, folder) == 0, output(folder)
        runs.append(left(folder))
    assert not differences(*runs)


def test_options_that_no_checkpoint_could_be_opened_with_are_refused_at_the_start(server, tmp_path):
    folder = program(
        tmp_path,
        ("import sys\n", "import sys\nfrom pathlib import Path\n"),
        ("def __init__(self, width=16, lr=0.01):", "def __init__(self, width=16, lr=0.01, notes=Path('notes')):"),
    )
    assert run(server, folder) == 2
    line = output(folder).splitlines()[-1]
    assert line.startswith("error: Forecaster saves the option notes = PosixPath('notes'), which is not a plain value")
    assert not list(folder.rglob("last.ckpt"))


def test_a_damaged_checkpoint_is_passed_over(server, unbroken, tmp_path):
    folder = program(tmp_path)
    assert run(server, folder, place="training", count=20, signal=signal.SIGKILL) == -signal.SIGKILL
    file = folder / "runs" / "waves" / "checkpoints" / "last.ckpt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert run(server, folder) == 0, output(folder)
    assert "last.ckpt is damaged" in output(folder)
    assert not differences(left(unbroken), left(folder))


def test_run_again_after_its_end_it_has_nothing_to_do(server, tmp_path, unbroken):
    before = left(unbroken)
    assert run(server, unbroken) == 0, output(unbroken)
    assert not differences(before, left(unbroken))


@pytest.mark.parametrize("name", ["classifier", "data", "cli"])
def test_the_project_cannot_be_imported_in_these_tests(server, tmp_path, name):
    (tmp_path / "waves.py").write_text(f"import vgg_lightning.{name}\n")
    assert run(server, tmp_path) == 99
    assert f"ImportError: the run kit imports vgg_lightning.{name}" in output(tmp_path)


def test_a_fault_of_the_program_keeps_its_traceback(server, tmp_path):
    folder = program(tmp_path, ("        loss = F.mse_loss(self(x), y)\n", "        loss = F.mse_los(self(x), y)\n"))
    assert run(server, folder) == 99  # of the server; Python's own is 1
    assert "Traceback" in output(folder)
    assert "AttributeError" in output(folder).splitlines()[-1]
