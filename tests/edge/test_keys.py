"""Where a key may stand, and who is let in without one."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("example.org", True)],
)
def test_an_edge_that_others_reach_asks_for_keys(host: str, refused: bool) -> None:
    if refused:
        with pytest.raises(ConfigError, match="vc keys api new"):
            refuse_open_edge(Edge(host=host))
    else:
        refuse_open_edge(Edge(host=host))
    refuse_open_edge(Edge(host=host, allow_without_keys=True))
    refuse_open_edge(Edge(host=host, api_keys="keys.json"))
