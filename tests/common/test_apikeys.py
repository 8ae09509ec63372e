"""API keys: shown once, kept as hashes, found in constant time, gone when revoked."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from voicebus.common.apikeys import ApiKeys, has_expired
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


@pytest.mark.parametrize(
    ("name", "wishes"),
    [
        ("", {}),
        ("a" * 200, {}),
        ("a", {"rpm": 0}),
        ("a", {"chars_per_day": 0}),
        ("a", {"scopes": ["speak", "everything"]}),
        ("a", {"expires": datetime.now(UTC) - timedelta(seconds=1)}),
        ("a\nvb_00000000 root", {}),
        ("a\x1b[2J", {}),
        ("a\u202eb", {}),
        ("a", {"tenant": "b\x00"}),
    ],
)
def test_a_key_that_cannot_be_made_changes_nothing(file: Path, name: str, wishes: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        ApiKeys(file).new(name, **wishes)
    assert ApiKeys(file).all() == ()
    assert not file.exists()


def test_a_key_may_as_little_as_most_need_and_shares_nothing_with_others(file: Path) -> None:
    keys = ApiKeys(file)
    plain, _ = keys.new("laptop")
    assert (plain.scopes, plain.tenant, plain.expires) == (("speak",), "laptop", None)
    full, _ = keys.new("desk", scopes=["operate", "speak", "speak"], tenant="studio", chars_per_day=5)
    assert (full.scopes, full.tenant, full.chars_per_day) == (("speak", "operate"), "studio", 5)
    assert ApiKeys(file).all() == (plain, full)


def test_a_key_ends_at_its_moment_and_not_before(file: Path) -> None:
    keys = ApiKeys(file)
    made, key = keys.new("a", expires=datetime.now(UTC) + timedelta(hours=1))
    assert not has_expired(made)
    content = json.loads(file.read_text())
    content[0]["expires"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    file.write_text(json.dumps(content))
    found = keys.find(key)
    assert found is not None
    assert has_expired(found)
    content[0]["expires"] = "2099-01-01T00:00:00"
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="no file of keys"):  # of no zone: nobody knows when that is
        keys.find(key)


@pytest.mark.parametrize("content", ["{", "[1]", '[{"id": "../../x"}]', "[]" + " " * 9_000_000])
def test_a_file_that_is_none_is_a_wrong_configuration(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"keys\.json"):
        ApiKeys(file).all()
