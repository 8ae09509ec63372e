"""A socket of the broker's, and who stands before it: what each connection may say is decided when we meet.

At a connection's first message its key is looked up, and it gets the table of what its role may say; every
further message costs one lookup. Routing ids are ours to give: a peer that brings its own could take the one
of another and be sent what is that one's. Whoever is turned away gets an empty table, and its connection is
broken: an answer that is never read and a flood that is only ignored would both cost more.
"""

from __future__ import annotations

import os
import socket as sockets
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import zmq
from zmq.backend import Socket as _Socket

from ..common import wire
from ..common.errors import BusError, ProtocolError, Unauthorized
from ..common.keyring import Role
from .outbox import Outbox
from .roles import EVERYTHING, LET_IN, SAID, Rights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..common.keyring import Allowed, Listed
    from .verbs import ClientHandlers, WorkerHandlers

Handlers = dict[int, Callable[..., object]]
"""Kind → what is done about it."""
SHUT: Final[Handlers] = {}
"""The table of whoever was turned away; told apart by identity."""
FRAMES: Final = {kind: 1 + header + payload for kind, (header, payload) in wire.SHAPES.items()}
SPARE: Final = 1000
"""Tables that may be kept of connections which the core does not know."""
MOST_SHUT: Final = 10_000
GIVEN_BYTES: Final = 5
"""A routing id that the ROUTER has given: a zero and four bytes."""
_SRCFD: Final = int(zmq.SRCFD)


class Door:
    """One of the two. `handlers_of(rights)` makes the table of a kind of guest.

    `with_payload`: the handlers are the clients' (`loop.py`).
    """

    __slots__ = (
        "_allowed", "_breaking", "_guests", "_handlers_of", "_lines", "_made", "_seen", "_shut", "_shut_kept",
        "events", "frames", "name", "out", "recv", "skips", "tables", "with_payload",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        socket: zmq.Socket[bytes],
        out: Outbox,
        handlers_of: Callable[[Rights], ClientHandlers | WorkerHandlers],
        allowed: Allowed | None,
        *,
        with_payload: bool,
    ) -> None:
        self.name = name
        self.recv: Callable[..., Any] = _Socket.recv.__get__(socket)
        self.events: Callable[[int], int] = _Socket.get.__get__(socket)
        self.out = out
        self.with_payload = with_payload
        self.frames = {kind: FRAMES[kind] for kind in SAID[name]}
        "Kind → how many frames a message of it has."
        self.tables: dict[bytes, Handlers] = {}
        "What each connection may say."
        self.skips = False
        "In the middle of a message with too many frames, the rest of which is still to be thrown away."
        self._shut: list[bytes] = []
        "Connections that were shut since the last look round, and may have an answer on its way."
        self._breaking: list[bytes] = []
        self._shut_kept = 0
        "Those that were shut before it."
        self._handlers_of = handlers_of
        self._made: dict[Rights, Handlers] = {}
        self._allowed = allowed
        self._seen: Mapping[str, Listed] | None = None if allowed is None else allowed.now()
        self._guests: dict[bytes, Listed] = {}
        self._lines: dict[bytes, tuple[int, int]] = {}
        "Connection → its file descriptor, and that file's inode."

    def meet(self, peer: bytes, frame: Any) -> Handlers:
        """What a connection may say, by its first message. Raises `Unauthorized` and `ProtocolError`."""
        self.note_line(peer, frame)
        if len(peer) != GIVEN_BYTES or peer[0]:
            raise ProtocolError("this peer has set a routing id: the broker gives them, set none")
        rights = EVERYTHING
        if self._allowed is not None:
            listed = self._allowed.find(_user_id(frame))
            if listed is None or listed.role not in LET_IN[self.name]:
                raise Unauthorized("this key is not listed here, or was revoked")
            self._guests[peer] = listed
            # A client's key matters no further: all that are alike share a table.
            holder = listed.public if listed.role is Role.WORKER else ""
            rights = Rights(listed.role, listed.tenant, holder)
        handlers = self._made.get(rights)
        if handlers is None:
            handlers = self._made[rights] = {**self._handlers_of(rights)}
        self.tables[peer] = handlers
        return handlers

    def shut(self, peer: bytes) -> None:
        """Listen to a connection no more. It is broken a little later, so that it can read why."""
        self.tables.pop(peer, None)
        self.tables[peer] = SHUT
        self._guests.pop(peer, None)
        self._shut.append(peer)

    def break_off(self) -> None:
        """Break the connections that had been shut when this was last called."""
        for peer in self._breaking:
            self.break_now(peer)
        self._breaking, self._shut = self._shut, []

    def break_now(self, peer: bytes) -> None:
        """Break a connection, whatever is on its way to it."""
        line = self._lines.pop(peer, None)
        if line is not None:
            _break(*line)

    def revoked(self) -> Iterator[tuple[bytes, BusError]]:
        """The connections whose keys are not what they were when we met."""
        if self._allowed is None:
            return
        now = self._allowed.now()
        if now is self._seen:
            return
        self._seen = now
        for peer, listed in list(self._guests.items()):
            if now.get(listed.public) != listed:
                yield peer, Unauthorized(f"the key {listed.name} was revoked or changed")

    def forget(self, known: Collection[bytes]) -> None:
        """Keep the tables of those who are known, and of those who were turned away last."""
        if len(self.tables) <= len(known) + self._shut_kept + SPARE:
            return
        shut = [peer for peer, table in self.tables.items() if table is SHUT][-MOST_SHUT:]
        self._shut_kept = len(shut)
        self.tables = {peer: table for peer, table in self.tables.items() if peer in known}
        self.tables.update(dict.fromkeys(shut, SHUT))
        for by_peer in (self._guests, self._lines):
            for peer in [peer for peer in by_peer if peer not in self.tables]:
                del by_peer[peer]

    def note_line(self, peer: bytes, frame: Any) -> None:
        """Remember which of the process's files a connection is, so that it can be broken."""
        with suppress(OSError, zmq.ZMQError, ValueError):
            descriptor = frame.get(_SRCFD)
            found = os.fstat(descriptor)
            # The peer may have gone, and its number may be another file's by now.
            if stat.S_ISSOCK(found.st_mode):
                self._lines[peer] = descriptor, found.st_ino


def _user_id(frame: Any) -> str:
    """The key that was shown in the handshake. Of what a peer itself says there nothing may be read so.

    The bytes of a property are anybody's, but come as text: what is no UTF-8 cannot be read, and what stands
    behind a zero is not seen. A peer of ZMTP 2.0 has no properties at all.
    """
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:  # not said in this handshake
        return ""


def _break(descriptor: int, inode: int) -> None:
    """End a connection that is libzmq's; its own thread then sees the end and clears up.

    The number may mean another file by now, so it is compared: at worst a stranger has to connect anew.
    """
    with suppress(OSError):
        found = os.fstat(descriptor)
        if found.st_ino != inode or not stat.S_ISSOCK(found.st_mode):
            return
        with sockets.socket(fileno=os.dup(descriptor)) as line:
            line.shutdown(sockets.SHUT_RDWR)
