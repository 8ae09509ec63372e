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
from ..common.messages import encode, failed
from .deadlines import DeadlineWheel
from .states import JOB_MOVES, IllegalMoveError, JobState
from .tables import Client, Job

log = logging.getLogger(__name__)
Out = list[tuple[bytes, ...]]
COUNTED: Final = (
    "accepted", "done", "failed", "cancelled", "refused", "retried", "returned", "stale", "protocol_errors",
    "illegal_moves",
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
        job.client.jobs += 1
        self.deadlines.add(job.id, job.deadline)
        self.totals["accepted"] += 1

    def give_to(self, job: Job, client: Client) -> None:
        """Owe a job's answer to another connection."""
        job.client.jobs -= 1
        client.jobs += 1
        job.client = client

    def done(self, job: Job, envelope: bytes, header: bytes) -> None:
        """Close a job with its worker's DONE."""
        self.to_clients.append((job.client.peer, envelope, header))
        self._close(job, JobState.DONE)
        self.totals["done"] += 1

    def fail(self, job: Job, error: BusError, state: JobState) -> None:
        """Close a job with an error; `state` is FAILED or CANCELLED."""
        self.refuse(job.client.peer, job.id, job.attempt, error, job.history)
        self.failures[error.code] = self.failures.get(error.code, 0) + 1
        if state is not JobState.CANCELLED:
            log.info("job=%s attempt=%d failed: %s", job.id.hex(), job.attempt, error)
        queued = job.state == JobState.QUEUED
        self._close(job, state)
        self.totals[state.name.lower()] += 1
        if queued:
            job.pool.queue.removed(job)

    def refuse(
        self, peer: bytes, job_id: bytes, attempt: int, error: BusError, history: list[str] | None = None
    ) -> None:
        """Send FAILED."""
        envelope = wire.pack_envelope(wire.FAILED, job_id, attempt)
        self.to_clients.append((peer, envelope, encode(failed(error, history))))

    def _close(self, job: Job, state: JobState) -> None:
        move(job, state)
        del self.jobs[job.id]
        self.deadlines.discard(job.id, job.deadline)
        job.client.jobs -= 1
        job.worker = None
