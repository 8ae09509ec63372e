"""Bundles: what goes in comes out, and nothing else gets through."""

from __future__ import annotations

from contextlib import suppress
from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.common import bundles, wire
from voicebus.common.errors import ProtocolError
from voicebus.common.messages import Spoken, encode

envelopes = st.builds(
    wire.pack_envelope,
    st.sampled_from([kind for kind in wire.SHAPES if kind not in bundles.ALONE]),
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
def test_whatever_bytes_come_nothing_but_a_protocol_error_comes_of_it(
    given: list[tuple[bytes, bytes | None, bytes | None]], data: st.DataObject
) -> None:
    whole = next(bundles.pack([frames(message) for message in given]))[1]
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ProtocolError):
        list(bundles.unpack(whole[:cut]))
    flipped = bytearray(whole)
    flipped[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(ProtocolError):
        came = list(bundles.unpack(bytes(flipped)))
        assert sum(len(frames(message)) for message in came) == len(msgspec.msgpack.decode(bytes(flipped)))


@pytest.mark.parametrize(
    "inner",
    [
        [wire.pack_envelope(wire.BUNDLE, value=1), b"bundle in a bundle"],
        [wire.pack_envelope(0x7F)],
        [wire.pack_envelope(wire.ADMIN), b"depends on the direction"],
        [wire.pack_envelope(wire.HEARTBEAT)],
        [wire.pack_envelope(wire.PING), b"a header that PING does not have"],
        [b"no envelope"],
    ],
    ids=["nested", "unknown", "ADMIN", "HEARTBEAT", "wrong frames", "no envelope"],
)
def test_what_may_not_stand_in_a_bundle_ends_it(inner: list[bytes]) -> None:
    ping = [wire.pack_envelope(wire.PING)]
    payload = msgspec.msgpack.encode([*ping, *inner, *ping])
    came: list[object] = []
    with pytest.raises(ProtocolError):
        came.extend(bundles.unpack(payload))
    assert came[0] == (ping[0], None, None)
    assert len(came) == 1 + (inner[0][3] == wire.PING)


def test_a_bundle_that_breaks_off_within_a_message() -> None:
    ping, submit = wire.pack_envelope(wire.PING), wire.pack_envelope(wire.SUBMIT)
    for rest in ([submit], [submit, b"header"]):
        came: list[object] = []
        with pytest.raises(ProtocolError):
            came.extend(bundles.unpack(msgspec.msgpack.encode([ping, *rest])))
        assert came == [(ping, None, None)]


def test_too_many_messages_are_refused() -> None:
    ping = wire.pack_envelope(wire.PING)
    with pytest.raises(ProtocolError):
        list(bundles.unpack(msgspec.msgpack.encode([ping] * (3 * wire.MAX_BUNDLED + 1))))


def test_packed_leaves_large_messages_alone_and_keeps_the_order() -> None:
    ping = [wire.pack_envelope(wire.PING)]
    large = [wire.pack_envelope(wire.CHUNK), bytes(wire.COPY_BELOW_BYTES)]
    kinds = [frames[0][3] for frames in bundles.packed([ping, ping, large, ping, large])]
    assert kinds == [wire.BUNDLE, wire.CHUNK, wire.PING, wire.CHUNK]
    assert [frames[0][3] for frames in bundles.packed([ping], always=True)] == [wire.BUNDLE]


PEER, OTHER, PLAIN = b"peer", b"other", b"plain"


def bundler() -> bundles.Bundler:
    made = bundles.Bundler()
    made.bundled |= {PEER, OTHER}
    return made


def kinds(message: tuple[bytes, ...]) -> tuple[bytes, list[int]]:
    """Whom it goes to, and what is in it."""
    if message[1][3] != wire.BUNDLE:
        return message[0], [message[1][3]]
    return message[0], [envelope[3] for envelope, _, _ in bundles.unpack(message[2])]


ACCEPTED = (wire.pack_envelope(wire.ACCEPTED), b"header")
STARTED = (wire.pack_envelope(wire.STARTED), b"header")
SMALL = (wire.pack_envelope(wire.CHUNK), b"pcm")
LARGE = (wire.pack_envelope(wire.CHUNK), bytes(wire.COPY_BELOW_BYTES))
BEAT = (wire.pack_envelope(wire.HEARTBEAT),)


def test_each_peer_gets_its_messages_in_order_and_as_few_as_can_be() -> None:
    made = bundler()
    sent = made.pack(
        [
            (PEER, *STARTED), (OTHER, *STARTED), (PLAIN, *STARTED), (PEER, *SMALL), (PEER, *LARGE),
            (PLAIN, *SMALL), (PEER, *SMALL), (OTHER, *BEAT), (OTHER, *SMALL),
        ],
        0.0,
    )  # fmt: skip
    s, c, h = wire.STARTED, wire.CHUNK, wire.HEARTBEAT
    assert [kinds(message) for message in sent if message[0] == PEER] == [
        (PEER, [s, c]), (PEER, [c]), (PEER, [c])
    ]  # fmt: skip
    assert [kinds(message) for message in sent if message[0] == OTHER] == [
        (OTHER, [s]), (OTHER, [h]), (OTHER, [c])
    ]  # fmt: skip
    assert [kinds(message) for message in sent if message[0] == PLAIN] == [(PLAIN, [s]), (PLAIN, [c])]
    assert made.due == inf


def test_accepted_waits_a_moment_for_company_and_no_longer() -> None:
    made = bundler()
    assert made.pack([(PEER, *ACCEPTED), (OTHER, *ACCEPTED)], 0.0) == []
    assert made.due == bundles.PATIENCE_S
    assert made.pack([(PEER, *ACCEPTED)], made.due / 2) == []
    assert [kinds(message) for message in made.pack([(PEER, *SMALL)], made.due / 2)] == [
        (PEER, [wire.ACCEPTED, wire.ACCEPTED, wire.CHUNK])
    ]
    assert [kinds(message) for message in made.pack([], made.due)] == [(OTHER, [wire.ACCEPTED])]
    assert made.due == inf
    # What is sent unopened does not overtake it, and one that says more than "taken" does not wait.
    made.pack([(PEER, *ACCEPTED)], 1.0)
    large = made.pack([(PEER, *LARGE)], 1.0)
    assert [kinds(message) for message in large] == [(PEER, [wire.ACCEPTED]), (PEER, [wire.CHUNK])]
    stored = (PEER, wire.pack_envelope(wire.ACCEPTED, flags=wire.STORED), b"header")
    assert [kinds(message) for message in made.pack([stored], 2.0)] == [(PEER, [wire.ACCEPTED])]


@given(st.lists(st.tuples(st.sampled_from([PEER, OTHER, PLAIN]), st.integers(0, 4)), max_size=700))
def test_whatever_is_sent_arrives_once_and_in_order(steps: list[tuple[bytes, int]]) -> None:
    made = bundler()
    what = [ACCEPTED, STARTED, SMALL, LARGE, BEAT]
    came: dict[bytes, list[int]] = {PEER: [], OTHER: [], PLAIN: []}
    for at in range(0, len(steps), 50):
        burst = [(peer, *what[pick]) for peer, pick in steps[at : at + 50]]
        for message in made.pack(burst, at * bundles.PATIENCE_S / 120):
            came[message[0]] += kinds(message)[1]
    for message in made.pack([], inf):
        came[message[0]] += kinds(message)[1]
    for peer in came:
        assert came[peer] == [what[pick][0][3] for to, pick in steps if to == peer]


def test_spoken_is_taken_apart_for_those_who_do_not_read_bundles() -> None:
    header = encode(Spoken("w", "tone", 24_000, 1, 2))
    for payload in (b"pcm!", bytes(wire.COPY_BELOW_BYTES)):
        whole = (wire.pack_envelope(wire.SPOKEN, flags=wire.SEGMENT_END), header, payload)
        sent = bundler().pack([(PLAIN, *whole), (PEER, *whole)], 0.0)
        assert sent[-1] == (PEER, *whole)
        assert [kinds(message)[1] for message in sent[:-1]] == [[wire.STARTED], [wire.CHUNK], [wire.DONE]]
        assert sent[1][2] == payload
