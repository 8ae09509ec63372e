"""The broker without the world: what every message does to the tables, and what is sent because of it.

Sans-IO: no socket, clock, thread or randomness is imported. The loop calls one method a message, with the
time; messages to send are appended to `to_clients` and `to_workers` as tuples of frames behind the routing
id, which the loop flushes as a burst. That is also how a simulator runs thousands of failures a second.

What belongs together stands together: jobs are opened and closed by the ledger alone, `attempts.py` hands
them to workers and takes them back, `membership.py` knows who is here, `durable.py` what the journal has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from struct import Struct
from typing import TYPE_CHECKING, Final

from ..common import spoken, wire
from ..common.errors import (
    BadRequest,
    BusError,
    Cancelled,
    ClientLost,
    DeadlineExceeded,
    ProtocolError,
)
from ..common.messages import Done, Failed, Spoken, Started, Submit, decode, encode, failed
from .admission import Admission
from .attempts import Attempts
from .clientele import Clientele
from .durable import Durables
from .entries import Entry, Page, Read, Recovered
from .intake import Intake, not_kept, stopping
from .invariants import check_invariants
from .ledger import Ledger, Out
from .manners import Manners
from .membership import Membership
from .pools import Pools
from .results import Results, whole_answer
from .states import JobState
from .tables import Job, Payload, Worker, size_of

if TYPE_CHECKING:
    from ..common.config import Broker as Settings

log = logging.getLogger(__name__)
_ASSIGNED: Final = int(JobState.ASSIGNED)
_NO_SEGMENT: Final = 2**32 - 1
"""None can follow it: the next attempt's first segment would have no place in an envelope."""
_number_and_segment: Final = Struct("!II").unpack_from
LATE_S: Final = 0.5
"""A sweep that comes later than this by so much comes after a pause of our own."""


