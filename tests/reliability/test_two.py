"""Two processes on one machine: they do what one does, and end together."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from harness import NETWORK, differences, environment, essence, everything, once, only_run, record
from two import PLAIN, TWO, at_start, children_of, run, strike, wait_for

from vgg_lightning import FashionMNISTDataModule, load_classifier
from vgg_lightning.data.batches import BatchLoader, in_order
from vgg_lightning.networks.whitened_vgg import WhiteningConv

SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 138}


def plain_run(folder, options, *more, torchrun=False):
    code, text = run(folder, "fit", *options, *PLAIN, "--model.ema_decay", "0", "--data.augment", "[]", *more,
                     torchrun=torchrun)  # fmt: skip
    assert code == 0, text
    assert text.count("run folder: ") == 1
    assert "Warning" not in text
    assert "sync_dist" not in text
    return only_run(folder)  # which says that there is one


@pytest.fixture(scope="module")
def runs(options, tmp_path_factory):
    """The same run with one process and with two."""
    numbers = (("one", ["--trainer.devices", "1"]), ("two", TWO))
    return {name: plain_run(tmp_path_factory.mktemp(name), options, *more) for name, more in numbers}


def same_to_rounding(one, two):
    for name, weight in one["last"]["state_dict"].items():
        torch.testing.assert_close(two["last"]["state_dict"][name], weight, rtol=1e-4, atol=1e-6)
    for name in ("train_acc", "val_acc", "test_acc", "steps", "epochs"):
        assert two["results"][name] == one["results"][name]
    for name in ("train_loss", "val_loss", "test_loss"):
        assert two["results"][name] == pytest.approx(one["results"][name], rel=1e-5)
    assert (one["results"]["processes"], two["results"]["processes"]) == (1, 2)


def test_two_processes_learn_what_one_learns(runs):
    """128 images in batches of 17: the last one has 9, which two processes share as 5 and 4."""
    same_to_rounding(everything(runs["one"]), everything(runs["two"]))


@pytest.mark.slow
def test_torchrun_makes_the_same_bits(runs, options, tmp_path):
    found = everything(plain_run(tmp_path, options, torchrun=True))
    assert not differences(everything(runs["two"]), found)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--model.ema_decay 0.9", "--model.lookahead_steps 3"])
def test_two_processes_average_what_one_does(words, options, tmp_path):
    found = []
    for name, more in (("one", ["--trainer.devices", "1"]), ("two", TWO)):
        (tmp_path / name).mkdir()
        found.append(everything(plain_run(tmp_path / name, options, *words.split(), *more)))
    same_to_rounding(*found)


@pytest.mark.slow
def test_two_processes_whiten_as_one_does(options, tmp_path):
    """The stem alone: behind it is BatchNorm, whose statistics are those of a share."""
    stems = []
    for name, more in (("one", ["--trainer.devices", "1"]), ("two", TWO)):
        (tmp_path / name).mkdir()
        command = ["fit", *options, "--model.network", "whitened_vgg", *more, "--trainer.max_epochs", "1"]
        code, text = run(tmp_path / name, *command)
        assert code == 0, text
        network = load_classifier(only_run(tmp_path / name)).network
        (stem,) = [layer for layer in network.modules() if isinstance(layer, WhiteningConv)]
        assert stem.whitened
        stems.append(stem.weight)
    torch.testing.assert_close(*stems)


def test_everything_is_written_once(runs):
    names = [sorted(file.name.split(".")[0] for file in runs[name].rglob("*")) for name in runs]
    assert names[0] == names[1]
    rows = [[set(row) for row in csv.reader((runs[name] / "metrics.csv").read_text().splitlines())] for name in runs]
    assert len(rows[0]) == len(rows[1])


def first_pictures(data, folder, count):
    """Write the same data with only the first images of the test split."""
    folder.mkdir()
    for file in data.iterdir():
        content = file.read_bytes()
        if file.name.startswith("t10k"):
            head, each = (16, 784) if "images" in file.name else (8, 1)
            content = content[:4] + count.to_bytes(4, "big") + content[8 : head + count * each]
        (folder / file.name).write_bytes(content)
    return folder


@pytest.mark.parametrize("subcommand", [pytest.param("test", marks=pytest.mark.slow), "predict"])
def test_each_of_33_pictures_counts_once(subcommand, runs, data, tmp_path):
    """Of which two processes cannot have the same number; batches of 32, so the last one is a single image."""
    few = first_pictures(data, tmp_path / "few", 33)
    command = ["--ckpt_path", runs["one"], "--data.data_dir", few, "--trainer.accelerator", "cpu", *TWO]
    code, text = run(tmp_path, subcommand, *command, "--data.batch_size", "32")
    assert code == 0, text
    images, labels = FashionMNISTDataModule(dataset="idx", data_dir=str(few), val_size=48).images("test")
    names = load_classifier(runs["one"]).predict(images)
    right = int((names.labels == labels).sum())
    if subcommand == "test":
        assert text.count(f"test accuracy  {100 * right / 33:.2f} %") == 1
        return
    assert f"{right} of 33 test images right" in text
    rows = list(csv.DictReader((runs["one"] / "predictions.csv").read_text().splitlines()))
    assert [row["predicted"] for row in rows] == names.names


@pytest.mark.parametrize(("size", "batch", "ranks"), [(33, 8, 2), (10, 4, 3), (7, 5, 4), (1, 4, 2)])
def test_shares_are_the_batch_without_overlap_or_loss(size, batch, ranks):
    images, labels = torch.zeros(size, 1, 28, 28), torch.arange(size)
    loaders = [BatchLoader(images, labels, batch, True, 3, rank, ranks, fewest=2) for rank in range(ranks)]
    whole = [batch.labels for batch in BatchLoader(images, labels, batch, True, 3)]
    shares = []
    for loader in loaders:
        taken = []
        for i, (_, y, indices, share, _, position) in enumerate(loader):
            assert (share.total, position) == (len(whole[i]), i + 1)
            assert len(y) >= 2
            assert torch.equal(labels[indices], y)
            taken.append((y[: share.own], y[: share.own]))
        shares.append(taken)
    merged = [batch[0] for batch in in_order(shares)]
    assert all(torch.equal(a, b) for a, b in zip(merged, whole, strict=True))


@pytest.mark.parametrize(
    ("signum", "ranks", "torchrun"),
    [
        (signal.SIGUSR1, [1], False),
        pytest.param(signal.SIGTERM, [0], False, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, [0, 1], False, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_any_process_saves_once_and_ends_all(options, tmp_path, signum, ranks, torchrun):
    command = ["fit", *NETWORK, *options, *TWO, "--trainer.max_epochs", "100000"]
    code, text, seconds = strike(tmp_path, command, signum, ranks, torchrun)
    assert code == SIGNALS[signum], text
    assert text.count("saved after step") == 1, text
    assert "Traceback" not in text
    assert seconds < 10


SLOW_RANK_0 = """
import os, time
if os.environ.get("LOCAL_RANK") != "1":
    from vgg_lightning import signals
    release = signals.release
    signals.release = lambda: (release(), time.sleep(2))
