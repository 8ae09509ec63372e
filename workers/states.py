"""The legal moves of everything a worker keeps track of: links to brokers, engine slots, and jobs.

A link is one broker's registration of this worker. It begins without a socket, because a worker has
nothing to offer before its engine is loaded; READY goes out when the socket opens, WELCOME registers it.
Silence loses it, and after a jittered wait it connects anew. Draining is one-way: a link that drains ends
as left, whether the broker hears the last word or not.

A slot is the place of one engine process. It is loading until the engine reports itself, then idle or
busy with as many jobs as its engine speaks together, mostly one. A process that dies leaves its slot down
until it is started again. One that had nothing to do for long enough is told to rest, and its slot is asleep
once it is gone: the next job wakes it, that is, loads the engine anew.

A job waits in the queue, is assigned to a slot, speaks from its STARTED on, and ends in one DONE, FAILED or
RETURN to its broker. Cancelling means that the engine was told to stop and the answer is owed; abandoned
means that the broker was lost meanwhile: the engine is told to stop and nobody is owed an answer for now.

An illegal move is a defect: tests run with strict tables, which raise; in production it is counted and
logged, and the move is made, since a wrong state that is visible beats a worker that stops.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeVar

log = logging.getLogger(__name__)


class LinkState(Enum):
    """One broker's registration of this worker."""

    IDLE = "idle"
    CONNECTING = "connecting"
    REGISTERED = "registered"
    LOST = "lost"
    DRAINING = "draining"
    LEFT = "left"


class SlotState(Enum):
    """The process of one engine."""

    DOWN = "down"
    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"
    RESTING = "resting"
    ASLEEP = "asleep"
    STOPPING = "stopping"
    GONE = "gone"


class JobState(Enum):
    """One attempt at a job, as long as it is here."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    SPEAKING = "speaking"
    CANCELLING = "cancelling"
    ABANDONED = "abandoned"
    ENDED = "ended"


_L, _S, _J = LinkState, SlotState, JobState

LINK_MOVES: Final[Mapping[LinkState, frozenset[LinkState]]] = {
    _L.IDLE: frozenset({_L.CONNECTING, _L.LEFT}),
    # Back to idle: no engine is left to offer. Connecting again without a loss: the broker forgot us.
    _L.CONNECTING: frozenset({_L.REGISTERED, _L.LOST, _L.LEFT, _L.IDLE}),
    _L.REGISTERED: frozenset({_L.CONNECTING, _L.LOST, _L.DRAINING, _L.LEFT, _L.IDLE}),
    _L.LOST: frozenset({_L.CONNECTING, _L.LEFT, _L.IDLE}),
    _L.DRAINING: frozenset({_L.LEFT}),
    _L.LEFT: frozenset(),
}

SLOT_MOVES: Final[Mapping[SlotState, frozenset[SlotState]]] = {
    _S.DOWN: frozenset({_S.LOADING, _S.GONE}),
    _S.LOADING: frozenset({_S.IDLE, _S.DOWN, _S.STOPPING}),
    _S.IDLE: frozenset({_S.BUSY, _S.DOWN, _S.STOPPING, _S.RESTING}),
    _S.BUSY: frozenset({_S.IDLE, _S.DOWN, _S.STOPPING}),
    _S.RESTING: frozenset({_S.ASLEEP, _S.STOPPING}),
    _S.ASLEEP: frozenset({_S.LOADING, _S.GONE}),
    _S.STOPPING: frozenset({_S.GONE}),
    _S.GONE: frozenset(),
}

JOB_MOVES: Final[Mapping[JobState, frozenset[JobState]]] = {
    _J.QUEUED: frozenset({_J.ASSIGNED, _J.ENDED}),
    _J.ASSIGNED: frozenset({_J.SPEAKING, _J.CANCELLING, _J.ABANDONED, _J.ENDED}),
    _J.SPEAKING: frozenset({_J.CANCELLING, _J.ABANDONED, _J.ENDED}),
    _J.CANCELLING: frozenset({_J.ABANDONED, _J.ENDED}),
    _J.ABANDONED: frozenset({_J.ENDED}),
    _J.ENDED: frozenset(),
}

StateT = TypeVar("StateT", bound=Enum)


class IllegalMove(AssertionError):
    """A state change that its table does not know: a defect of this program."""


class Referee:
    """Judges moves by the tables; counts the illegal ones, and raises `IllegalMove` when strict."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.illegal = 0

    def judge(self, table: Mapping[StateT, frozenset[StateT]], old: StateT, new: StateT) -> StateT:
        """Return `new`, the state to take."""
        if new not in table[old]:
            self.illegal += 1
            if self.strict:
                raise IllegalMove(f"{type(old).__name__}: {old.value} -> {new.value} is not a legal move")
            log.error("%s: %s -> %s is not a legal move", type(old).__name__, old.value, new.value)
        return new