class BrokerCore:
    """All state of one broker. `expected` names engines that may be waited for before a worker has come.

    `unsent_bytes(peer)` is what the transport holds for a client that has not taken it yet.
    """

    def __init__(
        self,
        settings: Settings,
        rand_below: Callable[[int], int],
        now: float,
        expected: Iterable[str] = (),
        unsent_bytes: Callable[[bytes], int] = lambda _peer: 0,
    ) -> None:
        self.settings = settings
        self.started_at = now
        self.ledger = Ledger()
        self.results = Results(settings, self.ledger)
        self.durables = Durables(settings, self.ledger, self._enqueue, self._end)
        self.to_journal = self.durables.to_journal
        self.to_workers: Out = []
        self.manners = Manners()
        self.admission = Admission(settings, self.ledger, now)
        self.pools = Pools(settings, rand_below, now, expected)
        self.members = Membership(settings, self.to_workers, self.pools.admit, self._worker_lost)
        self.attempts = Attempts(
            settings, self.ledger, self.pools, self.members, self.results, self.durables, self.to_workers,
            self._end, self._put_by_or_end,
        )  # fmt: skip
        self.intake = Intake(
            settings, self.ledger, self.admission, self.pools, self.attempts, self.results, self.durables,
            self._put_by_or_end, unsent_bytes,
        )  # fmt: skip
        self.clientele = Clientele(
            settings, self.ledger, self.durables, self.intake.give_back, self._end, now
        )
        self._sweep_every_s = min(1.0, settings.heartbeat_interval_s / 2)
        self._sweep_at = now + self._sweep_every_s
        self._now = now
        "As of the last message or tick that could end a job in an error."
        # The hot path reads these; the objects never change.
        self.to_clients = self.ledger.to_clients
        self._jobs = self.ledger.jobs
        self._clients = self.ledger.clients
        self._workers = self.members.by_peer
        self.banished = self.clientele.banished
        self.client_gone = self.clientele.gone
        self.client_slow = self.clientele.slow
        self.client_banned = self.clientele.ban

    @property
    def draining(self) -> bool:
        """Whether this broker stops: it takes nothing new."""
        return self.attempts.draining

    # ---- from clients

    def submit(self, peer: bytes, envelope: bytes, header: bytes, payload: Payload, now: float) -> None:
        """Take a job in, or refuse it with one FAILED. Raises `ProtocolError`."""
        client = self._clients.get(peer)
        if client is not None:
            client.seen_at = now
        elif peer in self.banished:
            return
        else:
            client = self.ledger.client(peer, now)
        try:
            self.intake.submit(client, envelope, header, payload, now)
        except ProtocolError:
            self.ledger.totals["refused"] += 1
            raise
        except BusError as error:
            self.refuse(peer, envelope, error, now)

    def refuse(self, peer: bytes, envelope: bytes, error: BusError, now: float) -> None:
        """Answer a job that is not taken."""
        if peer not in self.banished:
            self.ledger.client(peer, now)
            self.ledger.totals["refused"] += 1
            self.ledger.refuse(peer, envelope[4:20], 0, error)

    def fetch(self, peer: bytes, envelope: bytes, now: float) -> None:
        """Tell what became of a job, and send a page of its result."""
        if peer in self.banished:
            return
        self.ledger.client(peer, now)
        try:
            self.intake.fetch(peer, envelope)
        except BusError as error:
            self.ledger.refuse(peer, envelope[4:20], 0, error)

    def cancel(self, peer: bytes, job_id: bytes, now: float) -> bool:
        """End a job at a client's wish; False if none is open. CANCEL is idempotent: that is no error."""
        if peer in self.banished:
            return False
        self.ledger.client(peer, now)
        job = self._jobs.get(job_id)
        if job is None:
            return self.durables.cancel(job_id)
        self._end(job, Cancelled("the job was cancelled"))
        return True

    def ping(self, peer: bytes, envelope: bytes, now: float) -> None:
        """Say that we are here."""
        if peer not in self.banished:
            self.ledger.client(peer, now)
            self.to_clients.append((peer, envelope[:3] + bytes((wire.PONG,)) + envelope[4:]))

    def malformed(
        self, peer: bytes, job_id: bytes, error: BusError, now: float, *, from_worker: bool
    ) -> bool:
        """Count a message that is not VB1 and say so; nothing else changes. False: it was once too often."""
        self.ledger.totals["protocol_errors"] += 1
        borne = self.manners.offend(peer, now)
        if self.manners.worth_a_line(now):
            log.warning("refused a message from %s: %s%s", peer.hex(), error, self.manners.untold())
        if from_worker:
            self.members.refuse(peer, job_id, error)
        else:
            self.ledger.refuse(peer, job_id, 0, error)
        return borne

    # ---- from the journal

    def recover(self, found: list[Recovered], now: float) -> None:
        """Take up what an earlier start has left. Called once, before anything else."""
        self.durables.recover(
            found, now, lambda job, submit, deadline: self._revive(job, submit, deadline, now)
        )

    def _revive(self, found: Recovered, submit: Submit, deadline: float, now: float) -> None:
        pool = self.pools.of(submit.engine or self.settings.default_engine, now)
        job = Job(
            found.job, self.clientele.nobody, pool, 0, deadline, found.header, submit, found.text,
            entered_at=now, size_bytes=size_of(found.header, found.text),
        )  # fmt: skip
        job.attempt, job.losses, job.history = found.attempt, found.losses, found.history
        self.ledger.open(job)
        self.ledger.totals["recovered"] += 1
        pool.queue.push(job)
        self.pools.touch(pool)

    def journalled(self, entry: Entry, outcome: BusError | Page | None, now: float) -> None:
        """Take the journal's word on an entry of `to_journal`: it stands (None), failed, or was read."""
        self._now = now
        if isinstance(entry, Read):
            if outcome is not None:
                self.durables.page(entry, outcome, now)
        elif not isinstance(outcome, Page):
            self.durables.written(entry, outcome, now)

    # ---- from workers

    def started(self, peer: bytes, envelope: bytes, header: bytes, now: float) -> None:
        """An attempt begins. Raises `ProtocolError`."""
        worker = self._workers.get(peer)
        job = None if worker is None else worker.inflight.get(envelope[4:22])
        if worker is None or job is None:
            self.attempts.stray(peer, envelope, now)
            return
        worker.seen_at = worker.progress_at = job.progress_at = now
        if job.state == _ASSIGNED:
            decode(header, Started)  # it goes on as it is, to whoever waits for it
            self.attempts.started(job, now)
            self.results.started(job, envelope, header)
            client = job.client.peer
            if client:
                self.to_clients.append((client, envelope, header))

    def chunk(self, peer: bytes, envelope: bytes, payload: Payload, now: float) -> None:
        """Forward audio, and remember where a retry could resume."""
        worker = self._workers.get(peer)
        job = None if worker is None else worker.inflight.get(envelope[4:22])
        if worker is None or job is None:
            self.attempts.stray(peer, envelope, now)
            return
        worker.seen_at = worker.progress_at = job.progress_at = now
        number, segment = _number_and_segment(envelope, 24)
        size = len(payload)
        if number != job.next_chunk or size & 1 or segment == _NO_SEGMENT:
            self._misfit(job, number)
            return
        job.next_chunk = number + 1
        if job.silent and size:
            self.attempts.first_audio(job, now)
        if envelope[23] & wire.SEGMENT_END:
            job.segments_done = segment + 1
            job.mid_segment = False
        elif size:
            job.mid_segment = True
        self.results.chunk(job, envelope, payload)
        client = job.client.peer
        if client:
            self.to_clients.append((client, envelope, payload))
        if job.submit.durable:
            self.durables.audio(job, envelope, payload)

    def _misfit(self, job: Job, number: int) -> None:
        """Audio that does not follow on. What came before is dropped; a gap would be kept as whole."""
        if number < job.next_chunk:
            self.ledger.totals["stale"] += 1
        else:
            cause = f"chunk {number} came instead of {job.next_chunk}, with half a sample, or of no segment"
            self.attempts.abandon(job, cause, counted=True)

    def done(self, peer: bytes, envelope: bytes, header: bytes, now: float) -> None:
        """An attempt has spoken everything. Raises `ProtocolError`."""
        end = decode(header, Done)
        worker = self._workers.get(peer)
        job = self.attempts.close(peer, envelope, now, well=True)
        if job is None or worker is None:
            return
        durable = job.submit.durable
        if durable and (end.chunks != job.next_chunk or not job.started):
            # A client counts for itself; what goes into the journal nobody counts again.
            self.attempts.retry(job, worker, "DONE does not fit what was spoken", counted=True)
        else:
            self.ledger.done(job, envelope, header)
            if durable:
                self.results.forget(job)
                self.durables.finished(job, "done", header, now)
            else:
                answer = header if job.attempt == 1 else whole_answer(job, header)
                kept = self.results.keep(job, answer, None, now)
                for peer in job.watchers:
                    if kept:
                        self.ledger.accepted(peer, job.id, job.pool.engine, wire.ATTACHED | wire.STORED)
                    else:
                        self.ledger.refuse(peer, job.id, job.attempt, not_kept())

    def spoken(self, peer: bytes, envelope: bytes, frames: tuple[bytes, Payload], now: float) -> None:
        """A whole attempt in one message. Raises `ProtocolError`."""
        header, payload = frames
        worker = self._workers.get(peer)
        job = None if worker is None else worker.inflight.get(envelope[4:22])
        if (
            job is not None
            and job.state == _ASSIGNED
            and job.attempt == 1
            and not job.next_chunk
            and len(payload)
            and not len(payload) & 1
            and not (job.submit.durable or job.silent or job.watchers)
        ):
            decode(header, Spoken)
            self.attempts.close(peer, envelope, now)
            self.ledger.done(job, envelope, header, payload)
            self.results.keep_spoken(job, envelope, header, payload, now)
            return
        started, chunk, done = spoken.parts(envelope, header, payload)
        self.started(peer, *started, now)
        self.chunk(peer, *chunk, now)
        self.done(peer, *done, now)

    def failed(self, peer: bytes, envelope: bytes, header: bytes, now: float) -> None:
        """An attempt failed: again elsewhere if that can help, else the code goes to the client."""
        error = decode(header, Failed).error()
        worker = self._workers.get(peer)
        job = self.attempts.close(peer, envelope, now)
        if job is None or worker is None:
            return
        if error.retryable:
            self.attempts.retry(job, worker, str(error), counted=True)
        else:
            self._end(job, error)

    def returned(self, peer: bytes, envelope: bytes, now: float) -> None:
        """An attempt that was never begun comes back, without penalty."""
        worker = self._workers.get(peer)
        job = self.attempts.close(peer, envelope, now, worked=False)
        if job is not None and worker is not None:
            self.attempts.retry(job, worker, "handed back", counted=False, returned=True)

    def ready(self, peer: bytes, header: bytes, now: float, holder: str = "") -> None:
        """A worker registers, with the key `holder`. Raises `ProtocolError`, `Forbidden` and `Overloaded`."""
        self.members.ready(peer, header, now, holder)
        worker = self._workers.get(peer)
        if worker is not None:
            self.pools.touch(worker.pool)

    def heartbeat(self, peer: bytes, header: bytes, now: float) -> None:
        """A worker lives; the jobs it names have made progress. Raises `ProtocolError`."""
        worker = self.attempts.heard(peer, now)
        if worker is not None:
            for job_id in self.members.heartbeat(worker, header).progressed:
                job = self._jobs.get(job_id)
                if job is not None and job.worker is worker:
                    job.progress_at = worker.progress_at = now

    def worker_drains(self, peer: bytes, now: float) -> None:
        """A worker was told to stop and wants no more."""
        worker = self.attempts.heard(peer, now)
        if worker is not None:
            self.members.drain(worker, tell=False)

    def worker_leaves(self, peer: bytes, cause: str, now: float, *, counted: bool = False) -> None:
        """A worker goes and says so: what is still open goes to others, without penalty.

        `counted`: it did not say so, its connection is dead; what it had begun may have been what killed it.
        """
        worker = self._workers.get(peer)
        if worker is not None:
            self.members.remove(worker, cause, now, counted=counted)

    def drain_worker(self, worker_id: str) -> None:
        """An operator wants a worker to finish and leave. Raises `BadRequest` for an unknown id."""
        worker = self.members.by_id.get(worker_id)
        if worker is None:
            raise BadRequest(f"no worker `{worker_id}` is registered; `vc status` lists them")
        self.members.drain(worker, tell=True)

    # ---- time

    def next_deadline(self) -> float:
        """When `tick` has something to do, in the clock of `now`."""
        at = self._sweep_at
        expiry, held = self.ledger.deadlines.next_deadline(), self.pools.next_deadline()
        if expiry is not None and expiry < at:
            at = expiry
        return at if held is None or held > at else held

    def flush(self, now: float) -> None:
        """Hand out waiting jobs. Called before what was appended is sent."""
        self.intake.sent()
        self.attempts.flush(now)

    def tick(self, now: float) -> None:
        """Do what time demands: expiry of jobs; each sweep also liveness, leases and hopeless queues."""
        self._now = now
        for job_id in self.ledger.deadlines.expired(now):
            self._end(self._jobs[job_id], DeadlineExceeded("the job's deadline passed"))
        self.attempts.tick(now)
        if now < self._sweep_at:
            return
        late_s = now - self._sweep_at
        if late_s > LATE_S:
            self._excuse(late_s)
        self._sweep_at = now + self._sweep_every_s
        self.admission.sweep(now)
        self.results.sweep(now)
        self.durables.sweep(now)
        self.members.sweep(now)
        self.attempts.sweep(now)
        self.clientele.sweep(now)
        for pool in self.pools.by_engine.values():
            if not pool.workers and pool.queue.size:
                error = self.pools.hopeless(pool, now)
                if error is not None:
                    for job in list(pool.queue):
                        if not job.durable:
                            self._end(job, error)

    def _excuse(self, late_s: float) -> None:
        """We stood still, not they: what they said meanwhile may be unread, and is no silence."""
        log.warning("the broker stood still for %.1f s", late_s)
        self.members.excuse(late_s)
        self.clientele.excuse(late_s)
        for job in self._jobs.values():
            job.progress_at += late_s

    # ---- jobs that end otherwise

    def _enqueue(self, job: Job, now: float) -> None:
        self.intake.enqueue(job, now)

    def _worker_lost(self, worker: Worker, cause: str, counted: bool) -> None:
        self.attempts.lost(worker, cause, counted)

    def _end(self, job: Job, error: BusError) -> None:
        """Answer a job with an error, wherever it is."""
        self.attempts.disown(job)
        cancelled = isinstance(error, Cancelled | ClientLost)
        self.ledger.fail(job, error, JobState.CANCELLED if cancelled else JobState.FAILED)
        answer = encode(failed(error, job.history))
        if job.durable:
            self.results.forget(job)
            self.durables.finished(job, "cancelled" if cancelled else "failed", answer, self._now)
        elif cancelled or error.retryable:
            self.results.forget(job)  # the same id may well be tried again
        else:
            self.results.keep(job, answer, error, self._now)

    def _put_by_or_end(self, job: Job) -> None:
        """The broker stops: the journal keeps what is durable for the next start, the rest is answered."""
        if not job.durable:
            self._end(job, stopping())
            return
        self.attempts.disown(job)
        self.results.forget(job)
        self.ledger.put_by(job)

    # ---- stopping

    def begin_drain(self) -> None:
        """Take nothing new, answer what was not begun, let the rest finish."""
        self.attempts.draining = True
        for job in [job for job in self._jobs.values() if job.state == JobState.QUEUED]:
            self._put_by_or_end(job)

    def abort(self) -> None:
        """Answer everything that is still open, and say goodbye: the time to drain is over."""
        for job in list(self._jobs.values()):
            self._put_by_or_end(job)
        self.members.farewell()

    def check_invariants(self) -> None:
        """Raise AssertionError unless the tables agree with each other. For tests: it walks everything."""
        check_invariants(self)
