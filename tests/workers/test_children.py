from __future__ import annotations

import os
import platform
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from voicebus.workers import children

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


def test_the_links_folder_is_private_and_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path has about a hundred bytes; some systems' temporary folders take most of them."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(children.tempfile, "tempdir", str(long))
    folder = children._private_folder()
    try:
        assert len(folder) < 60
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        assert not any(long.iterdir())
    finally:
        os.rmdir(folder)


def test_threads_reach_the_libraries_before_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    environment = children.engine_environment(3)
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "3"
    assert environment["OMP_WAIT_POLICY"] == "passive"
    assert "OMP_NUM_THREADS" not in children.engine_environment(None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "OMP_WAIT_POLICY" not in children.engine_environment(3), "who set it knows why"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_huge_pages_are_asked_for_beside_what_the_operator_tunes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert children.engine_environment(None)["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    tuned = children.engine_environment(None)["GLIBC_TUNABLES"]
    assert tuned == "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert "GLIBC_TUNABLES" not in children.engine_environment(None), "who set it knows why"


@pytest.mark.skipif(not gives_huge_pages(), reason="neither this kernel nor another C library gives them so")
def test_what_is_allocated_with_that_environment_is_marked_for_huge_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert marked(os.environ) == 0
    assert marked({**os.environ, **children.engine_environment(1)}) >= 1


def test_memory_of_a_process_that_is_gone_is_nothing() -> None:
    assert children.rss_bytes(2**22 + 1) == 0
