"""The journal as a disk that outlives the broker, with the delays and failures of one.

What `broker/journal.py` does with SQLite and files, done with dicts: each batch stands as a whole or not at
all, its outcomes are told later, and what a crash interrupts may stand or not although nobody was told. Audio
that belongs to no finished job is thrown away when a broker starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from voicebus.broker.entries import (
    Audio,
    Dropped,
    Ended,
    Entered,
    Entry,
    Fetched,
    Lost,
    Page,
    Read,
    Recovered,
    Rewound,
)
from voicebus.common.errors import BusError, StorageError, UnknownJob

if TYPE_CHECKING:
    from tests.sim.world import World

Chunk = tuple[int, int, bytes]
Outcome = tuple[Entry, "BusError | Page | None"]


@dataclass(slots=True)
class Row:
    """What stands of one job."""

    entered: Entered
    state: str = "queued"
    attempt: int = 0
    losses: int = 0
    history: tuple[str, ...] = ()
    started: bytes = b""
    answer: bytes = b""
    ended_at: float = 0.0
    fetched_at: float = 0.0
    chunks: list[Chunk] = field(default_factory=list[Chunk])


class Disk:
    """The rows and the spool of one broker."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Row] = {}
        self.full = False
        self._spool: dict[bytes, list[Chunk]] = {}
        self._failed: set[bytes] = set()

    def recover(self) -> list[Recovered]:
        """What a starting broker finds."""
        self._spool.clear()
        self._failed.clear()
        found: list[Recovered] = []
        for row in self.rows.values():
            entered = row.entered
            whole = Recovered(
                entered.job, entered.header, entered.text, entered.budget_s, entered.at, row.state,
                row.attempt, row.losses, row.history,
            )  # fmt: skip
            if row.state != "queued":
                size = sum(len(pcm) for _, _, pcm in row.chunks)
                whole = Recovered(
                    entered.job, entered.header, entered.text, entered.budget_s, entered.at, row.state,
                    row.attempt, row.losses, row.history, row.started, row.answer, row.ended_at,
                    row.fetched_at, len(row.chunks), size,
                )  # fmt: skip
            found.append(whole)
        return found

    def apply(self, entry: Entry) -> BusError | Page | None:
        """Write or read one entry; what became of it."""
        if isinstance(entry, Read):
            return self._read(entry)
        if self.full or (isinstance(entry, Audio | Ended) and entry.job in self._failed):
            if isinstance(entry, Audio | Rewound | Ended):
                self._spool.pop(entry.job, None)
                self._failed.add(entry.job)
            return StorageError("the disk is full", retry_after_s=5.0)
        self._write(entry)
        return None

    def _write(self, entry: Entry) -> None:
        row = self.rows.get(entry.job)
        if isinstance(entry, Entered):
            self.rows[entry.job] = Row(entry)
        elif isinstance(entry, Audio):
            self._spool.setdefault(entry.job, []).append((entry.segment, entry.flags, bytes(entry.pcm)))
        elif isinstance(entry, Rewound):
            del self._spool.setdefault(entry.job, [])[entry.chunks :]
        elif isinstance(entry, Dropped):
            self.rows.pop(entry.job, None)
            self._forget(entry.job)
        elif row is None:
            return
        elif isinstance(entry, Lost):
            row.attempt, row.losses, row.history = entry.attempt, entry.losses, entry.history
        elif isinstance(entry, Fetched):
            row.fetched_at = entry.at
        elif isinstance(entry, Ended):
            row.state, row.started, row.answer, row.ended_at = (
                entry.state, entry.started, entry.answer, entry.at,
            )  # fmt: skip
            row.chunks = self._spool.pop(entry.job, []) if entry.state == "done" else []
            if entry.state != "done":
                self._forget(entry.job)

    def _forget(self, job: bytes) -> None:
        self._spool.pop(job, None)
        self._failed.discard(job)

    def _read(self, read: Read) -> BusError | Page:
        row = self.rows.get(read.job)
        if row is None or row.state != "done":
            return UnknownJob("the result of this job is kept no longer")
        chunks = row.chunks[read.first : read.first + read.count]
        over = read.first + len(chunks) >= len(row.chunks)
        return Page(row.started, chunks, row.answer if over else None)


class Scribe:
    """Writes batches to a disk, one after the other, for one life of a broker. `tell` gets the outcomes."""

    def __init__(self, world: World, disk: Disk, tell: Callable[[list[Outcome]], None]) -> None:
        self.backlog_bytes = 0
        self._world = world
        self._disk = disk
        self._tell = tell
        self._waiting: list[Entry] = []
        self._writing: list[Entry] = []
        self._alive = True

    def put(self, entries: list[Entry]) -> None:
        """Have entries written, in this order."""
        self._waiting += entries
        self.backlog_bytes += _size(entries)
        if not self._writing:
            self._next()

    def _next(self) -> None:
        if self._waiting:
            self._writing, self._waiting = self._waiting, []
            seconds = self._world.dice.expovariate(1 / self._world.plan.disk_s)
            self._world.schedule.after(seconds, self._written)

    def _written(self) -> None:
        if not self._alive:
            return
        batch, self._writing = self._writing, []
        self.backlog_bytes -= _size(batch)
        outcomes: list[Outcome] = [(entry, self._disk.apply(entry)) for entry in batch]
        self._next()
        self._tell(outcomes)

    def crash(self) -> None:
        """End in the middle: the batch under way stands as a whole or not at all."""
        self._alive = False
        if self._world.dice.random() < 0.5:
            for entry in self._writing:
                self._disk.apply(entry)

    def close(self) -> None:
        """End in good order: everything is written."""
        self._alive = False
        for entry in (*self._writing, *self._waiting):
            self._disk.apply(entry)


def _size(entries: list[Entry]) -> int:
    return sum(len(entry.pcm) for entry in entries if isinstance(entry, Audio))
