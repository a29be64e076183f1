"""Runs to break and to resume, and what must be equal afterwards."""

import csv
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vgg_lightning.loading.load import read_checkpoint

REPOSITORY = Path(__file__).parents[2]
EPOCHS, STEPS = 3, 8  # of the runs that are broken
LIMIT = 600  # seconds that one of them may take
NETWORK = [
    *("--model.network", "vgg11", "--model.ratio", "32", "--model.batch_norm", "true"),
    *("--model.head", "gap", "--model.dropout", "0.1"),
]
OPTIONS = [
    *("--model.lr", "0.05", "--model.momentum", "0.9", "--model.ema_decay", "0.7"),
    *("--model.warmup_epochs", "0.5", "--model.schedule", "cosine"),
    *("--data.augment", "[flip,shift,alternating_flip]"),
    *("--data.dataset", "idx", "--data.batch_size", "16", "--data.val_size", "48"),
    *("--trainer.max_epochs", str(EPOCHS), "--trainer.log_every_n_steps", "1", "--trainer.accelerator", "cpu"),
    *("--trainer.devices", "1", "--trainer.precision", "32-true", "--show", "classes,confusion"),
]


def make_data(folder):
    """Write images of 10 classes as IDX files: 8 batches to train, 3 to validate, 3 to test."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    patterns = random.integers(0, 200, (10, 28, 28))
    for split, count in (("train", 16 * STEPS + 48), ("t10k", 48)):
        labels = np.arange(count) % 10
        pictures = patterns[labels] + random.integers(0, 56, (count, 28, 28))
        head = (0x803).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
        (folder / f"{split}-images-idx3-ubyte").write_bytes(head + pictures.astype(np.uint8).tobytes())
        head = (0x801).to_bytes(4, "big") + count.to_bytes(4, "big")
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())
    return folder


def once(args):
    """Return arguments in which every option stands once, with its last value."""
    table = {}
    for arg in map(str, args):
        if arg.startswith("--"):
            key, table[arg] = arg, []
        elif not table:
            table[arg] = []  # the subcommand
        else:
            table[key] = [arg]
    return [part for key, values in table.items() for part in (key, *values)]


class Server:
    """A server of processes (see server.py)."""

    def __init__(self, file="server.py"):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / file)],
            env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, cwd, *args, **request):
        """Start `vgg-lightning ARGS`; return its process id."""
        request |= {"cwd": str(cwd), "args": once(args)}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        pid = json.loads(self.process.stdout.readline())["pid"]
        self.watchdog = threading.Timer(LIMIT, os.kill, (pid, signal.SIGABRT))  # it prints where it hangs
        self.watchdog.start()
        return pid

    def end(self):
        """Wait for it; return its exit code, which is negative after a kill."""
        code = json.loads(self.process.stdout.readline())["code"]
        self.watchdog.cancel()
        return code

    def run(self, cwd, *args, **request):
        self.start(cwd, *args, **request)
        return self.end()

    def run_and_signal(self, cwd, signum, seconds, *args):
        """Send a signal after so many seconds; return the exit code, and the seconds until the end."""
        pid = self.start(cwd, *args)
        sent = [0.0]

        def send():
            sent[0] = time.monotonic()
            os.kill(pid, signum)

        timer = threading.Timer(seconds, send)
        timer.start()
        code = self.end()
        timer.cancel()
        return code, time.monotonic() - (sent[0] or time.monotonic())


def launch(folder, *command):
    """Start `vgg-lightning COMMAND` as users do, as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "vgg_lightning", *once(command)],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def environment():
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def output(cwd):
    return (Path(cwd) / "output.txt").read_text()


def only_run(cwd):
    (run,) = Path(cwd).glob("lightning_logs/*/version_*")
    return run


def everything(run):
    """Return what a run leaves behind, without what differs between equal runs: clocks, paths, memory."""
    results = json.loads((run / "results.json").read_text())
    for name in ("seconds", "examples_per_second", "peak_memory_mb"):
        results.pop(name)
    return {
        **{name: essence(file) for name in ("last", "best") if (file := run / "checkpoints" / f"{name}.ckpt").exists()},
        "results": results,
        "csv": rows(run / "metrics.csv"),
        "tensorboard": scalars(run),
    }


def essence(file):
    checkpoint = read_checkpoint(file)
    callbacks = checkpoint["callbacks"]
    for key, state in callbacks.items():
        if key.startswith("RunReport"):
            callbacks[key] = {k: v for k, v in state.items() if "seconds" not in k}
        if key.startswith("Timer"):
            callbacks[key] = {}
        if key.startswith("BestCheckpoint"):
            callbacks[key] = {k: v for k, v in state.items() if "path" not in k and k != "best_k_models"}
    loops = checkpoint["loops"]["fit_loop"]
    loops.pop("epoch_loop.val_loop.batch_progress")  # counts for a progress bar, begun anew with every epoch
    return checkpoint


def rows(file):
    """Return the rows of metrics.csv, without the cells that are empty."""
    return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file.read_text().splitlines())]


def scalars(run):
    """Return {tag: [(step, value)]} as TensorBoard shows them: "train/curves/loss" is the line of train in a chart.

    TensorBoard takes the files in the order of their names: the second, the process and a count of its files. Launches
    of tests can share a second and a process, where the tenth file comes before the ninth: here the order is that in
    which they were written.
    """
    found = {}
    for part in (run, *(run / split for split in ("train", "val", "test"))):
        files = sorted(Path(part).glob("events.*"), key=lambda file: (file.name.split(".")[3], file.stat().st_mtime_ns))
        with tempfile.TemporaryDirectory() as folder:
            for number, file in enumerate(files):
                shutil.copyfile(file, Path(folder) / f"events.out.tfevents.{number:06}")
            events = EventAccumulator(folder, size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            name = tag if part == run else f"{part.name}/{tag}"
            found[name] = [(event.step, event.value) for event in events.Scalars(tag)]
    return found


def differences(a, b, path=""):
    """Return the places where two nested structures are not equal to the last bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [path]
    if isinstance(a, dict) and isinstance(b, dict):
        places = [f"{path}/{key} is missing" for key in a.keys() ^ b.keys()]
        return places + [place for key in a.keys() & b.keys() for place in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [place for i, (x, y) in enumerate(zip(a, b, strict=True)) for place in differences(x, y, f"{path}/{i}")]
    return [] if type(a) is type(b) and a == b else [f"{path}: {str(a)[:60]} != {str(b)[:60]}"]


def record(test, passed, of, seeds="", table="reliability"):
    """Add a row to the table of campaigns."""
    import lightning

    file = REPOSITORY / "benchmarks" / "results" / f"{table}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.writer(stream)
        if new:
            writer.writerow(["test", "passed", "of", "seeds", "versions", "date", "command"])
        versions = f"python {sys.version.split()[0]}, torch {torch.__version__}, lightning {lightning.__version__}"
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        writer.writerow([test, passed, of, seeds, versions, date, "make test-reliability"])