"""


SLOW_TO_EXIT = """
import atexit, os, time
if os.environ.get("LOCAL_RANK") != "1":
    atexit.register(time.sleep, 2)
"""


@pytest.mark.parametrize("slow", [SLOW_RANK_0, SLOW_TO_EXIT])
def test_a_process_that_ends_later_still_says_what_is_saved(slow, options, tmp_path):
    """The signal came to the other one, whose end is told to it by the same signal."""
    own = at_start(tmp_path, slow)
    command = ["fit", *NETWORK, *options, *TWO, "--trainer.max_epochs", "100000"]
    code, text, _ = strike(tmp_path, command, signal.SIGUSR1, [1], environment=own)
    assert code == SIGNALS[signal.SIGUSR1], text
    assert text.count("saved after step") == 1, text


NAN_IN_RANK_1 = """
import os
if os.environ.get("LOCAL_RANK") == "1":
    from vgg_lightning.classifier import Classifier
    step = Classifier.training_step
    Classifier.training_step = lambda self, *a: step(self, *a) * (float("nan") if self.global_step == 11 else 1)
"""


def test_not_a_number_in_one_process_stops_both(options, tmp_path):
    own = at_start(tmp_path, NAN_IN_RANK_1)
    command = ["fit", *NETWORK, *options, *TWO, "--checkpoint_every_n_steps", "1"]
    code, text = run(tmp_path, *command, environment=own)
    assert code == 3, text
    assert text.count("is NaN or Inf") == 1, text
    assert "step 11" in text
    assert "Traceback" not in text
    assert essence(only_run(tmp_path) / "checkpoints" / "last.ckpt")["global_step"] == 11


def resumed_like(whole, options, folder, rank, torchrun, wait="last-prev.ckpt"):
    """Kill a process of a run and resume it; return whether it ends as the unbroken one, and the seconds to the end."""
    command = ["fit", *NETWORK, *options, *TWO, "--checkpoint_every_n_steps", "1", "--trainer.max_epochs", "12"]
    code, text, seconds = strike(folder, command, signal.SIGKILL, [rank], torchrun, wait)
    assert code not in (0, None), text
    code, text = run(folder, *command, "--resume", torchrun=torchrun)
    assert code == 0, text
    found = differences(whole, everything(only_run(folder)))
    print(rank, torchrun, f"{seconds:.1f} s", found[:5])
    return not found, seconds


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    more = ["--checkpoint_every_n_steps", "1", "--trainer.max_epochs", "12"]
    code, text = run(folder, "fit", *NETWORK, *options, *TWO, *more)
    assert code == 0, text
    return everything(only_run(folder))


def test_killed_and_resumed_with_the_same_bits(whole, options, tmp_path):
    same, seconds = resumed_like(whole, options, tmp_path, 1, False)
    assert same
    assert seconds < 10


@pytest.mark.slow
def test_killed_ten_times(whole, options, tmp_path):
    results = []
    for i in range(10):
        folder = tmp_path / str(i)
        folder.mkdir()
        results.append(resumed_like(whole, options, folder, i % 2, i >= 6, ["last.ckpt", "last-prev.ckpt"][i // 2 % 2]))
    same = sum(same for same, _ in results)
    record(f"two processes, one killed; all gone after {max(s for _, s in results):.1f} s at most", same, 10)
    assert same == 10
    assert max(seconds for _, seconds in results) < 10


REFUSED = {
    "--trainer.devices 64": "--trainer.devices 64: this machine has",
    "--trainer.devices 2 --data.batch_size 1": "--data.batch_size 1 is less than the 2 processes",
    "--trainer.devices 2 --trainer.strategy ddp_spawn": "--trainer.strategy ddp_spawn is not supported",
    "--trainer.devices 2 --trainer.strategy ddp_fork": "--trainer.strategy ddp_fork is not supported",
    "--trainer.devices 2 --trainer.strategy ddp_notebook": "--trainer.strategy ddp_notebook is not supported",
    "--trainer.devices 2 --trainer.strategy deepspeed": "deepspeed",
    "--trainer.strategy fsdp": "give --trainer.devices 2 or more",
    "--trainer.devices 2 --trainer.strategy fsdp": "--model.ema_decay 0.7 is not possible with fsdp",
    "--trainer.num_nodes 2": "torchrun or srun",
    "--trainer.devices 2 --trainer.sync_batchnorm true": "--trainer.sync_batchnorm works on GPUs only",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_work_is_one_line(words, options, tmp_path, capsys, monkeypatch):
    from vgg_lightning.__main__ import main

    monkeypatch.chdir(tmp_path)
    assert main(once(["fit", *NETWORK, *options, *words.split()])) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert REFUSED[words] in line
    assert not list(tmp_path.iterdir())


def by_hand(folder, command, ranks, paths, patience):
    """Start some ranks of two as a launcher would, and return (exit code, text, seconds) of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    begin, processes = time.monotonic(), []
    for rank in ranks:
        own = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
            "ROLE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
            "PYTHONPATH": str(paths[rank]), "VGG_LIGHTNING_PATIENCE": str(patience),
        }  # fmt: skip
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "vgg_lightning", *once(command)],
                cwd=folder,
                env=environment() | own,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    texts = [process.communicate(timeout=600)[0] for process in processes]
    return [(p.returncode, text, time.monotonic() - begin) for p, text in zip(processes, texts, strict=True)]


