"""SIGTERM, SIGINT and SIGUSR1 end every subcommand in order, and fit with a checkpoint to resume from."""

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import EPOCHS, NETWORK, STEPS, differences, environment, everything, launch, only_run, output, record

SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 138}
SEED = 3


def stopped(server, folder, command, signum, hook, count):
    """Run a command that gets a signal in one of its steps, and return its last line."""
    code = server.run(folder, *command, at={"hook": hook, "count": count, "signal": signum})
    text = output(folder)
    assert code == SIGNALS[signum], text
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


def places(long):
    """Return (signal, step method, its call) for fit: batches, the last of an epoch and validation batches."""
    if not long:
        return [(signal.SIGTERM, "training_step", 5), (signal.SIGINT, "training_step", STEPS),
                (signal.SIGUSR1, "validation_step", 2), (signal.SIGTERM, "validation_step", 3)]  # fmt: skip
    steps = [("training_step", i + 1) for i in range(EPOCHS * STEPS)]
    steps += [("validation_step", i + 1) for i in range(3 * EPOCHS)]
    return [(random.Random(SEED + i).choice(list(SIGNALS)), *step) for i, step in enumerate(steps)]


def test_fit_saves_and_goes_on_exactly(long, server, options, unbroken, tmp_path):
    command = ["fit", *NETWORK, *options]
    same = 0
    for i, (signum, hook, count) in enumerate(places(long)):
        folder = tmp_path / str(i)
        folder.mkdir()
        line = stopped(server, folder, command, signum, hook, count)
        assert line.startswith(f"stopped by {signum.name}: saved after step")
        resume = re.search(r"resume with: \S*vgg-lightning (fit --ckpt_path \S+)", line)[1]
        assert server.run(folder, *resume.split()) == 0, output(folder)
        found = differences(unbroken, everything(only_run(folder)))
        print(signum.name, hook, count, found[:5])
        same += not found
    if long:
        record("stopped by a signal and resumed", same, i + 1, SEED)
    assert same == i + 1


@pytest.mark.parametrize("signum", SIGNALS)
def test_the_test_at_the_end_of_fit_stops_and_is_made_up_for(server, options, unbroken, tmp_path, signum):
    command = ["fit", *NETWORK, *options]
    assert "resume with" in stopped(server, tmp_path, command, signum, "test_step", 1)
    assert server.run(tmp_path, *command, "--resume") == 0, output(tmp_path)
    assert not differences(unbroken, everything(only_run(tmp_path)))


@pytest.mark.parametrize(
    ("subcommand", "hook"), [("validate", "validation_step"), ("test", "test_step"), ("predict", "predict_step")]
)
def test_the_other_subcommands_stop(server, options, data, tmp_path_factory, finished, subcommand, hook):
    folder = tmp_path_factory.mktemp(subcommand)
    paths = ["--ckpt_path", str(finished), "--data.data_dir", str(data)]
    for signum in SIGNALS:
        command = [subcommand, *paths, "--trainer.accelerator", "cpu"]
        line = stopped(server, folder, command, signum, hook, 1)
        assert line == f"stopped by {signum.name}"
    assert not list(finished.glob("predictions.csv"))


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_real_process_saves_within_five_seconds(options, tmp_path, signum):
    process = launch(tmp_path, "fit", *NETWORK, *options, "--trainer.max_epochs", "100000")
    while not list(tmp_path.glob("lightning_logs/*/*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    sent = time.monotonic()
    process.send_signal(signum)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == SIGNALS[signum], text
    assert "resume with" in text
    saved = max(file.stat().st_mtime for file in tmp_path.glob("lightning_logs/*/*/checkpoints/last.ckpt"))
    assert saved - time.time() + time.monotonic() - sent < 5


def test_a_second_signal_ends_at_once(options, tmp_path):
    process = launch(tmp_path, "fit", *NETWORK, *options, "--trainer.max_epochs", "100000", "--data.batch_size", "1000")
    while not list(tmp_path.glob("lightning_logs/*/*/events*")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=300)
    assert process.returncode in (130, 143), text
    assert "Traceback" not in text


def wait_for_handlers(process):
    """Wait until a process handles SIGTERM: before that it cannot say anything."""
    while Path("/proc/self/status").exists():
        assert process.poll() is None, process.stdout.read()
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
        if caught is None or int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.005)
    time.sleep(0.3)


@pytest.mark.parametrize(
    ("seconds", "signum"),
    [(0, signal.SIGTERM), (0.5, signal.SIGINT), (1.2, signal.SIGTERM), (1.5, signal.SIGINT), (3.0, signal.SIGUSR1)],
)
def test_a_signal_while_starting_ends_with_one_line(options, tmp_path, seconds, signum):
    process = launch(tmp_path, "fit", *NETWORK, *options, "--trainer.max_epochs", "100000")
    wait_for_handlers(process)
    time.sleep(seconds)
    process.send_signal(signum)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == SIGNALS[signum], text
    assert text.strip().splitlines()[-1].startswith(f"stopped by {signum.name}"), text
    assert "Traceback" not in text


# As torch's C++ does, which imports Python modules where an exception cannot pass.
FRAGILE = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
except BaseException:
    os.abort()
"""


@pytest.mark.parametrize(("rank", "line"), [(0, "stopped by SIGINT\n"), (1, ""), ("no number", "stopped by SIGINT\n")])
def test_a_signal_amid_an_import_raises_nothing_there(tmp_path, rank, line):
    (tmp_path / "fragile.py").write_text(FRAGILE)
    code = "import sys, vgg_lightning.__main__ as m; sys.exit(m.guarded(lambda: __import__('fragile')))"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**environment(), "LOCAL_RANK": str(rank)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stdout, process.stderr) == (130, "", line)
