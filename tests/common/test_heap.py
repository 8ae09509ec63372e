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
if %r:
    assert keep_freed_memory()
before = 0
for round in range(101):
    if round == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [library.malloc(256 * 1024) for _ in range(16)]
    for block in blocks:
        library.memset(block, 1, 256 * 1024)
    for block in blocks:
        library.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""A hundred times 16 chunks of a result."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has another heap")
def test_pages_are_not_faulted_in_for_each_message() -> None:
    """Without it each of these chunks costs the kernel 64 zeroed pages, more than copying it."""
    faults: list[int] = []
    for kept in (False, True):
        code = [sys.executable, "-c", FAULTS % kept]
        faults.append(int(subprocess.run(code, capture_output=True, text=True, check=True).stdout))
    without, kept = faults
    assert without > 10_000
    assert kept < 1000
