"""Where a key may stand, and who is let in without one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus
from voicebus.common.apikeys import ApiKeys
from voicebus.common.config import Edge
from voicebus.common.errors import ConfigError, Unauthorized
from voicebus.edge.cli import refuse_open_edge
from voicebus.edge.keys import NOBODY, Keys, key_in


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, ""),
        ({"Authorization": "Bearer abc"}, "abc"),
        ({"Authorization": "bearer  abc "}, "abc"),
        ({"Authorization": "Basic abc"}, ""),
        ({"Authorization": "Bearer"}, ""),
        ({"xi-api-key": "abc"}, "abc"),
        ({"Authorization": "Basic abc", "xi-api-key": "def"}, "def"),
        ({"Sec-WebSocket-Protocol": "voicebus.status, voicebus.key.abc"}, "abc"),
    ],
)
def test_where_a_key_stands(headers: dict[str, str], key: str) -> None:
    assert key_in(headers) == key


def test_without_a_file_of_keys_everybody_is_let_in() -> None:
    assert Keys(Edge()).caller({"Authorization": "Bearer x"}) is NOBODY


def test_a_key_names_its_tenant_and_quota(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made, key = ApiKeys(file).new("a", tenant="studio", rpm=7)
    keys = Keys(Edge(api_keys=str(file)))
    caller = keys.caller({"xi-api-key": key})
    assert (caller.key, caller.tenant, caller.rpm) == (made.id, "studio", 7)
    for headers in ({}, {"xi-api-key": "x"}, {"xi-api-key": key[:-1] + ("a" if key[-1] != "a" else "b")}):
        with pytest.raises(Unauthorized):
            keys.caller(headers)


@pytest.mark.parametrize(
    ("host", "refused"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("example.org", True)],  # noqa: S104 - refused
)
def test_an_edge_that_others_reach_asks_for_keys(host: str, refused: bool) -> None:
    if refused:
        with pytest.raises(ConfigError, match="vc keys api new"):
            refuse_open_edge(Edge(host=host))
    else:
        refuse_open_edge(Edge(host=host))
    refuse_open_edge(Edge(host=host, allow_without_keys=True))
    refuse_open_edge(Edge(host=host, api_keys="keys.json"))


def test_wyoming_is_open_to_others_only_where_that_is_said() -> None:
    """It went along with an edge that asks for keys, and asked for none."""
    wide = Edge(host="example.org", api_keys="keys.json", wyoming_port=10200)
    with pytest.raises(ConfigError, match=r"edge\.wyoming_port"):
        refuse_open_edge(wide)
    refuse_open_edge(msgspec.structs.replace(wide, allow_without_keys=True))
    refuse_open_edge(msgspec.structs.replace(wide, host="127.0.0.1"))


def test_trying_out_keys_uses_up_a_share(bus: Bus, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    ApiKeys(file).new("mine")
    with EdgeProcess(bus, edge={"api_keys": str(file), "ip_rpm": 3}) as edge, edge.client() as http:
        tries = [
            http.get("/v1/models", headers={"Authorization": f"Bearer {n}"}).status_code for n in range(5)
        ]
    assert tries == [401, 401, 401, 429, 429]


def test_a_file_of_keys_that_is_broken_is_told_without_its_path(bus: Bus, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text("[]")
    with EdgeProcess(bus, edge={"api_keys": str(file)}) as edge, edge.client() as http:
        file.write_text("{")
        answer = http.get("/v1/models", headers={"xi-api-key": "a"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "config_error")
        assert str(tmp_path) not in answer.text
