"""Sending that never blocks and never loses: MANDATORY, NOBLOCK, and a bounded place to wait.

A ROUTER without MANDATORY drops silently; with it, a full peer raises EAGAIN and a vanished one EHOSTUNREACH,
both on the routing id, before anything of the message is gone. What a full peer cannot take yet is parked in
order and tried again. A peer that lets too many bytes pile up is cut off, what waits for it is dropped, and
when all peers together do, the one with the most is: a slow reader costs bounded memory and stalls nobody.

Peers that read bundles are sent the small messages of a burst as one.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import KeysView
from typing import Final

import zmq
from zmq.backend import Socket as _Socket

from ..common import bundles
from .ledger import Message, Out

_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.SNDMORE | zmq.NOBLOCK)
_MANY: Final = 1 << 62


class Outbox:
    """Sends bursts of (routing id, frame, …) over one ROUTER."""

    def __init__(
        self, socket: zmq.Socket[bytes], max_per_peer_bytes: int = _MANY, max_bytes: int = _MANY
    ) -> None:
        # pyzmq's compiled base class: 0.55 µs for three frames, where send_multipart takes 4.
        self._send = _Socket.send.__get__(socket)
        self._parked: dict[bytes, deque[Message]] = {}
        self._parked_bytes: dict[bytes, int] = {}
        self._max_per_peer_bytes = max_per_peer_bytes
        self._max_bytes = max_bytes
        self.bundler = bundles.Bundler()
        self.parked_bytes = 0
        "What waits for all peers."
        self.slow: list[bytes] = []
        "Peers that were cut off since this list was last emptied."

    @property
    def waiting(self) -> bool:
        """Something is parked: call `retry` soon."""
        return bool(self._parked)

    def forget(self, known: KeysView[bytes]) -> None:
        """Of the peers that read bundles keep those that are known; should another come back, it says so."""
        if len(self.bundler.bundled) > len(known):
            self.bundler.bundled &= known

    def parked_for(self, peer: bytes) -> int:
        """Bytes that wait for one peer."""
        return self._parked_bytes.get(peer, 0)

    def burst(self, messages: Out, now: float) -> list[bytes]:
        """Send all messages, empty the list, and return the peers that are gone."""
        gone: list[bytes] = []
        parked = self._parked
        for message in self.bundler.pack(messages, now):
            if (parked and message[0] in parked) or not self._try(message, gone):
                self._park(message)
        messages.clear()
        return gone

    def retry(self) -> list[bytes]:
        """Try the parked messages again, each peer's in order; return the peers that are gone."""
        gone: list[bytes] = []
        for peer, queue in list(self._parked.items()):
            while queue and self._try(queue[0], gone):
                self._count(peer, -sum(map(len, queue.popleft())))
            if not queue or peer in gone:
                self._drop(peer)
        return gone

    def _try(self, message: Message, gone: list[bytes]) -> bool:
        """Send one message; False when its peer is full. A vanished peer is noted in `gone`."""
        send = self._send
        try:
            send(message[0], _MORE)
        except zmq.ZMQError as error:
            if error.errno == errno.EAGAIN:
                return False
            if error.errno != errno.EHOSTUNREACH:
                raise
            gone.append(message[0])
            return True
        # With the routing id taken the rest cannot be refused.
        last = len(message) - 1
        for frame in message[1:last]:
            send(frame, _MORE, frame.__class__ is bytes)
        frame = message[last]
        send(frame, _NOBLOCK, frame.__class__ is bytes)
        return True

    def _park(self, message: Message) -> None:
        peer = message[0]
        self._parked.setdefault(peer, deque()).append(message)
        self._count(peer, sum(map(len, message)))
        if self._parked_bytes[peer] > self._max_per_peer_bytes:
            self._cut_off(peer)
        elif self.parked_bytes > self._max_bytes:
            self._cut_off(max(self._parked_bytes, key=self._parked_bytes.__getitem__))

    def _cut_off(self, peer: bytes) -> None:
        self._drop(peer)
        self.slow.append(peer)

    def _count(self, peer: bytes, size_bytes: int) -> None:
        self._parked_bytes[peer] = self._parked_bytes.get(peer, 0) + size_bytes
        self.parked_bytes += size_bytes

    def _drop(self, peer: bytes) -> None:
        self._parked.pop(peer, None)
        self.parked_bytes -= self._parked_bytes.pop(peer, 0)
