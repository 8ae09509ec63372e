"""Bundles: what goes in comes out, and nothing else gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.common import bundles, wire
from voicebus.common.errors import ProtocolError

envelopes = st.builds(
    wire.pack_envelope,
    st.sampled_from([kind for kind in wire.SHAPES if kind not in (wire.BUNDLE, wire.ADMIN)]),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF),
)
headers = st.binary(min_size=1, max_size=300)
payloads = st.binary(max_size=wire.COPY_BELOW_BYTES - 1) | st.just(bytes(wire.COPY_BELOW_BYTES - 1))


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, bytes | None, bytes | None]:
    envelope = draw(envelopes)
    has_header, has_payload = wire.SHAPES[envelope[3]]
    return envelope, draw(headers) if has_header else None, draw(payloads) if has_payload else None


def frames(message: tuple[bytes | None, ...]) -> list[bytes]:
    return [frame for frame in message if frame is not None]


@given(st.lists(messages(), min_size=1, max_size=80))
def test_what_goes_in_comes_out_in_order(given: list[tuple[bytes, bytes | None, bytes | None]]) -> None:
    made = list(bundles.pack([frames(message) for message in given]))
    assert all(len(payload) <= wire.MAX_PAYLOAD_BYTES for _, payload in made)
    assert sum(int.from_bytes(envelope[28:32]) for envelope, _ in made) == len(given)
    assert [message for _, payload in made for message in bundles.unpack(payload)] == given


def test_a_bundle_is_cut_at_its_limits() -> None:
    ping = [wire.pack_envelope(wire.PING)]
    counts = [int.from_bytes(envelope[28:32]) for envelope, _ in bundles.pack([ping] * 600)]
    assert counts == [wire.MAX_BUNDLED, wire.MAX_BUNDLED, 600 - 2 * wire.MAX_BUNDLED]
    chunk = [wire.pack_envelope(wire.CHUNK), bytes(wire.COPY_BELOW_BYTES - 1)]
    sizes = [len(payload) for _, payload in bundles.pack([chunk] * 100)]
    assert max(sizes) <= wire.MAX_PAYLOAD_BYTES < sizes[0] + len(chunk[1])


@given(st.lists(messages(), min_size=1, max_size=5), st.data())
def test_bytes_that_are_no_bundle_are_refused_and_never_read_past_their_end(
    given: list[tuple[bytes, bytes | None, bytes | None]], data: st.DataObject
) -> None:
    whole = next(bundles.pack([frames(message) for message in given]))[1]
    cut = data.draw(st.integers(1, len(whole) - 1))
    came: list[object] = []
    try:
        came.extend(bundles.unpack(whole[:cut]))
    except ProtocolError:
        assert len(came) < len(given)
    # Cut between two messages it is a shorter bundle, and a whole one.
    assert came == given[: len(came)]
    flipped = bytearray(whole)
    flipped[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        sizes = [sum(map(len, frames(message))) for message in bundles.unpack(bytes(flipped))]
        assert sum(sizes) + 6 * len(sizes) == len(whole)
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "inner",
    [
        [wire.pack_envelope(wire.BUNDLE, value=1), b"bundle in a bundle"],
        [wire.pack_envelope(0x7F)],
        [wire.pack_envelope(wire.CHUNK), bytes(wire.COPY_BELOW_BYTES)],
        [wire.pack_envelope(wire.PING), b"a header that PING does not have"],
    ],
    ids=["nested", "unknown kind", "too large", "wrong frames"],
)
def test_what_may_not_stand_in_a_bundle(inner: list[bytes]) -> None:
    ping = [wire.pack_envelope(wire.PING)]
    payload = next(bundles.pack([ping, inner, ping]))[1]
    came: list[object] = []
    with pytest.raises(ProtocolError):
        came.extend(bundles.unpack(payload))
    assert came == [(ping[0], None, None)]


def test_too_many_messages_are_refused() -> None:
    ping = [wire.pack_envelope(wire.PING)]
    payload = b"".join(payload for _, payload in bundles.pack([ping] * (wire.MAX_BUNDLED + 1)))
    with pytest.raises(ProtocolError):
        list(bundles.unpack(payload))


def test_packed_leaves_large_messages_alone_and_keeps_the_order() -> None:
    ping = [wire.pack_envelope(wire.PING)]
    large = [wire.pack_envelope(wire.CHUNK), bytes(wire.COPY_BELOW_BYTES)]
    kinds = [frames[0][3] for frames in bundles.packed([ping, ping, large, ping, large])]
    assert kinds == [wire.BUNDLE, wire.CHUNK, wire.PING, wire.CHUNK]
    assert [frames[0][3] for frames in bundles.packed([ping], always=True)] == [wire.BUNDLE]
