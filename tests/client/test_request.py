"""What callers ask for: checked here, packed as the protocol says, and learnt limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.client.face import Limits, add_page, addresses, limits_of
from voicebus.client.request import Manner, Packer, Utterance, merged, utterance
from voicebus.common.errors import BadRequest, TextTooLong

options = st.dictionaries(
    st.text(max_size=64),
    st.one_of(st.text(), st.integers(-(2**63), 2**64 - 1), st.booleans(), st.none()),
    max_size=5,
)


@given(st.sampled_from(["", "amber"]), st.sampled_from(["", "en-us"]), st.floats(0.25, 4), options)
def test_a_header_is_the_array_of_the_protocol(
    voice: str, language: str, speed: float, given_options: dict[str, Any]
) -> None:
    manner = Manner(voice, "tone", language, speed, "interactive", True, given_options)
    packed = Packer("me").header(manner, 7)
    assert msgpack.unpackb(packed) == [
        "tone",
        voice,
        language,
        "interactive",
        "me",
        7,
        speed,
        True,
        given_options,
        "",
    ]


@pytest.mark.parametrize(
    ("manner", "says"),
    [
        (Manner(voice="No"), "voice 'No'"),
        (Manner(voice="../amber"), "voice"),
        (Manner(engine="e" * 129), "engine"),
        (Manner(language="english, please"), "language"),
        (Manner(lane="fast"), "lane 'fast'"),
        (Manner(speed=0.1), "speed 0.1"),
        (Manner(speed=float("nan")), "speed"),
        (Manner(options={"a": [1]}), "options"),
        (Manner(options={"a": object()}), "options"),
        (Manner(options={"a": 2**70}), "options"),
        (Manner(options={"a": "x" * 20_000}), "options"),
    ],
)
def test_what_will_not_do_is_named(manner: Manner, says: str) -> None:
    packer = Packer()
    for _ in range(2):
        with pytest.raises(BadRequest, match=says):
            packer.header(manner, 1)
    packer.header(Manner(), 1)


def test_texts_are_judged_before_they_travel() -> None:
    packer = Packer()
    assert packer.payload("é") == b"\xc3\xa9"
    for text in ("", " \n", "\ud800"):
        with pytest.raises(BadRequest):
            packer.payload(text)
    with pytest.raises(TextTooLong):
        packer.payload("x" * 100_001)


@dataclass
class Row:
    text: str
    voice: str | None = None


@pytest.mark.parametrize(
    "item", ["Hi.", {"text": "Hi."}, Row("Hi."), Utterance("Hi."), {"text": "Hi.", "voice": None}]
)
def test_a_line_may_have_any_of_its_forms(item: object) -> None:
    assert utterance(item) == Utterance("Hi.")


@pytest.mark.parametrize("item", [None, 3, b"Hi.", {"words": "Hi."}, {"text": 3}, {"text": "Hi.", "pace": 2}])
def test_a_line_that_is_none_is_told_so(item: object) -> None:
    with pytest.raises(BadRequest, match="line"):
        utterance(item)


def test_a_line_overrides_the_call_and_only_where_it_says_something() -> None:
    call = Manner("amber", "tone", "en", 1.0, options={"a": 1, "b": 2})
    assert merged(call, Utterance("x")) is call
    own = merged(call, Utterance("x", voice="basil", options={"b": 3}))
    assert own == Manner("basil", "tone", "en", 1.0, options={"a": 1, "b": 3})


def test_limits_are_read_off_the_status_and_missing_ones_are_the_usual() -> None:
    limits = limits_of(
        {
            "default_engine": "tone",
            "engines": {"tone": {"max_chars": 90, "workers": 40, "slots": 80}, "odd": {}},
        }
    )
    assert (limits.chars(""), limits.chars("tone"), limits.chars("other")) == (90, 90, 400)
    assert (limits.window(""), limits.window("other")) == (120, 64)
    assert limits_of({}) == Limits()


def test_the_pages_of_a_status_become_one() -> None:
    status: dict[str, Any] = {"workers": [1, 2], "jobs": {"open": 3}}
    add_page(status, {"workers": [3], "jobs": {"open": 4}, "late": 1})
    assert status == {"workers": [1, 2, 3], "jobs": {"open": 3}, "late": 1}


def test_addresses_come_in_a_row_or_with_commas_and_each_once() -> None:
    assert addresses("tcp://a:1, tcp://b:2,,tcp://a:1") == ["tcp://a:1", "tcp://b:2"]
    assert addresses(["tcp://a:1", "tcp://b:2,tcp://c:3"]) == ["tcp://a:1", "tcp://b:2", "tcp://c:3"]
