"""Audio the broker still holds: of jobs under way, and of those that have just ended.

A connection can break between a message's sending and its reading, and the client then asks again under the
same id. What was forwarded of an open job is therefore recorded (by reference: the frames are those that were
sent) and replayed to a client that connects anew; what has ended is kept a while and fetched page by page.
All of it fits `result_cache_bytes`: the oldest results go first, and a job too large to be recorded is simply
spoken again should its client come back. Sans-IO.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..common import spoken, wire
from ..common.errors import BusError, Conflict
from ..common.messages import Done, decode, encode
from .ledger import Ledger
from .tables import NOTHING, Job, Payload

if TYPE_CHECKING:
    from ..common.config import Broker as Settings

FINISHED_OVERHEAD_BYTES: Final = 600
"""Charged for each result above its frames."""
FRAME_OVERHEAD_BYTES: Final = 200
_SPOKEN_OVERHEAD_BYTES: Final = FINISHED_OVERHEAD_BYTES + FRAME_OVERHEAD_BYTES
LARGEST_PAGE_BYTES: Final = wire.FETCH_CHUNKS * wire.MAX_PAYLOAD_BYTES
LARGEST_SHARE: Final = 4
"""One job may take this part of the whole: 16 MiB of the default 64, six minutes of speech at 24 kHz."""


class Finished(msgspec.Struct, eq=False, gc=False):
    """An ended job and its answer. `error` is None for one that ended well.

    There are tens of thousands, and no cycle leads through them: the collector need not walk them.
    """

    fingerprint: int
    "Of what was asked."
    engine: str
    attempt: int
    started: bytes
    record: tuple[tuple[bytes, Any], ...] | None
    "STARTEDs and CHUNKs as they were sent."
    answer: bytes
    error: BusError | None
    size_bytes: int
    at: float
    tenant: str
    spoken: tuple[bytes, Any] | None = None
    "SPOKEN's envelope and audio, while it was not taken apart; its header is the answer."


class Results:
    """The records of open jobs and the results of ended ones, by job id."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.finished: dict[bytes, Finished] = {}
        self.order: deque[bytes] = deque()
        "The same, the oldest first: a dict that loses its first entries is slow to find the next."
        self.size_bytes = 0
        self._most_bytes = settings.result_cache_bytes
        self._largest_bytes = settings.result_cache_bytes // LARGEST_SHARE
        self._keep_s = settings.result_cache_s
        self._ledger = ledger

    # ---- jobs under way

    def started(self, job: Job, envelope: bytes, header: bytes) -> None:
        """Record a STARTED."""
        job.started = header
        record = job.record
        if record is not None:
            size = len(header) + FRAME_OVERHEAD_BYTES
            if not record:
                record = job.record = []
            record.append((envelope, header))
            job.record_bytes += size
            self.size_bytes += size

    def chunk(self, job: Job, envelope: bytes, payload: Payload) -> None:
        """Record a CHUNK, or give the record up where it grows too large."""
        size = len(payload)
        job.chunks += 1
        job.audio_bytes += size
        record = job.record
        if record is not None:
            if not record:
                record = job.record = []
            record.append((envelope, payload))
            size += FRAME_OVERHEAD_BYTES
            job.record_bytes += size
            self.size_bytes += size
            if job.record_bytes > self._largest_bytes or (
                self.size_bytes > self._most_bytes and not self._make_room()
            ):
                self.forget(job)
        if envelope[23] & wire.SEGMENT_END:
            job.chunks_whole = job.chunks
            job.audio_whole = job.audio_bytes
            job.record_whole = 0 if job.record is None else len(job.record)

    def rewind(self, job: Job) -> None:
        """Drop what is not of a whole segment: the next attempt speaks it again."""
        job.chunks = job.chunks_whole
        job.audio_bytes = job.audio_whole
        if job.record:
            size = sum(len(frame) + FRAME_OVERHEAD_BYTES for _, frame in job.record[job.record_whole :])
            del job.record[job.record_whole :]
            job.record_bytes -= size
            self.size_bytes -= size

    def restart(self, job: Job) -> None:
        """Drop everything: the next attempt begins with the first segment."""
        self.forget(job)
        job.record = NOTHING
        job.segments_done = job.chunks = job.chunks_whole = job.audio_bytes = job.audio_whole = 0
        job.mid_segment = False

    def forget(self, job: Job) -> None:
        """Give a job's record up."""
        self.size_bytes -= job.record_bytes
        job.record_bytes = job.record_whole = 0
        job.record = None

    def replay(self, job: Job) -> bool:
        """Send all that was forwarded of an open job once more; False when it is not all here."""
        if job.record is None:
            return False
        peer = job.client.peer
        self._ledger.to_clients.extend((peer, *message) for message in job.record)
        return True

    def _make_room(self) -> bool:
        finished, order = self.finished, self.order
        while self.size_bytes > self._most_bytes and order:
            self.size_bytes -= finished.pop(order.popleft()).size_bytes
        return self.size_bytes <= self._most_bytes

    # ---- jobs that ended

    def keep(self, job: Job, answer: bytes, error: BusError | None, now: float) -> bool:
        """Keep an ended job's answer for a while; return whether there was room for it."""
        record = None
        size = FINISHED_OVERHEAD_BYTES
        if error is not None:
            self.forget(job)
            self.size_bytes += size
        elif job.record is None or not job.started:
            self.forget(job)  # too large, or of a worker that never said what it speaks: no page could begin
            return False
        else:
            # Its frames are on account already.
            record = tuple(job.record)
            self.size_bytes += size
            size += job.record_bytes
            job.record, job.record_bytes = None, 0
        self.order.append(job.id)
        self.finished[job.id] = Finished(
            fingerprint(job.header, job.payload), job.pool.engine, job.attempt or 1, job.started, record,
            answer, error, size, now, job.submit.tenant,
        )  # fmt: skip
        return self.size_bytes <= self._most_bytes or self._make_room()

    def keep_spoken(self, job: Job, envelope: bytes, header: bytes, payload: Payload, now: float) -> None:
        """Keep a job that was spoken in one message, as that message."""
        job_id, text = job.id, job.payload
        size = _SPOKEN_OVERHEAD_BYTES + len(payload)
        asked = hash((job.header, text)) if text.__class__ is bytes else fingerprint(job.header, text)
        self.order.append(job_id)
        self.finished[job_id] = Finished(
            asked, job.pool.engine, 1, b"", None, header, None, size, now, job.submit.tenant,
            (envelope, payload),
        )  # fmt: skip
        self.size_bytes += size
        if self.size_bytes > self._most_bytes:
            self._make_room()

    def answer_again(self, job_id: bytes, peer: bytes, header: bytes, payload: Payload) -> None:
        """Answer a submission whose job is among `finished`. Raises `Conflict`."""
        known = self.finished[job_id]
        if fingerprint(header, payload) != known.fingerprint:
            raise Conflict("this job id was used for another text or voice")
        if known.error is None:
            self._ledger.accepted(peer, job_id, known.engine, wire.ATTACHED | wire.STORED)
        else:
            self._failed_again(job_id, peer, known)

    def page_bytes(self, job_id: bytes) -> int:
        """The most that a page of this job's result takes; 0 if it is not known or has none."""
        known = self.finished.get(job_id)
        return 0 if known is None or known.error is not None else min(known.size_bytes, LARGEST_PAGE_BYTES)

    def page(self, job_id: bytes, peer: bytes, first: int) -> bool:
        """Send one page of a result, or its error; False if the job is not known."""
        known = self.finished.get(job_id)
        if known is None:
            return False
        if known.error is None:
            if known.spoken is not None:
                self._take_apart(known, *known.spoken)
            every = [message for message in known.record or () if message[0][3] == wire.CHUNK]
            chunks = [
                (int.from_bytes(envelope[28:32]), envelope[23], frame)
                for envelope, frame in every[first : first + wire.FETCH_CHUNKS]
            ]
            over = first + len(chunks) >= len(every)
            send_page(
                self._ledger, peer, job_id, first, known.started, chunks, known.answer if over else None
            )
        else:
            self._failed_again(job_id, peer, known)
        return True

    @staticmethod
    def _take_apart(known: Finished, envelope: bytes, payload: Payload) -> None:
        (_, known.started), chunk, (_, known.answer) = spoken.parts(envelope, known.answer, payload)
        known.record, known.spoken = (chunk,), None

    def sweep(self, now: float) -> None:
        """Forget what is too old."""
        order, finished = self.order, self.finished
        while order and now - finished[order[0]].at >= self._keep_s:
            self.size_bytes -= finished.pop(order.popleft()).size_bytes

    def _failed_again(self, job_id: bytes, peer: bytes, known: Finished) -> None:
        envelope = wire.pack_envelope(wire.FAILED, job_id, known.attempt)
        self._ledger.to_clients.append((peer, envelope, known.answer))


def fingerprint(header: bytes, text: Payload) -> int:
    """What was asked, in 64 bits under this process's random key: kept for each result in place of it."""
    return hash((header, bytes(text)))


def send_page(
    ledger: Ledger,
    peer: bytes,
    job_id: bytes,
    first: int,
    started: bytes,
    chunks: Sequence[tuple[int, int, Any]],
    answer: bytes | None,
) -> None:
    """Send a page of a finished job: as one attempt, its chunks numbered from `first`."""
    out = ledger.to_clients
    if first == 0:
        out.append((peer, wire.pack_envelope(wire.STARTED, job_id, 1), started))
    for number, (segment, flags, frame) in enumerate(chunks, first):
        out.append((peer, wire.pack_envelope(wire.CHUNK, job_id, 1, flags, number, segment), frame))
    if answer is not None:
        out.append((peer, wire.pack_envelope(wire.DONE, job_id, 1), answer))


def whole_answer(job: Job, header: bytes) -> bytes:
    """DONE's header for the whole result, where several attempts have spoken it."""
    if job.attempt == 1:
        return header
    done = decode(header, Done)
    return encode(msgspec.structs.replace(done, chunks=job.chunks, samples=job.audio_bytes // 2))
