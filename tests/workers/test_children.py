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


def test_memory_of_a_process_that_is_gone_is_nothing() -> None:
    assert children.rss_bytes(2**22 + 1) == 0
