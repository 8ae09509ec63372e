"""Clients that leave: what becomes of their jobs, and who is cut off because it does not read.

Nobody waits for the answer of a client that is gone, so its jobs are given up; durable jobs go on, owed to
nobody. A client that does not read is treated as gone at once. What was queued for it has been dropped, so
whatever it still sends is not answered: its own unanswered PINGs make it connect anew.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..common.errors import BusError, ClientLost
from ..common.wire import STREAM
from .ledger import Ledger
from .tables import Client, Job

if TYPE_CHECKING:
    from ..common.config import Broker as Settings
    from .durable import Durables

log = logging.getLogger(__name__)
MAX_BANISHED: Final = 10_000


class Clientele:
    """`give_back(job)` finds a connection that still waits, `end(job, error)` answers a job with an error."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        durables: Durables,
        give_back: Callable[[Job], bool],
        end: Callable[[Job, BusError], None],
        now: float,
    ) -> None:
        self.nobody = Client(b"", now)
        "Owns the durable jobs whose clients have gone."
        self.banished: OrderedDict[bytes, None] = OrderedDict()
        "Connections that were cut off; the oldest of too many are forgotten."
        self._timeout_s = settings.client_timeout_s
        self._ledger = ledger
        self._durables = durables
        self._give_back = give_back
        self._end = end

    def gone(self, peer: bytes) -> None:
        """Give up what a vanished client has left; durable jobs go on."""
        client = self._ledger.clients.pop(peer, None)
        if client is None or not client.jobs:
            return
        log.warning("client %s gone with %d jobs open", peer.hex(), len(client.jobs))
        self._durables.leave(client, self.nobody)
        for job in list(client.jobs.values()):
            if self._give_back(job):
                continue
            if job.durable:
                self._ledger.give_to(job, self.nobody)
                job.flags &= ~STREAM
            else:
                self._end(job, ClientLost("the client was silent for too long: submit the job again"))

    def slow(self, peer: bytes) -> None:
        """Cut off a client that does not read: what waited for it has been dropped by the transport."""
        log.warning("client %s does not read what it is sent, it is cut off", peer.hex())
        self._ledger.totals["slow_consumers"] += 1
        self.ban(peer)

    def ban(self, peer: bytes) -> None:
        """Answer a connection no more, and give up what it has left."""
        self.banished[peer] = None
        if len(self.banished) > MAX_BANISHED:
            self.banished.popitem(last=False)
        self.gone(peer)

    def excuse(self, seconds: float) -> None:
        """Count this span as nobody's silence."""
        for client in self._ledger.clients.values():
            client.seen_at += seconds

    def sweep(self, now: float) -> None:
        """Give up those that were silent for too long."""
        silent = [c.peer for c in self._ledger.clients.values() if now - c.seen_at > self._timeout_s]
        for peer in silent:
            self.gone(peer)
