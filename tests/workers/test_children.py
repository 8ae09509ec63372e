from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from voicebus.workers import children


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
    environment = children.thread_environment(3)
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "3"
    assert children.thread_environment(None) == {"OMP_WAIT_POLICY": "passive"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert children.thread_environment(None) == {}, "who set it knows why"


def test_memory_of_a_process_that_is_gone_is_nothing() -> None:
    assert children.rss_bytes(2**22 + 1) == 0
