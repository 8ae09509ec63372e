"""A ZeroMQ DEALER that reads and writes in bursts, for the ends of everything that speaks ZeroMQ here.

The calls of pyzmq's compiled base class are bound directly: they cost a tenth of `recv_multipart`, and the
ends must not hide what stands between them. zmq.proxy's ends and voicebus' thin ends use the very same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import zmq
from zmq.backend import Socket as BaseSocket

BURST: Final = 256
"""Messages taken before they are answered."""
LINGER_MS: Final = 200
"""The last word of an end that leaves is still sent, if anybody takes it."""
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)


class Dealer:
    """One connection. `shape` tells from a message's first frame how many follow."""

    def __init__(self, address: str, shape: Callable[[bytes], int], timeout_s: float) -> None:
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.linger = LINGER_MS
        self._socket.rcvtimeo = int(timeout_s * 1000)
        # A window of large answers stays within the default of 1,000 messages; nothing is ever dropped here.
        self._socket.connect(address)
        self._recv: Callable[..., bytes] = BaseSocket.recv.__get__(self._socket)
        self._send: Callable[..., Any] = BaseSocket.send.__get__(self._socket)
        self._shape = shape

    def burst(self) -> list[list[bytes]]:
        """Wait for a message, then give all that have come. Empty: nothing came in time."""
        found: list[list[bytes]] = []
        recv, shape, flags = self._recv, self._shape, 0
        try:
            while len(found) < BURST:
                first = recv(flags)
                found.append([first, *(recv() for _ in range(shape(first)))])
                flags = _NOBLOCK
        except zmq.Again:
            pass
        return found

    def send(self, *frames: bytes) -> None:
        """Send one message."""
        send = self._send
        for frame in frames[:-1]:
            send(frame, _SNDMORE)
        send(frames[-1])

    def close(self) -> None:
        """Leave."""
        self._socket.close()
