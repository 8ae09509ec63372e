"""The ledger of jobs: the only place where a job is opened and where it is closed.

A job stands in `jobs` from ACCEPTED until its terminal answer has been appended, in the same step; so an
accepted job is answered once, and counting the entries in and out proves it. Clients stand here too, because
a job is owed to one.
"""

from __future__ import annotations

import logging
from typing import Final

from ..common import wire
from ..common.errors import BusError
from ..common.messages import Accepted, encode, failed
from .deadlines import DeadlineWheel
from .states import JOB_MOVES, IllegalMoveError, JobState
from .tables import Client, Job

log = logging.getLogger(__name__)
Message = tuple[bytes, ...]
"""(routing id, envelope, header or payload, …)"""
Out = list[Message]
COUNTED: Final = (
    "accepted", "recovered", "done", "failed", "cancelled", "put_by", "refused", "attached", "retried",
    "returned", "stale", "slow_consumers", "protocol_errors", "turned_away", "illegal_moves",
)  # fmt: skip


def move(job: Job, state: JobState) -> None:
    """Change a job's state as the table allows, or raise `IllegalMoveError`."""
    if not JOB_MOVES[job.state] & state:
        raise IllegalMoveError(f"job {job.id.hex()}: {JobState(job.state).name} → {state.name}")
    job.state = state


class Ledger:
    """Open jobs, their owners and deadlines, and the totals since start."""

    def __init__(self) -> None:
        self.jobs: dict[bytes, Job] = {}
        self.clients: dict[bytes, Client] = {}
        self.deadlines = DeadlineWheel()
        self.size_bytes = 0
        "What all open jobs take."
        self.totals: dict[str, int] = dict.fromkeys(COUNTED, 0)
        self.failures: dict[str, int] = {}
        "Jobs that ended in an error, by code."
        self.to_clients: Out = []

    def client(self, peer: bytes, now: float) -> Client:
        """The client behind a connection, which has just been heard of."""
        client = self.clients.get(peer)
        if client is None:
            client = self.clients[peer] = Client(peer, now)
        else:
            client.seen_at = now
        return client

    def open(self, job: Job) -> None:
        """Enter an accepted job."""
        self.jobs[job.id] = job
        client = job.client
        client.jobs[job.id] = job
        client.size_bytes += job.size_bytes
        self.size_bytes += job.size_bytes
        job.bucket = self.deadlines.add(job.id, job.deadline)

    def give_to(self, job: Job, client: Client) -> None:
        """Owe a job's answer to another connection."""
        self.charge(job, job.client, -1)
        self.charge(job, client, 1)
        job.client = client

    def charge(self, job: Job, client: Client, sign: int) -> None:
        """Put a job on a client's account, or take it off."""
        if sign > 0:
            client.jobs[job.id] = job
        else:
            del client.jobs[job.id]
        size = sign * job.size_bytes
        client.size_bytes += size
        self.size_bytes += size

    def done(self, job: Job, *message: bytes) -> None:
        """Close a job with its worker's DONE or SPOKEN."""
        peer = job.client.peer
        if peer:
            self.to_clients.append((peer, *message))
        self._close(job, JobState.DONE)
        self.totals["done"] += 1

    def fail(self, job: Job, error: BusError, state: JobState) -> None:
        """Close a job with an error; `state` is FAILED or CANCELLED."""
        # Those who watch a durable job are told when its end has been written down.
        for peer in (job.client.peer, *(() if job.durable else job.watchers)):
            self.refuse(peer, job.id, job.attempt, error, job.history)
        self.failures[error.code] = self.failures.get(error.code, 0) + 1
        if state is not JobState.CANCELLED:
            log.info("job=%s attempt=%d failed: %s", job.id.hex(), job.attempt, error)
        self._leave(job, state)

    def put_by(self, job: Job) -> None:
        """Close a durable job without an answer: the journal has it, and it goes on after the next start."""
        self._leave(job, JobState.PUT_BY)

    def _leave(self, job: Job, state: JobState) -> None:
        queued = job.state == JobState.QUEUED
        self._close(job, state)
        self.totals[state.name.lower()] += 1
        if queued:
            job.pool.queue.remove(job)

    def accepted(self, peer: bytes, job_id: bytes, engine: str, flags: int = 0, ahead: int = 0) -> None:
        """Send ACCEPTED, to whoever is there."""
        if peer:
            envelope = wire.pack_envelope(wire.ACCEPTED, job_id, flags=flags)
            self.to_clients.append((peer, envelope, encode(Accepted(engine, ahead))))

    def refuse(
        self, peer: bytes, job_id: bytes, attempt: int, error: BusError, history: tuple[str, ...] = ()
    ) -> None:
        """Send FAILED, to whoever is there."""
        if not peer:
            return
        envelope = wire.pack_envelope(wire.FAILED, job_id, attempt)
        self.to_clients.append((peer, envelope, encode(failed(error, history))))

    def _close(self, job: Job, state: JobState) -> None:
        move(job, state)
        job_id, client = job.id, job.client
        del self.jobs[job_id], client.jobs[job_id]
        client.size_bytes -= job.size_bytes
        self.size_bytes -= job.size_bytes
        job.bucket.pop(job_id, None)
        job.worker = None
