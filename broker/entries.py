"""What the core asks of the journal, and what it gets back: plain records, so that neither knows the other.

The core appends entries to a list, in the order in which they must become durable; the journal writes each
batch as one transaction and says of each entry whether it stands. A job's entries are: one `Entered`, then
while it is spoken `Audio` (and `Rewound`, where a new attempt speaks again), then one `Ended`. `Dropped`
forgets everything about a job. Wall times are seconds since 1970: only they mean something after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entered:
    """A durable job: nothing is promised to its client before this stands."""

    job: bytes
    header: bytes
    text: bytes
    budget_s: float
    "Seconds it may take in all, counted from `at`."
    at: float


@dataclass(frozen=True, slots=True)
class Audio:
    """One chunk, to be appended to the job's spool. `pcm` is bytes or a transport's unopened frame."""

    job: bytes
    segment: int
    flags: int
    pcm: Any


@dataclass(frozen=True, slots=True)
class Rewound:
    """Only the first `chunks` chunks of the spool are worth keeping: a new attempt follows on from them."""

    job: bytes
    chunks: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Attempts so far and how they ended: a poison job must not start its count anew with the broker."""

    job: bytes
    attempt: int
    losses: int
    history: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer. `state` is done, failed or cancelled; `started` and `answer` are encoded headers as they
    travelled (STARTED's, empty if there was none; DONE's or FAILED's). Only `done` keeps the spool."""

    job: bytes
    state: str
    started: bytes
    answer: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Fetched:
    """The whole result has been handed out; it is kept for a shorter time from now on."""

    job: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """Forget the job, its answer and its audio."""

    job: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Not written but read: up to `count` chunks of a finished job from chunk `first` on, for `peer`."""

    job: bytes
    peer: bytes
    first: int
    count: int
    size_bytes: int = 0
    "What that takes at most."


Entry = Entered | Audio | Rewound | Lost | Ended | Fetched | Dropped | Read


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to `Read`. `chunks` are (segment, flags, pcm); `answer` is set when they reach the end."""

    started: bytes
    chunks: list[tuple[int, int, bytes]]
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class Recovered:
    """A job as the journal knows it at start. `state` is queued, done, failed or cancelled."""

    job: bytes
    header: bytes
    text: bytes
    budget_s: float
    entered_at: float
    state: str
    attempt: int = 0
    losses: int = 0
    history: tuple[str, ...] = ()
    started: bytes = b""
    answer: bytes = b""
    ended_at: float = 0.0
    fetched_at: float = 0.0
    chunks: int = 0
    audio_bytes: int = 0
