"""What may happen to a job and to a worker: the two tables every change of state is checked against.

States are single bits, so the check on the hot path is one lookup and one `and`. An illegal move is a bug of
the broker's own: tests raise on it, production counts and logs it and goes on (see `Moves.strict`).

    job      QUEUED → ASSIGNED → RUNNING → DONE | FAILED | CANCELLED
                ↑________|__________|   (attempt lost or handed back)
    worker   READY → DRAINING → GONE
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class JobState(IntEnum):
    """Where a job is. DONE, FAILED and CANCELLED are terminal: one answer has gone to the submitter."""

    QUEUED = 1
    ASSIGNED = 2
    "Sent to a worker that has not said STARTED."
    RUNNING = 4
    DONE = 8
    FAILED = 16
    CANCELLED = 32
    PUT_BY = 64
    "Durable and not finished when the broker stopped: the journal has it, the next start goes on."


class WorkerState(IntEnum):
    """Where a worker is. GONE is terminal: another registration is another entry."""

    READY = 1
    DRAINING = 2
    "Finishes what it has, gets nothing new."
    GONE = 4


JOB_MOVES: Final[dict[int, int]] = {
    JobState.QUEUED: JobState.ASSIGNED | JobState.FAILED | JobState.CANCELLED | JobState.PUT_BY,
    JobState.ASSIGNED: JobState.QUEUED
    | JobState.RUNNING
    | JobState.DONE
    | JobState.FAILED
    | JobState.CANCELLED
    | JobState.PUT_BY,
    JobState.RUNNING: JobState.QUEUED
    | JobState.DONE
    | JobState.FAILED
    | JobState.CANCELLED
    | JobState.PUT_BY,
    JobState.DONE: 0,
    JobState.FAILED: 0,
    JobState.CANCELLED: 0,
    JobState.PUT_BY: 0,
}
WORKER_MOVES: Final[dict[int, int]] = {
    WorkerState.READY: WorkerState.DRAINING | WorkerState.GONE,
    WorkerState.DRAINING: WorkerState.GONE,
    WorkerState.GONE: 0,
}


class IllegalMoveError(AssertionError):
    """A state change that the tables forbid."""