def test_a_process_with_other_code_is_named(options, tmp_path):
    import shutil

    here = environment()["PYTHONPATH"]
    shutil.copytree(f"{here}/vgg_lightning", tmp_path / "other" / "vgg_lightning")
    with (tmp_path / "other" / "vgg_lightning" / "tta.py").open("a") as stream:
        stream.write("\n# changed\n")
    paths = [here, tmp_path / "other"]
    first, second = by_hand(tmp_path, ["fit", *NETWORK, *options], [0, 1], paths, patience=60)
    assert (first[0], second[0]) == (2, 2), first[1] + second[1]
    assert first[1].strip().splitlines()[-1].startswith("error: rank 1 has other code than rank 0")
    assert not second[1].strip()


def test_a_process_that_never_comes_is_named(options, tmp_path):
    here = environment()["PYTHONPATH"]
    ((code, text, _),) = by_hand(tmp_path, ["fit", *NETWORK, *options], [0], [here], patience=1)
    assert code == 2, text
    assert "1 of 2 processes have come within 1 s, rank 1 not" in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_fsdp_writes_what_a_single_process_opens(runs, options, tmp_path):
    command = ["fit", *options, *PLAIN, *TWO, "--model.ema_decay", "0", "--data.augment", "[]"]
    code, text = run(tmp_path, *command, "--trainer.strategy", "fsdp")
    assert code == 0, text
    parted, whole = (
        load_classifier(folder / "checkpoints" / "last.ckpt") for folder in (only_run(tmp_path), runs["two"])
    )
    for a, b in zip(parted.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_fsdp_tests_and_resumes_with_an_optimizer_that_has_no_state(options, tmp_path):
    command = ["fit", *options, *PLAIN, *TWO, "--model.ema_decay", "0", "--model.momentum", "0", "--data.augment", "[]"]
    for more in ([], ["--resume", "--trainer.max_epochs", "3"]):
        code, text = run(tmp_path, *command, "--trainer.strategy", "fsdp", *more)
        assert code == 0, text
        assert "test accuracy" in text


@pytest.mark.slow
def test_vgg19_in_full_under_fsdp(tmp_path):
    """143 million parameters on two processes, 3 x 224 x 224, 1000 classes; two steps."""
    script = Path(__file__).with_name("large.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", script, tmp_path]
    done = subprocess.run(command, env=environment(), text=True, capture_output=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    found = load_classifier(tmp_path / "large.ckpt")
    assert sum(p.numel() for p in found.parameters()) == 143_667_240


@pytest.mark.slow
def test_slurm_requeues_on_sigusr1_and_goes_on_with_the_same_bits(whole, options, tmp_path):
    """The job script with an `srun` that starts two processes, and a `scontrol` that notes what it is told."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    srun = """#!/usr/bin/env bash
trap 'kill -USR1 $(jobs -p)' USR1
for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NODEID=0 "$@" & done
code=0
for job in $(jobs -p); do
  wait $job; c=$?
  while kill -0 $job 2>/dev/null; do wait $job; c=$?; done
  [ $c -gt $code ] && code=$c
done
exit $code
"""
    (bin_ / "srun").write_text(srun)
    (bin_ / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    for file in bin_.iterdir():
        file.chmod(0o755)
    own = {
        "PATH": f"{bin_}:{os.environ['PATH']}", "PYTHON": sys.executable, "SLURM_NTASKS": "2", "SLURM_NNODES": "1",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_ID": str(40000 + os.getpid() % 9999), "SLURM_JOB_NAME": "vgg",
        "SLURM_NODELIST": "127.0.0.1",
    }  # fmt: skip
    script = f"{environment()['PYTHONPATH']}/docs/scripts/slurm.sh"
    command = once(["fit", *NETWORK, *options, "--checkpoint_every_n_steps", "1", "--trainer.max_epochs", "12"])[1:]

    def job():
        return subprocess.Popen(
            ["bash", script, *command], cwd=tmp_path, env=environment() | own, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    process = job()
    wait_for(tmp_path, "lightning_logs/*/*/checkpoints/last-prev.ckpt", process)
    (stub,) = children_of(process.pid)
    os.kill(stub, signal.SIGUSR1)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 138, text
    assert (tmp_path / "asked").read_text() == f"requeue {own['SLURM_JOB_ID']}\n"
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    process = job()
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    assert not differences(whole, everything(only_run(tmp_path)))


@pytest.mark.slow
def test_main_with_options_of_its_own_starts_processes_with_them(options, tmp_path, monkeypatch, capfd):
    """As in a notebook, where sys.argv is something else; and twice in the same program."""
    from vgg_lightning.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["notebook"])
    before = dict(os.environ)
    for name in ("a", "b"):
        command = ["fit", *options, *PLAIN, *TWO, "--name", name, "--trainer.max_epochs", "1", "--test", "false"]
        assert main(once(command)) == 0, capfd.readouterr()
    assert len(list(tmp_path.glob("lightning_logs/*/version_0/results.json"))) == 2
    changed = set(before.keys() ^ os.environ.keys()) - {"PYTEST_CURRENT_TEST"}
    assert changed <= {"OMP_NUM_THREADS", "PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"}
