"""Many small messages in one: what goes to the same peer in one burst travels together.

A message costs the transport, and whoever reads it, some two microseconds beyond its bytes, and a sleeping
reader is woken for each. So a peer that reads bundles (it says so by sending one) is sent the small messages
of a burst as one BUNDLE, in order. What they mean is not changed by it: each is handled as if it had come
alone.

A BUNDLE's payload is a MessagePack array of the frames of its messages, one behind the other; the kind in
each envelope says how many belong to it. So the work per frame is done by msgspec's compiled code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Any, Final

import msgspec

from . import spoken, wire
from .errors import ProtocolError

PATIENCE_S: Final = 0.001
_ACCEPTED, _BUNDLE, _SPOKEN = wire.ACCEPTED, wire.BUNDLE, wire.SPOKEN
ALONE: Final = frozenset((wire.ADMIN, wire.HEARTBEAT, wire.BUNDLE))
"""Kinds that never stand in a bundle. What frames the first two have depends on who sends them."""
_SMALL: Final = wire.COPY_BELOW_BYTES
_MOST_BYTES: Final = wire.MAX_PAYLOAD_BYTES
_ENVELOPE_BYTES: Final = wire.ENVELOPE_BYTES
_MESSAGE_BYTES: Final = _ENVELOPE_BYTES + 12
"""What a message takes beside its header and payload: its envelope, and up to five bytes before a frame."""
_MOST_COUNT: Final = wire.MAX_BUNDLED
_MOST_FRAMES: Final = 1 + wire.MAX_FRAMES
"""With the routing id."""
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[bytes]).decode
_SHAPES: Final = {kind: shape for kind, shape in wire.SHAPES.items() if kind not in ALONE}


def fits(envelope: bytes, last_frame: Any) -> bool:
    """Whether such a message may go into a bundle: a large one is better sent unopened."""
    return last_frame.__class__ is bytes and len(last_frame) < _SMALL and envelope[3] not in ALONE


def pack(messages: Iterable[Sequence[Any]]) -> Iterator[tuple[bytes, bytes]]:
    """Make as many bundles, (envelope, payload), as the messages take. Every frame is `bytes`."""
    pile = _Pile(())
    for message in messages:
        size = sum(map(len, message)) + _MESSAGE_BYTES - _ENVELOPE_BYTES
        if pile.size + size > _MOST_BYTES or pile.count >= wire.MAX_BUNDLED:
            yield pile.joined()
            pile = _Pile(())
        pile.frames += message
        pile.count += 1
        pile.size += size
    if pile.count:
        yield pile.joined()


def packed(messages: Iterable[Sequence[Any]], *, always: bool = False) -> Iterator[Sequence[Any]]:
    """Give the same messages to one peer in the same order, bundled where at least two can be.

    `always`: also where there is but one, so that the peer learns that we read bundles.
    """
    pile: list[Sequence[Any]] = []
    for message in messages:
        if fits(message[0], message[-1]):
            pile.append(message)
            continue
        if pile:
            yield from pack(pile) if always or len(pile) > 1 else pile
            pile.clear()
        yield message
    if pile:
        yield from pack(pile) if always or len(pile) > 1 else pile


def frames_of(data: bytes) -> list[bytes]:
    """All frames in a bundle. Raises `ProtocolError`."""
    try:
        frames = _decode(data)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ProtocolError(f"bad bundle: {error}") from None
    if len(frames) > wire.MAX_BUNDLED * wire.MAX_FRAMES:
        raise ProtocolError(f"a bundle has at most {wire.MAX_BUNDLED} messages")
    return frames


def unpack(data: bytes) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Give (envelope, header, payload) of each message; None for a frame that its kind does not have.

    Raises `ProtocolError` at the first message that is none, after having given those before it.
    """
    shapes = _SHAPES
    row = iter(frames_of(data))
    try:
        for envelope in row:
            if len(envelope) != _ENVELOPE_BYTES or envelope[3] not in shapes:
                raise ProtocolError("a bundle holds what may not stand in one")
            has_header, has_payload = shapes[envelope[3]]
            if has_header:
                header = next(row)
                yield envelope, header, next(row) if has_payload else None
            else:
                yield envelope, None, next(row) if has_payload else None
    except StopIteration:
        raise ProtocolError("a bundle breaks off within a message") from None


class Bundler:
    """The same for many peers: each message begins with its peer, and those in `bundled` read bundles.

    The others read no SPOKEN either: for them it is taken apart.

    A plain ACCEPTED says nothing that anybody waits for: alone it stays here for up to `PATIENCE_S`, and
    mostly travels with what follows it.
    """

    __slots__ = ("_patient", "bundled", "due")

    def __init__(self) -> None:
        self.bundled: set[bytes] = set()
        self.due = inf
        "When `pack` must be called again, be it with nothing."
        self._patient: dict[bytes, _Pile] = {}

    def pack(self, messages: Iterable[Any], now: float) -> list[Any]:
        """Give what is to be sent now; every peer's messages in their order."""
        bundled = self.bundled
        piles = self._patient
        row: list[Any] = []
        here: bytes | None = None
        reads, pile = False, None
        for message in messages:
            peer = message[0]
            if peer is not here:
                here = peer
                reads = peer in bundled
                pile = piles.get(peer)
            if not reads:
                row.extend(_plain(message) if message[1][3] == _SPOKEN else (message,))
                continue
            last = message[-1]
            size = len(last) + _MESSAGE_BYTES
            if len(message) == _MOST_FRAMES:
                size += len(message[2])
            if size >= _SMALL or last.__class__ is not bytes or message[1][3] in ALONE:
                if pile is not None:
                    # What comes for this peer later must not overtake it, nor it what came before.
                    del piles[peer]
                    if pile.patient:
                        row.append(pile)
                    pile = None
                row.append(message)
                continue
            if pile is None or pile.size + size > _MOST_BYTES or pile.count >= _MOST_COUNT:
                if pile is not None and pile.patient:
                    row.append(pile)
                pile = piles[peer] = _Pile(message)
            pile.frames += message[1:]
            pile.count += 1
            pile.size += size
            if pile.patient:
                envelope = message[1]
                if envelope[3] != _ACCEPTED or envelope[23]:
                    pile.patient = False
                    row.append(pile)
        if piles:
            self._settle(row, now)
        return [item.whole() if item.__class__ is _Pile else item for item in row]

    def _settle(self, row: list[Any], now: float) -> None:
        """Keep the piles that may wait, or send them too."""
        patient = {peer: pile for peer, pile in self._patient.items() if pile.patient}
        if patient and now < self.due:
            if self.due == inf:
                self.due = now + PATIENCE_S
        else:
            row.extend(patient.values())
            patient.clear()
            self.due = inf
        self._patient = patient


def _plain(message: Any) -> Iterator[Any]:
    peer, envelope, header, payload = message
    try:
        for part in spoken.parts(envelope, header, payload):
            yield peer, *part
    except ProtocolError:
        yield message  # the worker's doing: whoever it is for will say so


class _Pile:
    """Messages to one peer that travel together."""

    __slots__ = ("count", "first", "frames", "patient", "size")

    def __init__(self, first: Any) -> None:
        self.first = first
        self.frames: list[bytes] = []
        self.count = self.size = 0
        self.patient = True

    def joined(self) -> tuple[bytes, bytes]:
        """A BUNDLE of all of them."""
        return wire.pack_envelope(_BUNDLE, value=self.count), _encode(self.frames)

    def whole(self) -> Any:
        """The message to send, its peer in front: a BUNDLE, or what it would be alone in."""
        return self.first if self.count == 1 else (self.first[0], *self.joined())
