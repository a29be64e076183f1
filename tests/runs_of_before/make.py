"""Makes the stored runs of this folder, with the package of an older commit: `python make.py FOLDER [RUN ...]`.

Each run is trained twice on the same small data, once to its end and once until it is killed in the middle of an epoch.
What the kill has left is stored, with the weights of the one that nothing has broken. tests/test_runs_of_before.py
resumes the stored runs with the code at hand. They were made like this, with the checkout of commit c70e37a:

    PYTHONPATH=CHECKOUT OMP_NUM_THREADS=1 python tests/runs_of_before/make.py tests/runs_of_before

FOLDER/RUN then holds `run` (a run folder without its TensorBoard files), `unbroken.pt` and `unbroken.json`.
The runs are made in /runs, which must not be there: its name is the only place that the stored files know.
"""

import hashlib
import json
import os
import shutil
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

PLACE = Path("/runs")
DATA_SHA256 = "d87e9a3c9cb06b13a417ee62dcc6e5accedce1b60734f2c2b380e220918cd953"
TRAINED, TESTED = 160, 40  # images
COMMON = [
    *("--data.dataset", "idx", "--data.data_dir", "data", "--data.val_size", "32"),
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.log_every_n_steps", "1", "--show", "none"),
]
# name -> its options; in which call of training_step a signal comes (with accumulated gradients, and with two passes a
# step, there are two calls a step); and which signal
RUNS = {
    "averaged": (
        [
            *("--model.network", "vgg11", "--model.ratio", "64", "--model.batch_norm", "true", "--model.head", "gap"),
            *("--model.dropout", "0.1", "--model.ema_decay", "0.7", "--model.lr", "0.02", "--model.schedule", "cosine"),
            *("--model.warmup_epochs", "0.5", "--data.augment", "[flip,shift,alternating_flip]"),
            *("--data.batch_size", "8", "--trainer.accumulate_grad_batches", "2", "--trainer.max_epochs", "20"),
            *("--early_stopping", "4", "--checkpoint_every_n_steps", "3"),
        ],
        236,
        signal.SIGKILL,
    ),
    "lookahead": (
        [
            *("--model.network", "whitened_vgg", "--model.ratio", "8", "--model.lr", "0.05", "--model.tta", "flip"),
            *("--model.lookahead_steps", "3", "--model.sam_rho", "0.05"),
            *("--data.augment", "[crop:1,cutmix:1.0:0.3]", "--trainer.max_epochs", "6"),
            *("--data.batch_size", "16"),
        ],
        51,
        signal.SIGTERM,
    ),
}  # fmt: skip


def scrambled(*shape):
    """Return bytes of the shape that look random: whole-number arithmetic, so that they are the same everywhere."""
    x = np.arange(int(np.prod(shape)), dtype=np.uint64)
    for _ in range(3):
        x = (x * np.uint64(2654435761) + np.uint64(974711)) % np.uint64(2**32)
        x ^= x >> np.uint64(15)
    return (x >> np.uint64(8)).astype(np.uint8).reshape(shape)


