"""Memory that one step frees serves the next, measured in page faults of processes of their own."""

import os
import subprocess
import sys

import pytest
import small

CODE = """
import resource, sys, torch
from vgg_lightning.training.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
layers = [torch.nn.Conv2d(1 if not i else 8, 8, 3, padding=1) for i in range(4)]
network = torch.nn.Sequential(*(layer for conv in layers for layer in (conv, torch.nn.ReLU())))
for step in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    network(torch.randn(64, 1, 112, 112)).mean().backward()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word, **variables):
    """Return what keep_freed_memory said, and how many page faults the last of some training steps cost."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", CODE, word]
    done = subprocess.run(command, env={**plain, **variables}, capture_output=True, text=True, check=True)
    said, count = done.stdout.split()
    return said, int(count)


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="glibc"
)
def test_a_step_gets_the_pages_that_another_one_freed():
    _, given_back = faults("plain")
    said, kept = faults("keep")
    assert said == "True"
    if not given_back:
        pytest.skip("this system does not count page faults")
    assert kept < given_back / 3


def test_what_the_environment_sets_stays():
    assert faults("keep", MALLOC_ARENA_MAX="2")[0] == "False"


def test_another_c_library_changes_nothing(monkeypatch):
    from vgg_lightning.training import allocator

    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()


@pytest.mark.parametrize(("free", "kept"), [(10**12, [True]), (10**6, [])])
def test_a_run_keeps_memory_only_where_there_is_room(free, kept, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("vgg_lightning.cli.free_memory", lambda: free)
    monkeypatch.setattr("vgg_lightning.cli.keep_freed_memory", lambda: calls.append(True))
    launched = small.fit(tmp_path, "--trainer.fast_dev_run", "true")
    assert launched.code == 0, launched.err
    assert calls == kept
