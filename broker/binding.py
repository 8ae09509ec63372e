"""The broker's two sockets as they must be: nothing is dropped in silence, nothing grows without bound.

Every setting here is one that libzmq has otherwise: a ROUTER drops what it cannot deliver, waits for ever for
those who do not introduce themselves, takes frames of any size, and numbers its peers in a way that all the
world can foresee.
"""

from __future__ import annotations

import ctypes
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import zmq

from ..common import wire

if TYPE_CHECKING:
    from .gate import Gate

SEND_HWM: Final = 1000
CLIENT_HWM: Final = 128
"""Messages to one client that libzmq holds at most: the rest waits where its bytes are counted."""
RECEIVE_HWM: Final = 200
"""Messages of one peer that libzmq reads ahead of us: what a flood leaves behind when it is cut off."""
BACKLOG: Final = 4096
HANDSHAKE_MS: Final = 10_000
"""A connection that has not introduced itself by then is closed."""
LINGER_MS: Final = 2000


def make_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context for as many peers as there may be."""
    _unforeseeable()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    # 10,000 workers are 10,000 sockets: libzmq's own default stops at 1,023.
    context.max_sockets = int(context.get(zmq.SOCKET_LIMIT))
    return context


def bind(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, door: str, gate: Gate | None, sndhwm: int
) -> zmq.Socket[bytes]:
    """A ROUTER that listens; a `gate` has it ask for keys. Raises `zmq.ZMQError`."""
    socket = context.socket(zmq.ROUTER)
    # Also without a gate, where nobody is asked: a socket that has a domain takes no peers of ZMTP 1 and 2.
    # Some of those need not introduce themselves, and no file is known to break their connections by.
    socket.zap_domain = door.encode()
    if gate is not None:
        gate.guard(socket)
    socket.ipv6 = "[" in endpoint
    socket.router_mandatory = True
    socket.handshake_ivl = HANDSHAKE_MS
    socket.maxmsgsize = wire.MAX_FRAME_BYTES
    socket.sndhwm, socket.rcvhwm = sndhwm, RECEIVE_HWM
    socket.backlog = BACKLOG
    socket.linger = LINGER_MS
    try:
        socket.bind(endpoint)
    except zmq.ZMQError:
        socket.close(0)
        raise
    return socket


def client_room(budget_bytes: int) -> tuple[int, int]:
    """Split a client's budget: messages libzmq may hold, were all of them large, and bytes beside them."""
    hwm = min(CLIENT_HWM, max(1, budget_bytes // 2 // wire.MAX_PAYLOAD_BYTES))
    return hwm, max(budget_bytes // 2, budget_bytes - hwm * wire.MAX_PAYLOAD_BYTES)


def _unforeseeable() -> None:
    """Begin libzmq's random numbers anew, which all processes else begin alike.

    The routing ids that it gives count up from such a number, and a peer that has set the next one as its own
    ends the whole process when it is given (libzmq 4.3.5, socket_base.cpp: `zmq_assert (ok)`).
    """
    seed = random.SystemRandom().getrandbits(32)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).srand(ctypes.c_uint(seed))
