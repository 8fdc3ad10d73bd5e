"""Keeps memory that tensors free on a CPU for the tensors that follow.

The C library hands large blocks back to the system as soon as they are free, and fetches them anew,
page by page, for the next tensor. Where pages are dear (on virtual machines above all) that takes
longer than the arithmetic: stacks of parts of half a gigabyte then cost twice their time.
"""

from __future__ import annotations

import ctypes
import os
import sys

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

#: Environment variables by which somebody tunes the allocator: then nothing is changed.
_TUNED = ("MALLOC_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Makes this process keep what it has freed, until it ends.

    It costs no memory at the peak. Values are the same: only where they lie changes.

    Returns:
        Whether it does: the C library must be glibc, and its allocator not tuned already.
    """
    if sys.platform != "linux" or any(name.startswith(_TUNED) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
