"""Who is here: registration, liveness both ways, draining and leaving of workers.

Routing ids are made by the ROUTER and mean one connection; identity is worker id and incarnation, and the
newest wins. Whatever an unknown connection sends, it is asked to register: a late message from a worker
that was given up must neither create state nor raise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..common import wire
from ..common.errors import BusError, Forbidden
from ..common.messages import Heartbeat, Ready, Welcome, decode, encode, failed
from .ledger import Out
from .states import WORKER_MOVES, IllegalMoveError, WorkerState
from .tables import Pool, Worker

if TYPE_CHECKING:
    from ..common.config import Broker as Settings

log = logging.getLogger(__name__)


class Membership:
    """The table of workers. `lost(worker, cause, counted)` is told of each that goes, with its open jobs."""

    def __init__(
        self,
        settings: Settings,
        out: Out,
        pool_of: Callable[[str, float], Pool],
        lost: Callable[[Worker, str, bool], None],
    ) -> None:
        self.by_peer: dict[bytes, Worker] = {}
        self.by_id: dict[str, Worker] = {}
        self.registrations = 0
        self.deaths = 0
        self._settings = settings
        self._out = out
        self._pool_of = pool_of
        self._lost = lost

    def ready(self, peer: bytes, header: bytes, now: float, holder: str = "") -> None:
        """Register a worker, or replace, move or refuse it by its incarnation.

        Raises `ProtocolError`, `Forbidden` and `Overloaded`. A registered id is its key's: nobody drives a
        worker away whose key they do not hold.
        """
        info = decode(header, Ready)
        known = self.by_id.get(info.worker)
        if known is not None and known.holder != holder:
            raise Forbidden(f"the worker {info.worker!r} is here with another key")
        if info.renews and (known is None or known.peer != peer):
            # It believes to be registered, and works on attempts that we know nothing of, or have given up.
            self.reregister(peer)
            return
        if known is not None and info.incarnation < known.info.incarnation:
            log.warning("worker %s refused: a newer incarnation is registered", info.worker)
            self._out.append((peer, wire.pack_envelope(wire.GOODBYE)))
            return
        pool = self._pool_of(info.engine, now)
        if known is not None:
            same = info.incarnation == known.info.incarnation
            if same and known.peer == peer and known.pool.engine == info.engine:
                self._renew(known, info, now)
                return
            # Whatever was on its way to the old connection is gone with it; that is no fault of the jobs.
            self.remove(known, "connected anew" if same else "restarted", now, counted=not same)
        other = self.by_peer.get(peer)
        if other is not None:
            self.remove(other, f"its connection now speaks for {info.worker}", now)
        self._enter(peer, info, pool, now, holder)

    def _renew(self, worker: Worker, info: Ready, now: float) -> None:
        """The same worker says READY again, perhaps with other slots: it shares them between brokers."""
        worker.seen_at = now
        if worker.state == WorkerState.READY:
            worker.pool.leave(worker)
            worker.slots, worker.warm_voices = info.slots, info.warm_voices
            worker.pool.join(worker)
        worker.info = worker.pool.info = info
        self._welcome(worker)

    def _enter(self, peer: bytes, info: Ready, pool: Pool, now: float, holder: str) -> None:
        interval_s = max(self._settings.heartbeat_interval_s, info.interval_ms / 1000)
        worker = Worker(
            peer, info, pool, interval_s, seen_at=now, since=now, progress_at=now, beat_at=now + interval_s,
            warm_voices=info.warm_voices, slots=info.slots, holder=holder,
        )  # fmt: skip
        self.by_peer[peer] = self.by_id[info.worker] = worker
        pool.workers += 1
        pool.info = info
        pool.join(worker)
        self.registrations += 1
        log.info("worker %s registered engine=%s slots=%d", info.worker, info.engine, info.slots)
        self._welcome(worker)

    def _welcome(self, worker: Worker) -> None:
        settings = self._settings
        header = encode(Welcome(settings.name, round(worker.interval_s * 1000), settings.liveness))
        self._out.append((worker.peer, wire.pack_envelope(wire.WELCOME), header))

    def reregister(self, peer: bytes) -> None:
        """Answer an unknown connection."""
        self._out.append((peer, wire.pack_envelope(wire.REREGISTER)))

    def refuse(self, peer: bytes, job_id: bytes, error: BusError) -> None:
        """Tell a peer that its message was not VB1."""
        self._out.append((peer, wire.pack_envelope(wire.FAILED, job_id), encode(failed(error))))

    def heartbeat(self, worker: Worker, header: bytes) -> Heartbeat:
        """Take in a worker's own view. Raises `ProtocolError`."""
        beat = decode(header, Heartbeat)
        if beat.warm_voices != worker.warm_voices:
            if worker.state == WorkerState.READY:
                worker.pool.affinity.heard(worker, beat.warm_voices)
            else:
                worker.warm_voices = beat.warm_voices
        worker.stats = beat.stats
        return beat

    def drain(self, worker: Worker, *, tell: bool) -> None:
        """Give it no more jobs; with `tell`, ask it to finish and leave. Idempotent."""
        if worker.state == WorkerState.READY:
            self._move(worker, WorkerState.DRAINING)
            worker.pool.leave(worker)
            log.info("worker %s drains, %d jobs open", worker.info.worker, len(worker.inflight))
        if tell:
            self._out.append((worker.peer, wire.pack_envelope(wire.DRAIN)))

    def remove(self, worker: Worker, cause: str, now: float, *, counted: bool = True) -> None:
        """Forget a worker; `counted` says whether its end counts against the jobs it had begun."""
        if worker.state == WorkerState.READY:
            worker.pool.leave(worker)
        self._move(worker, WorkerState.GONE)
        del self.by_peer[worker.peer]
        if self.by_id.get(worker.info.worker) is worker:
            del self.by_id[worker.info.worker]
        worker.pool.workers -= 1
        if not worker.pool.workers:
            worker.pool.empty_since = now
        level = logging.WARNING if worker.inflight else logging.INFO
        log.log(level, "worker %s gone: %s, %d jobs open", worker.info.worker, cause, len(worker.inflight))
        self._lost(worker, cause, counted)

    def sweep(self, now: float) -> None:
        """Beat to workers that heard nothing from us for an interval; give up those silent for too long."""
        liveness = self._settings.liveness
        beat = wire.pack_envelope(wire.HEARTBEAT)
        silent: list[Worker] = []
        for worker in self.by_peer.values():
            if now - worker.seen_at > worker.interval_s * liveness:
                silent.append(worker)
            elif now >= worker.beat_at:
                worker.beat_at = now + worker.interval_s
                self._out.append((worker.peer, beat))
        for worker in silent:
            self.deaths += 1
            self.remove(worker, f"silent for {now - worker.seen_at:.1f} s", now)

    def excuse(self, seconds: float) -> None:
        """Count this span as nobody's silence."""
        for worker in self.by_peer.values():
            worker.seen_at += seconds
            worker.progress_at += seconds

    def farewell(self) -> None:
        """Tell every worker that this broker leaves."""
        goodbye = wire.pack_envelope(wire.GOODBYE)
        self._out.extend((peer, goodbye) for peer in self.by_peer)

    @staticmethod
    def _move(worker: Worker, state: WorkerState) -> None:
        if not WORKER_MOVES[worker.state] & state:
            raise IllegalMoveError(
                f"worker {worker.info.worker}: {WorkerState(worker.state).name} → {state.name}"
            )
        worker.state = state
