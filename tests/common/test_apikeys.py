"""API keys: shown once, kept as hashes, found in constant time, gone when revoked."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from voicebus.common.apikeys import ApiKeys
from voicebus.common.errors import BadRequest, ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


def test_a_key_is_found_by_itself_and_not_by_what_is_kept(file: Path) -> None:
    keys = ApiKeys(file)
    made, key = keys.new("laptop", tenant="studio", rpm=60)
    assert keys.find(key) == made
    assert (made.name, made.tenant, made.rpm) == ("laptop", "studio", 60)
    assert key not in file.read_text()
    assert key[12:] not in file.read_text()
    for wrong in (
        key[:-1],
        key + "a",
        made.sha256,
        f"vb_{made.id}_{'a' * 43}",
        "",
        "x",
        key.upper(),
        "\ud800",
    ):
        assert keys.find(wrong) is None


def test_another_process_sees_a_key_that_comes_and_goes(file: Path) -> None:
    here, there = ApiKeys(file), ApiKeys(file)
    assert there.find("vb_00000000_" + "a" * 43) is None
    made, key = here.new("a")
    assert there.find(key) == made
    here.revoke(made.id)
    assert there.find(key) is None
    with pytest.raises(BadRequest, match="vc keys api list"):
        there.revoke(made.id)


def test_no_key_is_lost_when_many_are_made_at_once(file: Path) -> None:
    threads = [threading.Thread(target=lambda: ApiKeys(file).new("a")) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ApiKeys(file).all()) == 12


@pytest.mark.parametrize(("name", "rpm"), [("", None), ("a" * 200, None), ("a", 0)])
def test_a_key_that_cannot_be_made_changes_nothing(file: Path, name: str, rpm: int | None) -> None:
    with pytest.raises(BadRequest):
        ApiKeys(file).new(name, rpm=rpm)
    assert ApiKeys(file).all() == ()


@pytest.mark.parametrize("content", ["{", "[1]", '[{"id": "../../x"}]', "[]" + " " * 9_000_000])
def test_a_file_that_is_none_is_a_wrong_configuration(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"keys\.json"):
        ApiKeys(file).all()
