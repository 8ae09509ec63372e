"""A broker: the real core, driven turn by turn as `broker/loop.py` drives it.

The order within a turn is the loop's: the journal's word, workers, clients, what is due, and one burst out.
Peers that are gone or do not read are found while sending, and what that leads to is sent in the next turn.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from tests.sim.journal import Disk, Outcome, Scribe
from tests.sim.network import Connection, Frames, Port, Replayed, tell
from tests.sim.process import Process
from voicebus.broker import admin
from voicebus.broker.core import BrokerCore
from voicebus.broker.outbox import Outbox
from voicebus.common import wire
from voicebus.common.bundles import Bundler
from voicebus.common.errors import ProtocolError

if TYPE_CHECKING:
    from tests.sim.world import World

BATCH: Final = 32
RETRY_PARKED_S: Final = 0.002
WALL_S: Final = 1.7e9
UNLIMITED: Final = 1 << 62


class SimOutbox(Outbox):
    """The real outbox over a port of the virtual network."""

    def __init__(self, port: Port, max_per_peer_bytes: int = UNLIMITED) -> None:
        self._port = port
        self._parked: dict[bytes, deque[tuple[bytes, ...]]] = {}
        self._parked_bytes: dict[bytes, int] = {}
        self.bundler = Bundler()
        self._max_per_peer_bytes = max_per_peer_bytes
        self._max_bytes = UNLIMITED
        self.parked_bytes = 0
        self.slow: list[bytes] = []

    def _try(self, message: tuple[bytes, ...], gone: list[bytes]) -> bool:
        sent = self._port.send(message)
        if sent is None:
            gone.append(message[0])
        return sent is not False


class Broker(Process):
    """One broker with its disk."""

    core: BrokerCore

    def __init__(self, world: World, index: int) -> None:
        super().__init__(world, f"broker{index}")
        self.index = index
        self.disk = Disk()
        self.wall_offset = WALL_S
        self.frontend = Port(self, "client")
        self.backend = Port(self, "worker")
        self.ports = [self.frontend, self.backend]
        self._outcomes: list[Outcome] = []
        self._from_workers: deque[tuple[Connection, Frames]] = deque()
        self._stop_by: float | None = None

    def boot(self) -> None:
        plan, now = self.world.plan, self.world.schedule.now
        core = self.core = BrokerCore(
            plan.settings, self.world.dice.randrange, now, unsent_bytes=self._unsent_bytes
        )
        core.durables.wall_offset = self.wall_offset
        self._client_out = SimOutbox(self.frontend, plan.settings.max_unsent_bytes_per_client)
        self._worker_out = SimOutbox(self.backend)
        self._scribe = Scribe(self.world, self.disk, self._tell)
        self._outcomes = []
        self._stop_by = None
        if self.disk.rows:
            core.recover(self.disk.recover(), now)
        self.frontend.listens = self.backend.listens = True
        self.turn()

    def _unsent_bytes(self, peer: bytes) -> int:
        return self._client_out.parked_for(peer)

    def die(self) -> None:
        self._scribe.crash()
        self._from_workers.clear()

    def stop(self) -> None:
        """Begin to drain, as at SIGTERM."""
        if self.up and self._stop_by is None:
            self._stop_by = self.world.schedule.now + self.world.plan.settings.drain_timeout_s
            self.core.begin_drain()
            self.wake()

    def arrive(self, connection: Connection, frames: Frames) -> None:
        if self.up:
            (self._from_workers if connection.port is self.backend else self.inbox).append(
                (connection, frames)
            )
            self.wake()

    def _tell(self, outcomes: list[Outcome]) -> None:
        self._outcomes += outcomes
        self.wake()

    def turn(self) -> None:
        core, now = self.core, self.world.schedule.now
        if self._outcomes:
            outcomes, self._outcomes = self._outcomes, []
            for entry, outcome in outcomes:
                core.journalled(entry, outcome, now)
        for inbox, hear in ((self._from_workers, self._hear_worker), (self.inbox, self._hear_client)):
            for _ in range(min(BATCH, len(inbox))):
                connection, frames = inbox.popleft()
                if type(frames) is Replayed and self._is_open(connection.peer, frames):
                    continue
                if self.world.tracing:
                    self.world.note(f"{self.name} < {connection.peer.decode()} {tell(frames)}")
                try:
                    hear(connection.peer, frames, now)
                except ProtocolError as error:
                    self.world.accounts.wrong(
                        f"{self.name} found a message malformed: {error}: {tell(frames)}"
                    )
        if now >= core.next_deadline():
            core.durables.wall_offset = self.wall_offset
            core.tick(now)
        self._send(now)
        self.world.check(core.check_invariants)
        if self._stop_by is not None and self._finished(now):
            self._leave(now)
            return
        self.arm(self._wake_at(now))

    def _wake_at(self, now: float) -> float:
        if self.inbox or self._from_workers:
            return now
        if self._client_out.waiting or self._worker_out.waiting:
            return now + RETRY_PARKED_S
        deadline = self.core.next_deadline()
        return deadline if self._stop_by is None else min(deadline, self._stop_by)

    def _is_open(self, peer: bytes, frames: Frames) -> bool:
        """Whether a worker still works on what a message is about: an ended number may be used again."""
        worker = self.core.members.by_peer.get(peer)
        return worker is not None and worker.inflight.get(frames[0][4:22]) is not None

    def _hear_worker(self, peer: bytes, frames: Frames, now: float) -> None:
        core, envelope = self.core, frames[0]
        kind = envelope[3]
        if kind == wire.CHUNK:
            core.chunk(peer, envelope, frames[1], now)
        elif kind == wire.HEARTBEAT:
            core.heartbeat(peer, frames[1], now)
        elif kind == wire.STARTED:
            core.started(peer, envelope, frames[1], now)
        elif kind == wire.DONE:
            core.done(peer, envelope, frames[1], now)
        elif kind == wire.FAILED:
            core.failed(peer, envelope, frames[1], now)
        elif kind == wire.RETURN:
            core.returned(peer, envelope, now)
        elif kind == wire.READY:
            core.ready(peer, frames[1], now)
        elif kind == wire.DRAIN:
            core.worker_drains(peer, now)
        else:
            core.worker_leaves(peer, "drained" if kind == wire.DRAINED else "said goodbye", now)

    def _hear_client(self, peer: bytes, frames: Frames, now: float) -> None:
        core, envelope = self.core, frames[0]
        kind = envelope[3]
        if kind == wire.SUBMIT:
            known = self._knows(envelope[4:20])
            self.world.accounts.submitted(envelope[4:20], frames[2])
            self.world.accounts.asked(peer, envelope)
            core.submit(peer, envelope, frames[1], frames[2], now)
            if known and self._was_taken_in(envelope[4:20]):
                self.world.accounts.wrong(f"{self.name} took a job in twice: {tell(frames)}")
        elif kind == wire.PING:
            core.ping(peer, envelope, now)
        elif kind == wire.FETCH:
            self.world.accounts.asked(peer, envelope)
            core.fetch(peer, envelope, now)
        elif kind == wire.CANCEL:
            self.world.accounts.asked(peer, envelope)
            core.cancel(peer, envelope[4:20], now)
        else:
            admin.answer(core, peer, envelope, frames[1], now)

    def _knows(self, job: bytes) -> bool:
        """Whether a job of this id is open, or its answer is still held."""
        core = self.core
        durables = core.durables
        tables: tuple[dict[bytes, Any], ...] = (
            core.ledger.jobs, core.results.finished, durables.pending, durables.ending, durables.ended,
            durables.fetched,
        )  # fmt: skip
        return any(job in table for table in tables)

    def _was_taken_in(self, job: bytes) -> bool:
        """Whether what the core said last is that it accepts a new job of this id."""
        out = self.core.to_clients
        return bool(out) and out[-1][1][3:20] == bytes((wire.ACCEPTED,)) + job and not out[-1][1][23]

    def _send(self, now: float) -> None:
        core, accounts = self.core, self.world.accounts
        core.flush(now)
        if self.world.tracing:
            for message in (*core.to_workers, *core.to_clients):
                self.world.note(f"{self.name} > {message[0].decode()} {tell(message[1:])}")
        for message in core.to_clients:
            accounts.told(self, message)
        gone_workers = self._worker_out.burst(core.to_workers, now) if core.to_workers else []
        if self._worker_out.waiting:
            gone_workers += self._worker_out.retry()
        gone_clients = self._client_out.burst(core.to_clients, now) if core.to_clients else []
        if self._client_out.waiting:
            gone_clients += self._client_out.retry()
        for peer in gone_workers:
            core.worker_leaves(peer, "unreachable", now, counted=True)
        for peer in gone_clients:
            core.client_gone(peer)
        if self._client_out.slow:
            for peer in self._client_out.slow:
                self.world.struck("slow consumer")
                core.client_slow(peer)
            self._client_out.slow.clear()
        if core.to_journal:
            entries = core.to_journal.copy()
            core.to_journal.clear()
            self._scribe.put(entries)
            core.durables.behind_bytes = self._scribe.backlog_bytes

    def _finished(self, now: float) -> bool:
        core = self.core
        if self._stop_by is not None and now >= self._stop_by:
            return True
        return not (core.ledger.jobs or core.durables.busy or self._client_out.waiting)

    def _leave(self, now: float) -> None:
        """Exit as after a drain: what was sent still arrives, then the connections end."""
        self.core.abort()
        self._send(now)
        self._scribe.close()
        if self.world.tracing:
            self.world.note(f"{self.name} has drained")
        for connection in [c for port in self.ports for c in port.connections.values()]:
            connection.up.open = False
            at = max(connection.down.last_at, now) + self.world.soon()
            self.world.schedule.at(at, connection.socket.broken, connection)
        self.ended()
        self._from_workers.clear()
        self.world.schedule.after(self.world.dice.random() * 2, self.start)
