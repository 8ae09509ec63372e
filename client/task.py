"""One job as the client sees it: what was asked, how far it is, and the audio held so far.

A task is plain state. `core.py` alone changes it, in the I/O thread; the faces read it once it has ended,
or through `heard` while they listen. It is a slotted class without a method of its own on the hot path,
because thousands are made and dropped each second.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from typing import Protocol

from ..common import wire
from ..common.errors import BusError
from ..common.messages import AdminReply, Done, Started


class Phase(IntEnum):
    """How far a task is. PARKED: waits for a broker; BACKOFF: waits to be sent again."""

    PARKED = 0
    BACKOFF = 1
    SENT = 2
    ACCEPTED = 3
    SPEAKING = 4
    ENDED = 5


class Sink(Protocol):
    """Who wants to know about a task. Called in the I/O thread, once a burst: must be quick."""

    def wake(self, tasks: list[Task]) -> None:
        """Take note that these tasks have ended, have new audio in `heard`, or stand in a journal."""


@dataclass(slots=True, eq=False)
class Fetch:
    """How far the fetching of a result is that a broker keeps."""

    moved_at: float
    "When it last came further."
    page_end: int = 0
    "The page asked for ends before this chunk."
    seen: int = 0
    "Chunks that were here when its clock was last looked at."
    tries: int = 0
    busy: bool = False
    "The broker asked for patience; that is no failed try."


class Task:
    """One SUBMIT, FETCH or ADMIN request on its way, and what came back.

    `chunks` holds audio nobody has heard yet; a new attempt may still take it back. Once `listening` is
    set, audio goes to `heard`, which the listener empties from its own thread and nothing takes back.
    Times are seconds on the monotonic clock of the caller of the core.
    """

    __slots__ = (
        "accept_by",
        "attempt",
        "attempts",
        "chunks",
        "deadline",
        "done",
        "durable",
        "ended_at",
        "error",
        "failures",
        "fetch",
        "first_audio_at",
        "flags",
        "followers",
        "header",
        "heard",
        "history",
        "home",
        "job",
        "kind",
        "line",
        "listening",
        "marks",
        "next_chunk",
        "payload",
        "phase",
        "queued_ahead",
        "reply",
        "seeks",
        "segment",
        "silent",
        "sink",
        "started",
        "submitted_at",
        "surfaced",
        "tag",
        "torn",
        "tried",
        "whole",
    )

    def __init__(
        self,
        job: bytes,
        header: bytes,
        payload: bytes | None,
        *,
        sink: Sink | None = None,
        deadline: float = inf,
        flags: int = 0,
        listening: bool = False,
        kind: int = wire.SUBMIT,
        tag: object = None,
        durable: bool = False,
        seeks: bool = False,
        home: int = -1,
    ) -> None:
        self.job = job
        self.header = header
        self.payload = payload
        self.sink = sink
        self.deadline = deadline
        self.flags = flags
        self.kind = kind
        self.listening = listening
        self.tag = tag
        "For the task's owner; the core never looks at it."
        self.durable = durable
        "The job outlives this client once a broker has ACCEPTED it."
        self.seeks = seeks
        "Any broker may know the job it is about: they are asked in turn. A SUBMIT then begins with FETCH."
        self.home = home
        "Number of the one broker that has the job; -1: any will do."
        self.tried = 0
        "Those that do not know the job, a bit each."
        self.fetch: Fetch | None = None
        self.followers: tuple[Task, ...] = ()
        "Tasks about the same job, which get this one's answer."
        self.phase = Phase.PARKED
        self.queued_ahead = -1
        "Jobs that waited before this one when it was accepted; -1: nobody said."
        self.line = -1
        "Number of the broker that has it."
        self.submitted_at = 0.0
        self.accept_by = inf
        self.failures = 0
        self.silent = 0
        "Times in a row that what was sent has had no answer at all."
        self.torn = 0
        self.attempt = 0
        self.next_chunk = 0
        self.segment = -1
        self.whole = -1
        "The last segment whose end is here."
        self.marks: list[tuple[int, int]] = []
        "(segment, index of its first chunk) for each segment of this attempt."
        self.chunks: list[bytes] = []
        self.heard: deque[bytes] | None = None
        self.surfaced = False
        self.first_audio_at = 0.0
        self.ended_at = 0.0
        self.started: Started | None = None
        self.done: Done | None = None
        self.reply: AdminReply | None = None
        self.error: BusError | None = None
        self.history: list[str] = []
        self.attempts = 0

    @property
    def ended(self) -> bool:
        """Whether the one terminal answer is here."""
        return self.phase is Phase.ENDED

    @property
    def asks(self) -> bool:
        """Whether it is sent as FETCH: what became of the job, and not please speak it."""
        return self.kind == wire.FETCH or (self.seeks and self.kind == wire.SUBMIT)

    @property
    def outlives(self) -> bool:
        """Whether its job goes on when nobody here waits for it any more."""
        return self.durable or self.kind == wire.FETCH

    def share(self, other: Task) -> None:
        """End as another task about the same job has ended."""
        self.chunks, self.started, self.done = other.chunks, other.started, other.done
        self.error, self.history, self.attempts = other.error, other.history, other.attempts
        self.first_audio_at, self.ended_at = other.first_audio_at, other.ended_at
        self.phase = other.phase

    def __repr__(self) -> str:
        return f"<Task {self.job.hex()} {self.phase.name} attempt={self.attempt}>"
