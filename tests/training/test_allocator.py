"""Memory that one step frees serves the next, measured in page faults of processes of their own."""

import os
import subprocess
import sys

import pytest

PAGES = 256 * 2**20 // os.sysconf("SC_PAGE_SIZE")  # of a tensor of 256 MB
CODE = """
import resource, sys, torch
from vgg_lightning.training.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * 2**20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word, **variables):
    """Return what the last of three equal tensors costs in page faults, and what keep_freed_memory said."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", CODE, word]
    done = subprocess.run(command, env={**plain, **variables}, capture_output=True, text=True, check=True)
    said, count = done.stdout.split()
    return said, int(count)


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="glibc"
)
def test_a_tensor_gets_the_pages_that_another_one_freed():
    _, given_back = faults("plain")
    said, kept = faults("keep")
    assert said == "True"
    assert kept < PAGES / 100
    # Huge pages may make the kernel's work smaller, and never as small.
    assert given_back > 10 * max(kept, 1)


def test_what_the_environment_sets_stays():
    assert faults("keep", MALLOC_ARENA_MAX="2")[0] == "False"


def test_another_c_library_changes_nothing(monkeypatch):
    from vgg_lightning.training import allocator

    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
