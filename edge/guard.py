"""What stands between the sockets and aiohttp: how many connections, and how long a request may be in coming.

aiohttp waits for a request for a minute and longer, so a thousand clients that each send a header line a
minute would hold a thousand connections at no cost to them. The guard passes bytes through to aiohttp's own
protocol and only keeps time: from a connection's first moment, and from the first byte of each further
request, until a handler has it, `header_timeout_s`; and from the moment a client stops reading what is sent
until it goes on, `stall_timeout_s`. The rest (bodies, idle connections) is bounded where it is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, cast

from .addresses import bucket

log = logging.getLogger(__name__)

SPARE_BYTES: Final = 1 << 20
"""Of a body that is refused: shorter ones are read whole, so that their connection can be kept."""


class Gate:
    """Counts connections, in all and by client; only in all where `many_behind` it (a proxy)."""

    def __init__(
        self, most: int, most_an_address: int, many_behind: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._most = most
        self._most_an_address = most_an_address
        self._many_behind = many_behind
        self.open = 0
        self._by_address: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Whether one more may come; each True asks for one `leave`."""
        whose = bucket(address)
        crowded = self._by_address[whose] >= self._most_an_address and not self._many_behind(address)
        if self.open >= self._most or crowded:
            return False
        self.open += 1
        self._by_address[whose] += 1
        return True

    def leave(self, address: str) -> None:
        """A connection that had entered is closed."""
        whose = bucket(address)
        self.open -= 1
        self._by_address[whose] -= 1
        if not self._by_address[whose]:
            del self._by_address[whose]


class Guarded(asyncio.Protocol):
    """One connection. `inner` is aiohttp's protocol, `admitted` its address where the gate has let it in."""

    def __init__(
        self,
        inner: asyncio.Protocol,
        gate: Gate,
        header_timeout_s: float,
        stall_timeout_s: float,
        admitted: str | None = None,
    ) -> None:
        self._inner = inner
        self._admitted = admitted
        self._gate = gate
        self._header_timeout_s = header_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._stall: asyncio.TimerHandle | None = None
        self._address: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        self._more_bytes: int | None = None
        self._is_idle = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, and start its time."""
        wire = cast("asyncio.Transport", transport)
        peer = cast("tuple[str, int] | tuple[str, int, int, int] | None", wire.get_extra_info("peername"))
        address = self._admitted or (peer[0] if peer else "")
        if self._admitted is None and not self._gate.enter(address):
            wire.abort()
            return
        self._address, self._wire = address, wire
        self._timer = self._begin()
        self._inner.connection_made(transport)

    def requested(self) -> None:
        """A request's header is complete: a handler has it."""
        self._is_idle = False
        self._more_bytes = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answered(self) -> None:
        """The handler is done: what comes now is the rest of this request, or begins the next."""
        self._is_idle = True

    def refused(self) -> None:
        """Its body is not wanted: little more of it is read, so that the answer may still be seen."""
        self._more_bytes = SPARE_BYTES

    def data_received(self, data: bytes) -> None:
        """To aiohttp, if it was let in."""
        if self._address is None or self._wire is None:
            return
        if self._more_bytes is not None:
            self._more_bytes -= len(data)
            if self._more_bytes < 0:
                self._wire.pause_reading()
                return
        if self._is_idle and self._timer is None:
            self._timer = self._begin()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """To aiohttp, if it was let in."""
        return self._inner.eof_received() if self._address is not None else None

    def pause_writing(self) -> None:
        """The client reads no more: it has so long to go on."""
        if self._wire is not None and self._stall is None:
            self._stall = asyncio.get_running_loop().call_later(self._stall_timeout_s, self._cut_off)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It has gone on."""
        self._reads()
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place back."""
        self.requested()
        self._reads()
        if self._address is not None:
            self._gate.leave(self._address)
            self._inner.connection_lost(exc)

    def _begin(self) -> asyncio.TimerHandle | None:
        """The time that a header has."""
        if self._wire is None:
            return None
        return asyncio.get_running_loop().call_later(self._header_timeout_s, self._wire.abort)

    def _reads(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _cut_off(self) -> None:
        log.info("a client at %s read nothing for %g s and is cut off", self._address, self._stall_timeout_s)
        if self._wire is not None:
            self._wire.abort()


def guarding(
    server: Callable[[], asyncio.Protocol],
    gate: Gate,
    header_timeout_s: float,
    stall_timeout_s: float,
    admitted: str | None = None,
) -> Callable[[], Guarded]:
    """A factory of protocols around those that `server` makes."""
    return lambda: Guarded(server(), gate, header_timeout_s, stall_timeout_s, admitted)
