"""Framing: what goes in comes out, and nothing else is taken for a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.common import wire
from voicebus.common.errors import BadRequest, ProtocolError, TextTooLong

U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF)


@given(st.sampled_from(sorted(wire.KIND_NAMES)), st.binary(min_size=16, max_size=16), U16, U16, U32, U32)
def test_envelopes_round_trip(
    kind: int, job: bytes, attempt: int, flags: int, sequence: int, value: int
) -> None:
    envelope = wire.pack_envelope(kind, job, attempt, flags, sequence, value)
    assert len(envelope) == 32
    assert wire.unpack_envelope(envelope) == (kind, job, attempt, flags, sequence, value)
    # The hot paths slice instead of unpacking: the offsets are part of the protocol.
    assert envelope[3] == kind
    assert envelope[4:20] == job
    assert envelope[4:22] == job + attempt.to_bytes(2)
    assert int.from_bytes(envelope[22:24]) == flags
    assert int.from_bytes(envelope[24:28]) == sequence
    assert int.from_bytes(envelope[28:32]) == value


@given(st.binary(max_size=64))
def test_other_bytes_are_no_envelope(data: bytes) -> None:
    if len(data) == 32 and data[:3] == b"VB1":
        return
    with pytest.raises(ProtocolError):
        wire.unpack_envelope(data)


def test_every_kind_has_a_name_and_a_shape() -> None:
    assert wire.KIND_NAMES.keys() == wire.SHAPES.keys()
    for kind, name in wire.KIND_NAMES.items():
        assert getattr(wire, name) == kind


@pytest.mark.parametrize("text", ["", " ", "\n\t  "])
def test_empty_text_is_a_bad_request(text: str) -> None:
    with pytest.raises(BadRequest, match="at least one word"):
        wire.check_text(text)


def test_text_is_bounded_in_characters_and_in_bytes() -> None:
    assert wire.check_text("x" * wire.MAX_TEXT_CHARS) == b"x" * wire.MAX_TEXT_CHARS
    with pytest.raises(TextTooLong, match="characters"):
        wire.check_text("x" * (wire.MAX_TEXT_CHARS + 1))
    with pytest.raises(TextTooLong, match="bytes"):
        wire.check_text("語" * 90_000)


def test_half_a_surrogate_is_refused_where_it_enters() -> None:
    with pytest.raises(BadRequest, match="Unicode"):
        wire.check_text("a\ud800")
