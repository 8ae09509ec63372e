"""Durable jobs: promised only once the journal has them, kept with their results until fetched or expired.

The core's half of the journal. Nothing here touches a disk: entries are appended to `to_journal`, and the
journal's word on each comes back through `written`. So a job has two more stations than others have:
`pending`, before it stands and is ACCEPTED, and `ending`, until its answer stands and may be handed out. The
submitter does not wait for the second: should the broker fall in between, the job is spoken once more, for
those who fetch.

Ages are measured on the monotonic clock while the broker runs; the wall clock is asked only across a restart,
and never trusted to have run backwards.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from ..common import wire
from ..common.errors import (
    BadRequest,
    BusError,
    Cancelled,
    Conflict,
    Overloaded,
    ProtocolError,
    StorageError,
)
from ..common.messages import Done, Failed, Started, Submit, decode, encode, failed
from .entries import Audio, Dropped, Ended, Entered, Entry, Fetched, Lost, Page, Read, Recovered, Rewound
from .ledger import Ledger
from .results import LARGEST_PAGE_BYTES, send_page, whole_answer
from .tables import Client, Job, Payload

if TYPE_CHECKING:
    from ..common.config import Broker as Settings

log = logging.getLogger(__name__)
SWEEP_MOST: Final = 1000
"""Results forgotten in one sweep at most: a week's worth that expires together must not stop the loop."""
RETRY_AFTER_S: Final = 5.0
MAX_READS: Final = 16
"""Pages being read at once: each may take 16 MiB of memory until it is sent."""
MAX_WATCHERS: Final = 16


@dataclass(slots=True, eq=False)
class Kept:
    """A durable job that has ended."""

    id: bytes
    state: str
    digest: bytes
    engine: str
    voice: str
    tenant: str
    lane: str
    characters: int
    attempts: int
    audio_bytes: int
    chunks: int
    answer: bytes
    since: float
    "When it ended or was last fetched, in the clock of `now`."
    fetched: bool = False

    @property
    def failure(self) -> Failed | None:
        """FAILED's header, for one that did not end well."""
        return None if self.state == "done" else decode(self.answer, Failed)


