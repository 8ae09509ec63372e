"""Many small messages in one: what goes to the same peer in one burst travels together.

A message costs the transport, and whoever reads it, some two microseconds beyond its bytes, and a sleeping
reader is woken for each. So a peer that reads bundles (it says so by sending one) is sent the small messages
of a burst as one BUNDLE, in order. What they mean is not changed by it: each is handled as if it had come
alone.

A BUNDLE's payload is its messages one behind the other, each as envelope, length of the header (16 bits),
length of the payload (32 bits), header, payload. A length of 0 is a frame that is not there, or is empty.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from struct import Struct
from typing import Any, Final

from . import wire
from .errors import ProtocolError

_HEAD: Final = Struct("!32sHI")
HEAD_BYTES: Final = _HEAD.size
_CHUNK, _BUNDLE = wire.CHUNK, wire.BUNDLE
_SMALL: Final = wire.COPY_BELOW_BYTES
_MOST_BYTES: Final = wire.MAX_PAYLOAD_BYTES
_SHAPES: Final = wire.SHAPES | {wire.ADMIN: (True, True)}
"""An ADMIN answer has a payload."""

Message = tuple[Any, ...]
"""(envelope, header or payload, …), as they would be sent alone."""


def fits(last_frame: Any) -> bool:
    """Whether a message with this last frame may go into a bundle: a large one is better sent unopened."""
    return last_frame.__class__ is bytes and len(last_frame) < _SMALL


def pack(messages: Iterable[Sequence[Any]]) -> Iterator[tuple[bytes, bytes]]:
    """Make as many bundles, (envelope, payload), as the messages take. Every frame is `bytes`."""
    parts: list[bytes] = []
    size = count = 0
    head = _HEAD.pack
    for message in messages:
        envelope = message[0]
        frames = len(message)
        if frames == 1:
            entry = head(envelope, 0, 0)
        elif frames == 3:
            _, header, payload = message
            entry = head(envelope, len(header), len(payload)) + header + payload
        else:
            frame = message[1]
            if envelope[3] == _CHUNK:
                entry = head(envelope, 0, len(frame)) + frame
            else:
                entry = head(envelope, len(frame), 0) + frame
        size += len(entry)
        if size > _MOST_BYTES or count >= wire.MAX_BUNDLED:
            yield wire.pack_envelope(_BUNDLE, value=count), b"".join(parts)
            parts = []
            size, count = len(entry), 0
        parts.append(entry)
        count += 1
    if count:
        yield wire.pack_envelope(_BUNDLE, value=count), b"".join(parts)


def packed(messages: Iterable[Sequence[Any]], *, always: bool = False) -> Iterator[Sequence[Any]]:
    """Give the same messages to one peer in the same order, bundled where at least two can be.

    `always`: also where there is but one, so that the peer learns that we read bundles.
    """
    pile: list[Sequence[Any]] = []
    for message in messages:
        if fits(message[-1]):
            pile.append(message)
            continue
        if pile:
            yield from pack(pile) if always or len(pile) > 1 else pile
            pile.clear()
        yield message
    if pile:
        yield from pack(pile) if always or len(pile) > 1 else pile


def packed_for(messages: Iterable[Any], bundled: Container[bytes]) -> Iterator[Any]:
    """The same for many peers: each message begins with its peer, and the `bundled` ones read bundles."""
    piles: dict[bytes, _Pile] = {}
    row: list[Any] = []
    head = _HEAD.pack
    for message in messages:
        peer = message[0]
        last = message[-1]
        if last.__class__ is not bytes or len(last) >= _SMALL or peer not in bundled:
            # What comes for this peer later must not overtake it.
            piles.pop(peer, None)
            row.append(message)
            continue
        envelope = message[1]
        frames = len(message)
        if frames == 3:
            if envelope[3] == _CHUNK:
                entry = head(envelope, 0, len(last)) + last
            else:
                entry = head(envelope, len(last), 0) + last
        elif frames == 4:
            header = message[2]
            entry = head(envelope, len(header), len(last)) + header + last
        else:
            entry = head(envelope, 0, 0)
        pile = piles.get(peer)
        if pile is None or pile.size + len(entry) > _MOST_BYTES or len(pile.entries) >= wire.MAX_BUNDLED:
            pile = piles[peer] = _Pile(message)
            row.append(pile)
        pile.entries.append(entry)
        pile.size += len(entry)
    for item in row:
        if item.__class__ is not _Pile:
            yield item
        elif len(item.entries) == 1:
            yield item.first
        else:
            envelope = wire.pack_envelope(_BUNDLE, value=len(item.entries))
            yield item.first[0], envelope, b"".join(item.entries)


class _Pile:
    """Messages to one peer that travel together."""

    __slots__ = ("entries", "first", "size")

    def __init__(self, first: Any) -> None:
        self.first = first
        self.entries: list[bytes] = []
        self.size = 0


def unpack(data: bytes) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Give (envelope, header, payload) of each message; None for a frame that its kind does not have.

    Raises `ProtocolError` at the first message that is none, after having given those before it.
    """
    at, end, count = 0, len(data), 0
    head, shapes = _HEAD.unpack_from, _SHAPES
    while at < end:
        if at + HEAD_BYTES > end or count >= wire.MAX_BUNDLED:
            raise ProtocolError(f"a bundle breaks off, or has more than {wire.MAX_BUNDLED} messages")
        envelope, header_bytes, payload_bytes = head(data, at)
        begin = at + HEAD_BYTES
        middle = begin + header_bytes
        at = middle + payload_bytes
        count += 1
        shape = shapes.get(envelope[3])
        if shape is None or at > end or envelope[3] == _BUNDLE or payload_bytes >= _SMALL:
            raise ProtocolError("a bundle holds what may not stand in one")
        has_header, has_payload = shape
        if (header_bytes and not has_header) or (payload_bytes and not has_payload):
            raise ProtocolError(
                f"{wire.KIND_NAMES[envelope[3]]} in a bundle with frames that it does not have"
            )
        yield (
            envelope,
            data[begin:middle] if has_header else None,
            data[middle:at] if has_payload else None,
        )
