"""Folders that are made on the way are this user's alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from voicebus.common.apikeys import ApiKeys
from voicebus.common.atomic import private_folder
from voicebus.common.audit import Actor, Audit

MakesFolder = Callable[[Path], object]


def write_audit(folder: Path) -> None:
    with Audit(folder / "audit.jsonl").act("voice.add", Actor("vc"), voice="nina"):
        pass


def open_to_others(folder: Path) -> int:
    return folder.stat().st_mode & 0o077


@pytest.mark.parametrize(
    "make",
    [private_folder, write_audit, lambda folder: ApiKeys(folder / "api-keys.json").new("studio")],
    ids=["by itself", "audit", "API keys"],
)
def test_whatever_comes_first_makes_a_private_folder(tmp_path: Path, make: MakesFolder) -> None:
    """The journal trusts the mode of `state`, which was the umask's where a voice was added first."""
    before = os.umask(0o022)
    try:
        make(tmp_path / "state" / "within")
    finally:
        os.umask(before)
    assert not open_to_others(tmp_path / "state")
    assert not open_to_others(tmp_path / "state" / "within")


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o750)
    private_folder(shared / "own")
    assert open_to_others(shared) == 0o050
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        private_folder(tmp_path / "link")