class Durables:
    """`queue(job, now)` hands an accepted job to the scheduler, `end(job, error)` ends one with an error."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        queue: Callable[[Job, float], None],
        end: Callable[[Job, BusError], None],
    ) -> None:
        self.to_journal: list[Entry] = []
        self.pending: dict[bytes, Job] = {}
        self.ending: dict[bytes, Job] = {}
        self.ended: OrderedDict[bytes, Kept] = OrderedDict()
        "Not fetched yet, in the order in which they ended."
        self.fetched: OrderedDict[bytes, Kept] = OrderedDict()
        "In the order of their last fetching."
        self.audio_bytes = 0
        self.behind_bytes = 0
        "Audio that the journal has not written yet, as the loop last saw it."
        self.wall_offset = 0.0
        "Wall clock minus the clock of `now`, as the loop last saw it."
        self.reading_bytes: dict[bytes, int] = {}
        "What is being read for each client, at most."
        self._reads = 0
        self._settings = settings
        self._ledger = ledger
        self._queue = queue
        self._end = end

    @property
    def busy(self) -> bool:
        """Whether the journal's word is awaited on what somebody waits for."""
        return bool(self.pending or self.ending)

    # ---- coming in

    def enter(self, job: Job, now: float) -> None:
        """Write a new job down; ACCEPTED or FAILED follows when that was tried. Raises `BusError`."""
        settings = self._settings
        if settings.journal is None:
            raise BadRequest("this broker keeps no journal and cannot promise durability: submit without it")
        while self.audio_bytes >= settings.journal_max_bytes and self.fetched:
            self._drop(next(iter(self.fetched.values())))
        if self.audio_bytes >= settings.journal_max_bytes:
            raise Overloaded(
                f"the journal holds {self.audio_bytes:,} bytes of results that nobody has fetched",
                retry_after_s=RETRY_AFTER_S,
            )
        if self.behind_bytes > settings.max_unsent_bytes:
            raise Overloaded("the journal's disk is too slow at the moment", retry_after_s=RETRY_AFTER_S)
        self.pending[job.id] = job
        self._ledger.charge(job, job.client, 1)
        text = bytes(job.payload)
        self.to_journal.append(Entered(job.id, job.header, text, job.deadline - now, now + self.wall_offset))

    def submitted_again(self, job_id: bytes, client: Client, header: bytes, payload: Payload) -> bool:
        """Answer a submission under a known id; False if it is not known here. Raises `Conflict`."""
        if not (self.pending or self.ending or self.ended or self.fetched):
            return False
        job = self.pending.get(job_id) or self.ending.get(job_id)
        if job is not None:
            if header != job.header or bytes(payload) != bytes(job.payload):
                raise Conflict("this job id is in use for another text or voice")
            if job_id in self.pending:
                if client is not job.client:
                    self._ledger.give_to(job, client)
            else:
                self.watch(job, client.peer)
            return True
        kept = self.ended.get(job_id) or self.fetched.get(job_id)
        if kept is None:
            return False
        if kept.digest != digest(header, payload):
            raise Conflict("this job id was used for another text or voice")
        self._tell(client.peer, kept)
        return True

    def leave(self, client: Client, nobody: Client) -> None:
        """A client is gone: its jobs that are being written down go on without it."""
        for job in self.pending.values():
            if job.client is client:
                self._ledger.give_to(job, nobody)
                job.flags &= ~wire.STREAM

    def cancel(self, job_id: bytes) -> bool:
        """End a job that is still being written down; False if there is none."""
        job = self.pending.pop(job_id, None)
        if job is None:
            return False
        self._ledger.charge(job, job.client, -1)
        self.to_journal.append(Dropped(job_id))
        for peer in (job.client.peer, *job.watchers):
            self._ledger.refuse(peer, job_id, 0, Cancelled("the job was cancelled"))
        return True

    # ---- under way

    def audio(self, job: Job, envelope: bytes, payload: Payload) -> None:
        """Write a chunk down. One that the disk cannot keep up with ends the job rather than fill memory."""
        if self.behind_bytes > 2 * self._settings.max_unsent_bytes:
            self._end(job, StorageError("the journal's disk cannot keep up with the audio"))
            return
        self.to_journal.append(Audio(job.id, int.from_bytes(envelope[28:32]), envelope[23], payload))

    def retried(self, job: Job) -> None:
        """A new attempt follows on from the last whole segment."""
        self.to_journal.append(Rewound(job.id, job.chunks_whole))
        self.to_journal.append(Lost(job.id, job.attempt, job.losses, job.history[-16:]))

    def finished(self, job: Job, state: str, answer: bytes, now: float) -> None:
        """Write the answer down; it is handed out when it stands."""
        self.ending[job.id] = job
        at = now + self.wall_offset
        if state == "done":
            answer = whole_answer(job, answer)
        else:
            job.audio_bytes = job.chunks = 0
        self.audio_bytes += job.audio_bytes
        self.to_journal.append(Ended(job.id, state, job.started, answer, at))

    # ---- the journal's word

    def written(self, entry: Entry, error: BusError | None, now: float) -> None:
        """Take the journal's word on one entry. Only some of them change anything."""
        if isinstance(entry, Entered):
            job = self.pending.pop(entry.job, None)
            if job is not None:
                self._ledger.charge(job, job.client, -1)
                if error is None:
                    self._queue(job, now)
                else:
                    self._ledger.totals["refused"] += 1
                    for peer in (job.client.peer, *job.watchers):
                        self._ledger.refuse(peer, job.id, 0, error)
        elif isinstance(entry, Audio) and error is not None:
            job = self._ledger.jobs.get(entry.job)
            if job is not None:
                self._end(job, error)
        elif isinstance(entry, Ended):
            job = self.ending.pop(entry.job, None)
            if job is not None:
                self._stands(job, entry, error, now)

    def _stands(self, job: Job, entry: Ended, error: BusError | None, now: float) -> None:
        state, answer = entry.state, entry.answer
        if error is not None:
            log.error("job=%s its answer could not be written down: %s", job.id.hex(), error.message)
            if state == "done":
                state, answer = "failed", encode(failed(error, job.history))
                self.audio_bytes -= job.audio_bytes
                job.audio_bytes = job.chunks = 0
        kept = self.ended[job.id] = Kept(
            job.id, state, digest(job.header, job.payload), job.pool.engine, job.submit.voice,
            job.submit.tenant, job.submit.lane, job.submit.characters, job.attempt, job.audio_bytes,
            job.chunks, answer, now,
        )  # fmt: skip
        for peer in job.watchers:
            self._tell(peer, kept)

    def page(self, read: Read, page: Page | BusError, now: float) -> None:
        """Send what the journal has read."""
        self._reads -= 1
        self._read_for(read.peer, -read.size_bytes)
        if isinstance(page, BusError):
            self._ledger.refuse(read.peer, read.job, 1, page)
            return
        send_page(self._ledger, read.peer, read.job, read.first, page.started, page.chunks, page.answer)
        kept = self.ended.pop(read.job, None) or self.fetched.pop(read.job, None)
        if kept is None:
            return
        if page.answer is None and not kept.fetched:
            self.ended[read.job] = kept
            return
        if not kept.fetched:
            self.to_journal.append(Fetched(read.job, now + self.wall_offset))
        kept.fetched, kept.since = True, now
        self.fetched[read.job] = kept

    # ---- fetching

    def watch(self, job: Job, peer: bytes) -> None:
        """Note that a connection wants to hear of the job's end. The oldest of too many is forgotten.

        Its submitter hears of it anyhow; one that has, and asks again before the answer stands, does not.
        """
        if peer not in job.watchers and (peer != job.client.peer or job.id in self.ending):
            job.watchers = (*job.watchers, peer)[-MAX_WATCHERS:]
        self._ledger.accepted(peer, job.id, job.pool.engine, wire.ATTACHED)

    def fetch(self, job_id: bytes, peer: bytes, first: int) -> bool:
        """Answer a FETCH; False if the job is not known here. Raises `Overloaded`."""
        if not (self.pending or self.ending or self.ended or self.fetched):
            return False
        job = self.pending.get(job_id) or self.ending.get(job_id)
        if job is not None:
            self.watch(job, peer)
            return True
        kept = self.ended.get(job_id) or self.fetched.get(job_id)
        if kept is None:
            return False
        if kept.state != "done":
            self._tell(peer, kept)
        elif self._reads >= MAX_READS:
            raise Overloaded("the journal is busy with other readers", retry_after_s=1.0)
        else:
            self._reads += 1
            size_bytes = self.page_bytes(job_id)
            self._read_for(peer, size_bytes)
            self.to_journal.append(Read(job_id, peer, first, wire.FETCH_CHUNKS, size_bytes))
        return True

    def page_bytes(self, job_id: bytes) -> int:
        """The most that a page of this job's result takes; 0 if it is not known or has none."""
        kept = self.ended.get(job_id) or self.fetched.get(job_id)
        return 0 if kept is None else min(kept.audio_bytes, LARGEST_PAGE_BYTES)

    def _read_for(self, peer: bytes, size_bytes: int) -> None:
        left = self.reading_bytes.get(peer, 0) + size_bytes
        if left > 0:
            self.reading_bytes[peer] = left
        else:
            self.reading_bytes.pop(peer, None)

    def _tell(self, peer: bytes, kept: Kept) -> None:
        if kept.state == "done":
            self._ledger.accepted(peer, kept.id, kept.engine, wire.ATTACHED | wire.STORED)
        else:
            self._ledger.to_clients.append((peer, wire.pack_envelope(wire.FAILED, kept.id, 1), kept.answer))

    # ---- time

    def sweep(self, now: float) -> None:
        """Forget results whose time is over."""
        for table, keep_s in (
            (self.ended, self._settings.keep_results_s),
            (self.fetched, self._settings.keep_fetched_s),
        ):
            for _ in range(SWEEP_MOST):
                kept = next(iter(table.values()), None)
                if kept is None or now - kept.since < keep_s:
                    break
                self._drop(kept)

    def _drop(self, kept: Kept) -> None:
        self.ended.pop(kept.id, None)
        self.fetched.pop(kept.id, None)
        self.audio_bytes -= kept.audio_bytes
        self.to_journal.append(Dropped(kept.id))

    # ---- after a restart

    def recover(
        self, found: list[Recovered], now: float, revive: Callable[[Recovered, Submit, float], None]
    ) -> None:
        """Take up what the journal knows; `revive(job, header, deadline)` queues what has not ended."""
        wall = now + self.wall_offset
        for job in found:
            try:
                submit = decode(job.header, Submit)
            except ProtocolError as error:
                log.warning("job=%s in the journal is dropped: %s", job.job.hex(), error)
                self.to_journal.append(Dropped(job.job))
                continue
            damage = _damage(job)
            if damage:
                log.warning("job=%s its answer in the journal cannot be read: %s", job.job.hex(), damage)
            if job.state == "done" and damage:
                # It was promised, and its text is here: it begins anew, and so do its row and its audio.
                self.to_journal += (
                    Entered(job.job, job.header, job.text, job.budget_s, job.entered_at), Rewound(job.job, 0)
                )  # fmt: skip
            if job.state == "queued" or (job.state == "done" and damage):
                elapsed_s = min(job.budget_s, max(0.0, wall - job.entered_at))
                revive(job, submit, now + job.budget_s - elapsed_s)
                continue
            ended_s = max(0.0, wall - (job.fetched_at or job.ended_at))
            kept = Kept(
                job.job, job.state, digest(job.header, job.text),
                submit.engine or self._settings.default_engine, submit.voice, submit.tenant,
                submit.lane, submit.characters, job.attempt, job.audio_bytes, job.chunks,
                encode(failed(StorageError(damage))) if damage else job.answer, now - ended_s,
                fetched=bool(job.fetched_at),
            )  # fmt: skip
            (self.fetched if kept.fetched else self.ended)[job.job] = kept
            self.audio_bytes += job.audio_bytes


def _damage(job: Recovered) -> str:
    """What is wrong with an ended job's answer: the database has no checksum that would have told."""
    try:
        if job.state == "done":
            decode(job.started, Started)
            decode(job.answer, Done)
        elif job.state != "queued":
            decode(job.answer, Failed)
    except ProtocolError as error:
        return error.message
    return ""


def lookup(durables: Durables, job_id: bytes) -> Kept | None:
    """An ended durable job."""
    return durables.ended.get(job_id) or durables.fetched.get(job_id)


def digest(header: bytes, payload: Payload) -> bytes:
    """What two submissions of one id must share."""
    whole = blake2b(len(header).to_bytes(4) + header, digest_size=16)
    whole.update(bytes(payload))
    return whole.digest()
