"""Runs of several processes: start, strike, and leave none behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import harness

# One network for two processes: without BatchNorm and chance its gradients are those of a single process.
PLAIN = [
    *("--model.network", "vgg11", "--model.ratio", "32", "--model.head", "gap", "--model.dropout", "0"),
    *(
        "--model.batch_norm",
        "false",
        "--model.init",
        "kaiming",
        "--model.lr",
        "0.05",
        "--data.batch_size",
        "17",
        "--trainer.max_epochs",
        "2",
    ),
]
TWO = ["--trainer.devices", "2"]


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers_of(pid):
    """Return the processes of a run by rank: `pid` and its children, or under torchrun its children alone."""
    launched = b"torch.distributed.run" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return children_of(pid) if launched else [pid, *children_of(pid)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def at_start(folder, code):
    """Return the environment in which every process of a run executes `code` first."""
    (folder / "sitecustomize.py").write_text(code)  # which every Python reads that has it on its path
    return {"PYTHONPATH": f"{folder}:{harness.environment()['PYTHONPATH']}"}


def launch(folder, *command, torchrun=False, environment=None):
    """Start `vgg-lightning COMMAND`, or the same under torchrun."""
    how = ["-m", "torch.distributed.run", "--nproc_per_node", "2"] if torchrun else []
    return subprocess.Popen(
        [sys.executable, *how, "-m", "vgg_lightning", *harness.once(command)],
        cwd=folder, env=harness.environment() | (environment or {}), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(folder, *command, **how):
    """Run a command to its end; return its exit code and what it printed."""
    process = launch(folder, *command, **how)
    try:
        text, _ = process.communicate(timeout=harness.LIMIT)
    finally:
        end(process)
    return process.returncode, text


def end(process):
    """Leave no process behind, whatever the test finds."""
    if process.poll() is None:
        for pid in [*workers_of(process.pid), process.pid]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def wait_for(folder, pattern, process, seconds=harness.LIMIT):
    """Wait until a run has written a file."""
    until = time.monotonic() + seconds
    while not list(Path(folder).glob(pattern)):
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < until, f"no {pattern}"
        time.sleep(0.05)


def strike(folder, command, signum, ranks, torchrun=False, checkpoint="last.ckpt", environment=None):
    """Send a signal to some ranks of a run in training; return exit code, text, and the seconds until all ended."""
    process = launch(folder, *command, torchrun=torchrun, environment=environment)
    try:
        wait_for(folder, f"lightning_logs/*/*/checkpoints/{checkpoint}", process)
        workers = workers_of(process.pid)
        assert len(workers) == 2
        sent = time.monotonic()
        for rank in ranks:
            os.kill(workers[rank], signum)
        text, _ = process.communicate(timeout=300)
        while any(map(alive, workers)):
            assert time.monotonic() - sent < 30, "a process is left"
            time.sleep(0.05)
        return process.returncode, text, time.monotonic() - sent
    finally:
        end(process)