def make_data(folder):
    """Write images of 10 classes as IDX files, and return the SHA-256 of all of them."""
    folder.mkdir(parents=True)
    noise = scrambled(TRAINED + TESTED, 28, 28)
    patterns = scrambled(10, 7, 7).repeat(4, axis=1).repeat(4, axis=2) // 3
    total, first = hashlib.sha256(), 0
    for split, count in (("train", TRAINED), ("t10k", TESTED)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pictures = patterns[labels] + noise[first : first + count] // 2
        first += count
        for kind, array, head in (
            ("images-idx3", pictures, struct.pack(">4I", 0x803, count, 28, 28)),
            ("labels-idx1", labels, struct.pack(">2I", 0x801, count)),
        ):
            content = head + array.tobytes()
            (folder / f"{split}-{kind}-ubyte").write_bytes(content)
            total.update(content)
    return total.hexdigest()


def digest(tensors):
    """Return the SHA-256 over names, types, shapes and bytes of {name: tensor}."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def probe():
    """Return the digest of a small fixed training, with the kinds of layers that the runs have.

    Where it is that of the machine that made the runs, this machine computes as that one did.
    """
    torch.manual_seed(0)
    x = torch.from_numpy(scrambled(16, 1, 32, 32)).float().div_(255).to(memory_format=torch.channels_last)
    y = torch.arange(16) % 10
    layers, channels = [], 1
    for wider in (2, 4, 8, 8, 24):
        layers += [
            nn.Conv2d(channels, wider, 3, padding=1),
            nn.BatchNorm2d(wider),
            nn.ReLU(),
            nn.GELU(),
            nn.MaxPool2d(2),
        ]
        channels = wider
    network = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1), nn.Linear(24, 10)).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    average = [p.detach().clone() for p in network.parameters()]
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(network(x), y, label_smoothing=0.1).backward()
        optimizer.step()
        torch._foreach_lerp_(average, [p.detach() for p in network.parameters()], 0.3)
    values, vectors = torch.linalg.eigh(x[0, 0] @ x[0, 0].T)
    found = {**network.state_dict(), **{f"average {i}": v for i, v in enumerate(average)}}
    return digest(
        {**found, "product": x[0, 0] @ x[1, 0], "values": values, "vectors": vectors, "drawn": torch.rand(64)}
    )


def machine():
    """Return what the last bits of a training depend on."""
    return {"torch": torch.__version__, "probe": probe()}


def tensors(value, name=""):
    """Return {name: tensor} of all that is nested in a checkpoint: weights, averages, optimizer, callbacks."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {}
    parts = {Path(str(key)).name: part for key, part in value.items()}  # some keys are paths of a run
    return {k: v for key, part in parts.items() for k, v in tensors(part, f"{name}/{key}").items()}


def counts(checkpoint):
    """Return what the callbacks have counted: examples, and the epochs since the best."""
    callbacks = checkpoint["callbacks"]
    stopping = next((state for key, state in callbacks.items() if key.startswith("EarlyStopping")), None)
    return {
        "callbacks": sorted(callbacks),
        "examples": callbacks["RunReport"]["examples"],
        "metrics": callbacks["RunReport"]["metrics"],
        "early_stopping": stopping and {name: stopping[name] for name in ("wait_count", "stopped_epoch", "patience")},
    }


def train(folder, name, strike=None):
    """Run the command line in a process of its own, with a signal from within a training step; return its exit code."""
    from vgg_lightning import Classifier
    from vgg_lightning.__main__ import main

    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.chdir(folder)
    if strike:
        count, number = strike
        original, calls = Classifier.training_step, iter(range(1, 1 << 30))

        def struck(self, *args):
            if next(calls) == count:
                os.kill(os.getpid(), number)
            return original(self, *args)

        Classifier.training_step = struck
    code = 1
    try:
        code = main(["fit", "--name", name, *COMMON, *RUNS[name][0]])
    finally:
        sys.stdout.flush()
        os._exit(code)


def store(target, name):
    """Make one stored run."""
    _, count, number = RUNS[name]
    for kind in ("unbroken", "broken"):
        make_data(PLACE / kind / "data")
    assert train(PLACE / "unbroken", name) == 0
    assert train(PLACE / "broken", name, (count, number)) in (-number, 128 + number)
    unbroken, broken = (PLACE / kind / "lightning_logs" / name / "version_0" for kind in ("unbroken", "broken"))
    shutil.rmtree(target / name, ignore_errors=True)
    (target / name / "run" / "checkpoints").mkdir(parents=True)
    for file in ("config.yaml", "hparams.yaml", "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        shutil.copyfile(broken / file, target / name / "run" / file)
    checkpoint = torch.load(unbroken / "checkpoints" / "last.ckpt", weights_only=True)
    found = tensors(checkpoint)
    torch.save(found, target / name / "unbroken.pt")
    results = json.loads((unbroken / "results.json").read_text())
    kept = ("epochs", "steps", "val_acc", "val_loss", "test_acc", "test_loss", "train_acc", "train_loss")
    facts = {
        "results": {key: results[key] for key in kept},
        "counts": counts(checkpoint),
        "sha256": digest(found),
        "rows": (unbroken / "metrics.csv").read_text().count("\n"),
        **machine(),
    }
    (target / name / "unbroken.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1]).resolve()
    for run in sys.argv[2:] or RUNS:
        PLACE.mkdir()
        try:
            store(folder, run)
        finally:
            shutil.rmtree(PLACE)
