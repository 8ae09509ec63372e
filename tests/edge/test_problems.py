"""Every error of the bus as HTTP: both readers find theirs, and the docs page has every code."""

from __future__ import annotations

import json

import pytest

from voicebus.common.errors import BusError, Overloaded, Unauthorized
from voicebus.edge.docs_page import docs_page
from voicebus.edge.openapi import document
from voicebus.edge.problems import answer
from voicebus.edge.reading import WrongField


@pytest.mark.parametrize("code", sorted(BusError.by_code))
def test_each_code(code: str) -> None:
    error = BusError.by_code[code]("what went wrong")
    made = answer(error, "r-1")
    assert isinstance(made.body, bytes)
    body = json.loads(made.body)
    assert made.status == body["status"] == error.http_status
    assert body["error"] == {
        "message": "what went wrong",
        "type": body["error"]["type"],
        "param": None,
        "code": code,
    }
    assert body["instance"] == "urn:request:r-1"
    eleven = answer(error, "r-1", shape="elevenlabs")
    assert isinstance(eleven.body, bytes)
    assert json.loads(eleven.body) == {"detail": {"status": code, "message": "what went wrong"}}
    assert f'id="{code}"' in docs_page(document([], "1"))


@pytest.mark.parametrize(("after_s", "header"), [(0.01, "1"), (1.0, "1"), (1.2, "2"), (59.01, "60")])
def test_retry_after_is_whole_seconds_and_never_too_early(after_s: float, header: str) -> None:
    assert answer(Overloaded("full", retry_after_s=after_s), "r").headers["Retry-After"] == header


def test_what_else_a_status_asks_for() -> None:
    assert answer(Unauthorized("no"), "r").headers["WWW-Authenticate"].startswith("Bearer")
    made = answer(WrongField("speed: too fast", "speed"), "r")
    assert isinstance(made.body, bytes)
    assert json.loads(made.body)["error"]["param"] == "speed"
