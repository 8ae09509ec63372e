"""One job as the client sees it: what was asked, how far it is, and the audio held so far.

A task is plain state. `core.py` alone changes it, in the I/O thread; the faces read it once it has ended,
or through `heard` while they listen. It is a slotted class without a method of its own on the hot path,
because thousands are made and dropped each second.
"""

from __future__ import annotations

from collections import deque
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
        """Take note that these tasks have ended or have new audio in `heard`."""


class Task:
    """One SUBMIT (or ADMIN request) on its way, and what came back.

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
        "ended_at",
        "error",
        "failures",
        "first_audio_at",
        "flags",
        "header",
        "heard",
        "history",
        "job",
        "kind",
        "line",
        "listening",
        "marks",
        "next_chunk",
        "payload",
        "phase",
        "reply",
        "segment",
        "sink",
        "started",
        "submitted_at",
        "surfaced",
        "tag",
        "torn",
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
        self.phase = Phase.PARKED
        self.line = -1
        "Number of the broker that has it."
        self.submitted_at = 0.0
        self.accept_by = inf
        self.failures = 0
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

    def __repr__(self) -> str:
        return f"<Task {self.job.hex()} {self.phase.name} attempt={self.attempt}>"
