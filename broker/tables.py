"""The records the broker keeps: jobs, workers, clients and the pool of each engine.

Mutable slotted records rather than frozen types: they are the state, there are up to 100,000 jobs of them,
and they are touched several times a request. Only `core.py` and `membership.py` change them. They compare by
identity, so they can stand in sets and dicts.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from ..common.messages import Ready, Submit
from ..common.wire import PATIENT
from .affinity import Affinity
from .fairness import Flow
from .lanes import Lanes
from .scheduling import Selector, Tier
from .states import JobState, WorkerState

_QUEUED: Final = int(JobState.QUEUED)
_PATIENT: Final = PATIENT
NOTHING: Final[list[tuple[bytes, Any]]] = []
"""A record without anything in it; whoever adds to a record that is empty makes another first."""
Payload = Any
"""bytes, or a transport's unopened frame: the core never looks inside."""


@dataclass(slots=True, eq=False)
class Client:
    """One connection of a submitter."""

    peer: bytes
    seen_at: float
    jobs: dict[bytes, Job] = field(default_factory=dict["bytes", "Job"])
    "Its open jobs by id, with those that are still being written down."
    replayed_bytes: int = 0
    "Audio it was sent that an earlier connection had been sent already."
    size_bytes: int = 0
    "What they take here: headers, texts and the records themselves."


JOB_OVERHEAD_BYTES: Final = 1024
"""Charged for each open job above its header and text: about what its records take."""


def size_of(header: bytes, payload: Payload) -> int:
    """What a job with these frames is charged for."""
    return len(header) + len(payload) + JOB_OVERHEAD_BYTES


@dataclass(slots=True, eq=False, init=False)
class Job:
    """One accepted job until its terminal answer.

    Made for each request, so its beginning is written out: a generated one, which must allow for every field
    to be given, takes half as long again.
    """

    id: bytes
    client: Client
    pool: Pool
    flags: int
    deadline: float
    header: bytes
    submit: Submit
    payload: Payload
    entered_at: float
    size_bytes: int
    "What it takes while it is open."
    state: int
    attempt: int
    "Number of the newest attempt; fences the results of older ones."
    losses: int
    "Attempts that ended in a crash or a silence, counted against max_attempts."
    worker: Worker | None
    avoid: Worker | None
    "Whoever lost or returned it last: another is preferred."
    segments_done: int
    "Whole segments whose audio has been forwarded to the client."
    mid_segment: bool
    "Audio of an unfinished segment has been forwarded."
    progress_at: float
    history: tuple[str, ...]
    started: bytes
    "The newest STARTED's header."
    record: list[tuple[bytes, Any]] | None
    "STARTEDs and CHUNKs (envelope, frame) as forwarded, for a client that connects anew; None: too many."
    record_whole: int
    "How much of the record is whole segments."
    record_bytes: int
    next_chunk: int
    "Number of the CHUNK that comes next in the newest attempt."
    chunks: int
    "CHUNKs of whole and unfinished segments that count, over all attempts."
    chunks_whole: int
    audio_bytes: int
    audio_whole: int
    "The same in bytes."
    watchers: tuple[bytes, ...]
    "Connections that asked for the result and are told when there is one."
    earlier: bytes
    "The connection it was owed to before, which may outlive the one that asked last."
    flow: Flow | None
    "Whose turn it waits for: its tenant's, or its client's connection's; None while it is in no lane."
    cost: int
    "What its turn costs its tenant, in characters."
    aside: OrderedDict[Job, None] | None
    "Where it stands aside, if it does."
    ahead: bool
    "Its attempt was sent ahead of a free slot and has not begun, as far as is known."
    recalled: bool
    "It was asked back once in favour of an interactive job; that happens to no job twice."
    asked: int
    "Number of the attempt that was asked back because nothing was heard of it."
    bucket: dict[bytes, None]
    "Where its deadline is watched while it is open."
    cold: bool
    "Its worker did not know the voice when the attempt was sent."
    silent: bool
    "No audio of the newest attempt has come, and it matters when it does."
    begun_at: float
    "When the newest attempt said STARTED."
    held_at: float
    hold_until: float
    "Since when it waits for a voice, and the end of its patience."

    def __init__(
        self, id: bytes, client: Client, pool: Pool, flags: int, deadline: float, header: bytes,
        submit: Submit, payload: Payload, entered_at: float, size_bytes: int,
    ) -> None:  # fmt: skip
        self.id = id
        self.client = client
        self.pool = pool
        self.flags = flags | _PATIENT if submit.lane == "batch" else flags
        self.deadline = deadline
        self.header = header
        self.submit = submit
        self.payload = payload
        self.entered_at = entered_at
        self.size_bytes = size_bytes
        self.state = _QUEUED
        self.attempt = self.losses = self.asked = self.cost = 0
        self.segments_done = self.next_chunk = self.chunks = self.chunks_whole = 0
        self.audio_bytes = self.audio_whole = self.record_bytes = self.record_whole = 0
        self.mid_segment = self.ahead = self.recalled = self.cold = self.silent = False
        self.worker = self.avoid = self.flow = self.aside = None
        self.progress_at = self.begun_at = self.held_at = 0.0
        self.hold_until = inf
        self.started = self.earlier = b""
        self.history = self.watchers = ()
        self.record = NOTHING

    @property
    def durable(self) -> bool:
        """Whether it stands in the journal and outlives its client."""
        return self.submit.durable


@dataclass(slots=True, eq=False)
class Worker:
    """One registered worker: the newest incarnation of its id."""

    peer: bytes
    info: Ready
    pool: Pool
    interval_s: float
    seen_at: float
    since: float
    progress_at: float
    beat_at: float
    "When a heartbeat is due to it."
    holder: str = ""
    "The key that it registered with, where there are keys."
    state: int = WorkerState.READY
    inflight: dict[bytes, Job | None] = field(default_factory=dict["bytes", "Job | None"])
    "Open attempts by envelope[4:22] (job id, attempt); None where the job itself was answered already."
    jobs_done: int = 0
    warm_voices: list[str] = field(default_factory=list[str])
    stats: dict[str, int | float | str] = field(default_factory=dict[str, "int | float | str"])
    slots: int = 1
    most_slots: int = 0
    "The largest number it ever registered: what it was given before a reduction it may still hold."
    ahead: Job | None = None
    "What it was sent last beyond its slots, if a place for that has not come free since."
    tier: Tier | None = None
    turn: int = 0
    bucket: float = -1.0
    "The last three belong to the scheduling strategies."


@dataclass(slots=True, eq=False)
class Pool:
    """One engine: its waiting jobs and its workers."""

    engine: str
    selector: Selector
    queue: Lanes
    affinity: Affinity
    empty_since: float
    promise: bytes
    "ACCEPTED's header for a job that need not wait."
    ahead: OrderedDict[Job, None] = field(default_factory=OrderedDict["Job", None])
    "Batch jobs sent ahead of a free slot: what an interactive job may take the place of."
    recalls: OrderedDict[Job, None] = field(default_factory=OrderedDict["Job", None])
    "Those of them that were asked back and have not come."
    workers: int = 0
    info: Ready | None = None
    "What the newest worker said of the engine; None until one has registered."
    dirty: bool = False
    "Something changed that may let a job go."

    def join(self, worker: Worker) -> None:
        """A worker takes jobs from now on."""
        self.selector.join(worker)
        self.affinity.joined(worker)

    def leave(self, worker: Worker) -> None:
        """A worker takes no more jobs."""
        self.selector.leave(worker)
        self.affinity.left(worker)
