"""Freed memory is kept, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: Page faults of the last of four equal rounds of large tensors.
FAULTS = """
import resource, torch
from lmd_cli.runtime.allocator import keep_freed_memory
print(keep_freed_memory() if {keep} else None)
def run():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(4_000_000) + 1.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([run() for _ in range(4)][-1])
"""


def faults(keep: bool, **environment: str) -> list[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)],
        env={**env, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_large_tensors_reuse_memory() -> None:
    _, plain = faults(keep=False, MALLOC_MMAP_THRESHOLD_="131072")  # as it is fetched anew
    kept, few = faults(keep=True)
    assert kept == "True"
    assert int(few) < 500
    assert int(plain) > 5 * 16_000_000 // 2**16  # at most 64 kB a page


def test_an_allocator_that_somebody_tuned_is_left_alone() -> None:
    assert faults(keep=True, MALLOC_ARENA_MAX="2")[0] == "False"
    assert faults(keep=True, GLIBC_TUNABLES="glibc.malloc.check=0")[0] == "False"
