from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from voicebus.workers import environment
from voicebus.workers.environment import engine_environment

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ALLOCATES = """
import ctypes
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
assert library.malloc(ctypes.c_size_t(16 * 2**20))
flags = [line.split()[1:] for line in open("/proc/self/smaps") if line.startswith("VmFlags:")]
print(sum("hg" in of_one_map for of_one_map in flags))
"""


def gives_huge_pages() -> bool:
    library, version = platform.libc_ver()
    if library != "glibc" or not THP.exists():
        return False
    return tuple(map(int, version.split("."))) >= (2, 35) and "[madvise]" in THP.read_text()


def marked(environment: Mapping[str, str]) -> int:
    """How many maps of a process that took 16 MiB from glibc are marked for huge pages."""
    code = [sys.executable, "-c", ALLOCATES]
    return int(subprocess.run(code, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(environment, "usable_cores", lambda: 4)
    monkeypatch.setattr(environment, "default_threads", lambda: 4)


def test_threads_reach_the_libraries_before_they_are_loaded() -> None:
    three = engine_environment(3)
    assert three["OMP_NUM_THREADS"] == three["OPENBLAS_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in engine_environment(None)


@pytest.mark.parametrize(
    ("threads", "slots", "spins"),
    [
        (4, 1, True),
        (2, 2, True),
        (1, 4, True),
        (None, 1, True),
        (5, 1, False),
        (2, 3, False),
        (None, 2, False),
    ],
)
def test_threads_spin_shortly_if_each_has_a_core_and_else_sleep(
    threads: int | None, slots: int, *, spins: bool
) -> None:
    """Asleep at once, XTTS was 7 % slower on cores of its own; spinning as usual, 3 times on shared ones."""
    chosen = engine_environment(threads, slots)
    assert chosen["OMP_WAIT_POLICY"] == "passive"
    assert ("GOMP_SPINCOUNT" in chosen) is spins


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_how_threads_wait_is_left_to_the_operator_who_says_so(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "7")
    assert not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(engine_environment(1))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_huge_pages_are_asked_for_beside_what_the_operator_tunes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_environment(None)["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    tuned = engine_environment(None)["GLIBC_TUNABLES"]
    assert tuned == "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert "GLIBC_TUNABLES" not in engine_environment(None), "who set it knows why"


@pytest.mark.skipif(not gives_huge_pages(), reason="neither this kernel nor another C library gives them so")
def test_what_is_allocated_with_that_environment_is_marked_for_huge_pages() -> None:
    assert marked(os.environ) == 0
    assert marked({**os.environ, **engine_environment(1)}) >= 1
