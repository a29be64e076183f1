"""Processes of their own that prepare the data: many at once, killed, or on a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

# A process of its own that prepares the data set described by its arguments.
CHILD = """
import dataclasses, json, resource, sys
from vgg_lightning.data.sources.catalogue import DATASETS, mnist_like_files
from vgg_lightning.data.files import prepare
root, counts, checksums, limit = json.loads(sys.argv[1])
files = mnist_like_files(tuple(counts), tuple(checksums))
DATASETS["fashion_mnist"] = dataclasses.replace(DATASETS["fashion_mnist"], files=files)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
prepare(root)
"""


def start(good, root, limit=None):
    files = good.dataset.files
    order = json.dumps([str(root), [file.count for file in files], [file.sha256 for file in files], limit])
    return subprocess.Popen([sys.executable, "-c", CHILD, order], stderr=subprocess.PIPE, text=True)


def raw(root):
    return root / "FashionMNIST" / "raw"


def parts(root):
    return [path.name for path in raw(root).glob(".*.part")] if raw(root).exists() else []


def wait_for_part(root):
    """Wait until a process writes a file, and return that process's number."""
    deadline = time.monotonic() + 120
    while not parts(root):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(parts(root)[0].split(".")[-2])


def test_eight_processes_at_once_download_once(best, root, mirror_of):
    mirror = mirror_of(best.gz)
    mirror.pause = 0.005
    mirror.breaking = {"train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"}
    children = [start(best, root) for _ in range(8)]
    said = [child.communicate(timeout=600)[1] for child in children]
    assert [child.returncode for child in children] == [0] * 8, said
    assert best.is_in(raw(root))
    assert mirror.completed == {path.name: 1 for path in best.gz.iterdir()}
    assert mirror.asked.total() == 6, "four files, two of them twice"
    assert sum("trying again" in text for text in said) == 1


def test_a_waiting_process_takes_over_from_a_killed_one(tiny, root, mirror_of):
    mirror = mirror_of(tiny.gz)
    mirror.pause = 0.05
    children = [start(tiny, root) for _ in range(2)]
    killed = wait_for_part(root)
    os.kill(killed, signal.SIGKILL)
    mirror.pause = 0
    codes = {child.pid: (child.communicate(timeout=300), child.returncode)[1] for child in children}
    assert codes.pop(killed) == -signal.SIGKILL
    assert list(codes.values()) == [0]
    assert tiny.is_in(raw(root))


def test_the_next_process_mends_what_a_killed_one_left(best, root, mirror_of):
    mirror = mirror_of(best.gz)
    mirror.pause = 0.05
    child = start(best, root)
    wait_for_part(root)
    child.kill()
    child.communicate()
    assert parts(root), "killed too late: the test is void"
    mirror.pause = 0
    child = start(best, root)
    said = child.communicate(timeout=300)[1]
    assert child.returncode == 0, said
    assert best.is_in(raw(root))


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny, root, mirror_of):
    mirror_of(tiny.gz)
    child = start(tiny, root, limit=20_000)
    last = child.communicate(timeout=300)[1].splitlines()[-1]
    assert "cannot write" in last
    assert "train-images-idx3-ubyte (File too large): make room" in last
    assert not parts(root)
    assert not (raw(root) / "train-images-idx3-ubyte").exists()
