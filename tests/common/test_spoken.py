"""SPOKEN: three messages in one and back, and nothing but what is whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.common import wire
from voicebus.common.errors import ProtocolError
from voicebus.common.messages import Done, Started, encode
from voicebus.common.spoken import Message, merge, parts

JOB = b"j" * 16
STARTED = encode(Started("w", "tone", 24_000, 3))
DONE = encode(Done(1, 2, 0.5))


def attempt(number: int = 1, segment: int = 0) -> list[Message]:
    return [
        (wire.pack_envelope(wire.STARTED, JOB, number, sequence=segment), STARTED),
        (wire.pack_envelope(wire.CHUNK, JOB, number, wire.SEGMENT_END, 0, segment), b"pcm!"),
        (wire.pack_envelope(wire.DONE, JOB, number), DONE),
    ]


@given(st.integers(1, 0xFFFF), st.integers(0, 0xFFFFFFFF))
def test_what_was_merged_comes_apart_as_it_was(number: int, segment: int) -> None:
    whole = merge(*attempt(number, segment))
    assert whole is not None
    assert whole[0][3] == wire.SPOKEN
    assert [*parts(*whole)] == attempt(number, segment)


def changed(which: int, **fields: int) -> list[Message]:
    messages = attempt()
    kind, job, number, flags, sequence, value = wire.unpack_envelope(messages[which][0])
    envelope = wire.pack_envelope(
        fields.get("kind", kind), job, fields.get("attempt", number), fields.get("flags", flags),
        fields.get("sequence", sequence), fields.get("value", value),
    )  # fmt: skip
    messages[which] = (envelope, messages[which][1])
    return messages


@pytest.mark.parametrize(
    "messages",
    [
        changed(0, kind=wire.CHUNK),
        changed(2, kind=wire.FAILED),
        changed(1, attempt=2),
        changed(2, attempt=2),
        changed(1, sequence=1),
        changed(1, value=1),
        changed(1, flags=0),
        [*attempt()[:1], (attempt()[1][0], b""), *attempt()[2:]],
        [*attempt()[:2], (attempt()[2][0], encode(Done(2, 2)))],
    ],
    ids=["kind", "end", "attempt", "other end", "not the first", "segment", "goes on", "silent", "more"],
)
def test_only_a_whole_attempt_of_one_chunk_is_merged(messages: list[Message]) -> None:
    assert merge(*messages) is None


def test_a_header_that_is_none_is_refused() -> None:
    with pytest.raises(ProtocolError):
        parts(wire.pack_envelope(wire.SPOKEN, JOB, 1), b"\x93no", b"pcm!")
