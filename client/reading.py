"""A text read aloud by many workers at once and heard by one listener, in order.

The pieces of a text are jobs of their own. A few of them (`ahead`) are under way at any time; the one being
heard hands over its chunks as they come, those behind it wait whole. Joins do not click: the end of a
piece and the beginning of the next are faded over a few milliseconds with a pause in between. The
reading does not wait and knows no event loop, so both faces share it: they call `step` whenever the sink
woke them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ..common.errors import EngineError
from ..common.printable import printable
from ..common.text import Piece
from .speech import BYTES_PER_SAMPLE, Chunk, Speech, faded, silence
from .task import Task

FADE_S: Final = 0.005


class Carrier(Protocol):
    """What readings and windows need of the link."""

    def submit(self, *tasks: Task) -> None:
        """Take a task on."""

    def listen(self, task: Task) -> None:
        """Deliver this task's audio as it comes."""

    def cancel(self, task: Task) -> None:
        """End a task and its job."""

    def leave(self, task: Task) -> None:
        """End a task; its job goes on if it is durable."""


class Reading:
    """The jobs of one text. `make(piece, listening)` builds a task; `step` moves on and returns new audio."""

    def __init__(
        self, carrier: Carrier, pieces: Sequence[Piece], make: Callable[[Piece, bool], Task], *, ahead: int
    ) -> None:
        self._carrier = carrier
        self._pieces = pieces
        self._make = make
        self._ahead = max(1, ahead)
        self._tasks: list[Task] = []
        self._head = 0
        self._kept = b""
        "The end of what was heard, held back: it is faded if the piece turns out to end there."
        self._at_start = True

    @property
    def finished(self) -> bool:
        """Whether all has been handed over."""
        return self._head >= len(self._pieces)

    def step(self) -> list[Chunk]:
        """Submit what is due and return the audio that may be heard now.

        Raises the error of the piece whose turn it is; the caller then calls `close`.
        """
        chunks: list[Chunk] = []
        while not self.finished:
            self._fill()
            task = self._tasks[self._head]
            # Looked at before the audio is taken: whatever comes in between is then not missed.
            ended = task.ended
            heard = task.heard
            if heard is None and not ended:
                if not task.listening:
                    self._carrier.listen(task)
                break
            audio: list[bytes] = []
            if heard is not None:
                while heard:
                    audio.append(heard.popleft())
            if ended and task.chunks:
                audio += task.chunks
                task.chunks = []
            if audio:
                self._emit(chunks, task, b"".join(audio))
            if not ended:
                break
            if task.error is not None:
                raise task.error
            self._end_piece(chunks, task)
            self._head += 1
            if self.finished and chunks:
                end = chunks[-1]
                chunks[-1] = Chunk(end.pcm, end.sample_rate_hz, end.engine, end.worker, end.piece, last=True)
        return chunks

    def close(self) -> None:
        """Cancel what is still under way. Idempotent."""
        for task in self._tasks[self._head :]:
            if not task.ended:
                self._carrier.cancel(task)
        self._head = len(self._pieces)

    def _fill(self) -> None:
        while len(self._tasks) < min(len(self._pieces), self._head + self._ahead):
            task = self._make(self._pieces[len(self._tasks)], not self._tasks)
            self._tasks.append(task)
            self._carrier.submit(task)

    def _emit(self, chunks: list[Chunk], task: Task, pcm: bytes) -> None:
        if len(self._pieces) == 1:
            chunks.append(_chunk(task, pcm, 0))
            return
        fade = _fade_samples(task)
        if self._at_start:
            if self._head:
                first = pcm[: fade * BYTES_PER_SAMPLE]
                pcm = faded(first, at_start=True, at_end=False, length=fade) + pcm[len(first) :]
            self._at_start = False
        pcm = self._kept + pcm
        keep = fade * BYTES_PER_SAMPLE
        self._kept = pcm[-keep:]
        if len(pcm) > keep:
            chunks.append(_chunk(task, pcm[:-keep], self._head))

    def _end_piece(self, chunks: list[Chunk], task: Task) -> None:
        if len(self._pieces) == 1 or task.started is None:
            return
        pcm, self._kept = self._kept, b""
        if self._head < len(self._pieces) - 1:
            pcm = faded(pcm, at_start=False, at_end=True, length=_fade_samples(task))
            pcm += silence(self._pieces[self._head].pause_s, task.started.sample_rate)
        if pcm:
            chunks.append(_chunk(task, pcm, self._head))
        self._at_start = True


def speech_of(task: Task) -> Speech:
    """The speech of a task that ended well, or its error raised."""
    if task.error is not None:
        raise task.error
    started, done = task.started, task.done
    if started is None or done is None:
        # DONE without STARTED: an engine that had nothing to say.
        raise EngineError("the engine gave no audio for this text: give words that can be spoken")
    chunks = task.chunks
    return Speech(
        chunks[0] if len(chunks) == 1 else b"".join(chunks),
        started.sample_rate,
        # A worker's own words, on their way to terminals and HTTP headers.
        printable(started.engine),
        printable(started.worker),
        task.attempts,
        task.first_audio_at - task.submitted_at if task.first_audio_at else 0.0,
        done.engine_s,
        task.ended_at - task.submitted_at,
    )


def joined(tasks: Sequence[Task], pieces: Sequence[Piece]) -> Speech:
    """The speech of a text's pieces, in order, as one. Raises the error of the first that failed."""
    if len(tasks) == 1:
        return speech_of(tasks[0])
    parts = [speech_of(task) for task in tasks]
    rate_hz = parts[0].sample_rate_hz
    fade = int(FADE_S * rate_hz)
    audio: list[bytes] = []
    for number, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
        pcm = part.pcm if part.sample_rate_hz == rate_hz else _resampled(part, rate_hz)
        last = number == len(parts) - 1
        cut = min(fade * BYTES_PER_SAMPLE, len(pcm))
        if number:
            pcm = faded(pcm[:cut], at_start=True, at_end=False, length=fade) + pcm[cut:]
        if not last:
            pcm = pcm[: len(pcm) - cut] + faded(
                pcm[len(pcm) - cut :], at_start=False, at_end=True, length=fade
            )
        audio.append(pcm)
        if not last:
            audio.append(silence(piece.pause_s, rate_hz))
    begun = tasks[0].submitted_at
    return Speech(
        b"".join(audio),
        rate_hz,
        parts[0].engine,
        parts[0].worker,
        max(part.attempts for part in parts),
        parts[0].first_audio_s,
        sum(part.engine_s for part in parts),
        max(task.ended_at for task in tasks) - begun,
    )


def _resampled(part: Speech, rate_hz: int) -> bytes:
    """Workers of one engine may differ in rate; a joined text has one."""
    from ..common.audio import resample, to_s16

    return to_s16(resample(part.to_float(), part.sample_rate_hz, rate_hz)).tobytes()


def _fade_samples(task: Task) -> int:
    return int(FADE_S * task.started.sample_rate) if task.started is not None else 0


def _chunk(task: Task, pcm: bytes, piece: int) -> Chunk:
    started = task.started
    if started is None:
        raise EngineError("audio came before its announcement: the broker does not follow VB1")
    return Chunk(pcm, started.sample_rate, printable(started.engine), printable(started.worker), piece)
