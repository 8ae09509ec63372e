"""The beginning of a connection to a broker: which key is shown, and watching what becomes of it.

A peer that is refused would else wait for ever on a socket that stays silent: libzmq does not try again after
a refusal, and says so to its monitor alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING, Final

import zmq

from .signs import Sign

if TYPE_CHECKING:
    from .keyring import KeyFile

WATCHED: Final = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
MOST_AT_ONCE: Final = 64
_EVENT: Final = Struct("=HI").unpack
_MISMATCH: Final = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)


def show_key(socket: zmq.Socket[bytes], key: KeyFile | None) -> None:
    """Have a socket, which does not dial yet, show a key and trust no broker but the one it is for."""
    if key is not None:
        socket.curve_serverkey = key.server.encode()
        socket.curve_publickey = key.public.encode()
        socket.curve_secretkey = key.secret.encode()


def signs(monitor: zmq.Socket[bytes]) -> Iterator[Sign]:
    """What a monitor of the `WATCHED` events has to say by now."""
    for _ in range(MOST_AT_ONCE):
        try:
            frames = monitor.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        event, value = _EVENT(frames[0])
        if event == zmq.EVENT_DISCONNECTED:
            yield Sign.LOST
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            yield Sign.REFUSED
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MISMATCH:
            yield Sign.OTHER_WAYS
        else:
            yield Sign.CUT_SHORT
