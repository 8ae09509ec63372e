"""Freed memory is kept: the next message finds its pages there."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource
from voicebus.common.heap import keep_freed_memory
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
size, kept, computes = %r
if kept:
    assert keep_freed_memory(computes=computes)
before = 0
for round in range(101):
    if round == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [library.malloc(size) for _ in range(16 if size < 2**20 else 4)]
    for block in blocks:
        library.memset(block, 1, size)
    for block in blocks:
        library.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""A hundred times 16 chunks of a result, or 4 larger blocks."""


def faults(size_bytes: int, *, kept: bool, computes: bool = False) -> int:
    code = [sys.executable, "-c", FAULTS % ((size_bytes, kept, computes),)]
    return int(subprocess.run(code, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has another heap")
def test_pages_are_not_faulted_in_for_each_message() -> None:
    """Without it each of these chunks costs the kernel 64 zeroed pages, more than copying it."""
    assert faults(256 * 1024, kept=False) > 10_000
    assert faults(256 * 1024, kept=True) < 1000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has another heap")
def test_a_process_that_computes_keeps_the_blocks_of_a_model() -> None:
    """What suits messages had XTTS take a quarter longer for eight rows: 8 MiB were faulted in each step."""
    size_bytes = 8 * 1024 * 1024
    assert faults(size_bytes, kept=True) > 100_000
    assert faults(size_bytes, kept=True, computes=True) < 10_000
