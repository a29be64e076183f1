"""Memory that tensors free stays with the process, measured in processes of their own."""

import os
import subprocess
import sys

import pytest
import small

CODE = """
import sys, torch
from pathlib import Path
from vgg_lightning.base.machine import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
tensors = [torch.ones(2**21) for _ in range(16)]
full = resident()
del tensors
print(kept, full - resident())
"""
TAKEN = 16 * 2**21 * 4  # bytes of these tensors


def given_back(word, **variables):
    """Return what keep_freed_memory said, and how many bytes the system got back when tensors were freed."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", CODE, word]
    done = subprocess.run(command, env={**plain, **variables}, capture_output=True, text=True, check=True)
    said, count = done.stdout.split()
    return said, int(count)


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="glibc"
)
def test_freed_memory_is_kept():
    _, plain = given_back("plain")
    said, kept = given_back("keep")
    assert said == "True"
    assert plain > 0.8 * TAKEN
    assert kept < 0.2 * TAKEN


def test_what_the_environment_sets_stays():
    said, freed = given_back("keep", MALLOC_ARENA_MAX="2")
    assert said == "False"
    assert freed > 0.8 * TAKEN


def test_another_c_library_changes_nothing(monkeypatch):
    from vgg_lightning.base import machine

    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: object())
    assert not machine.keep_freed_memory()


@pytest.mark.parametrize(("free", "kept"), [(10**12, [True]), (10**6, [])])
def test_a_run_keeps_memory_only_where_there_is_room(free, kept, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("vgg_lightning.prepare.data.free_memory", lambda: free)
    monkeypatch.setattr("vgg_lightning.prepare.data.keep_freed_memory", lambda: calls.append(True))
    launched = small.fit(tmp_path, "--trainer.fast_dev_run", "true")
    assert launched.code == 0, launched.err
    assert calls == kept
