"""One attempt at a job while it is spoken: where it is in its text, what has left, and what is held back.

Audio that somebody listens to leaves as soon as the engine has yielded it. Where nobody does, a segment is
held until it is whole and was found sound, so that a faulty one can be spoken again unheard. Whether a piece
was a segment's last is known only when the engine has ended the segment; holding a listener's piece until
then would delay it, so the end is marked by an empty chunk, unless it is known that nothing follows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import numpy as np

from ..common import wire
from ..common.errors import BadRequest, BusError, EngineError, Overloaded, TextTooLong
from ..common.messages import Done, Started, Submit, decode, encode, failed
from ..common.wire import pack_envelope, unpack_envelope
from . import control
from .actions import Frames
from .checking import Checker
from .engine import Engine, Request, Samples, StateT, is_out_of_memory
from .languages import match_language
from .pcm import FIRST_CHUNK_BYTES, checked, pieces

log = logging.getLogger(__name__)

PROGRESS_S: Final = 1.0
"""How often the agent hears of an engine that works without being heard."""


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of a voice before its recording is read."""

    voice: str
    sha256: str
    language: str


StateT_co = TypeVar("StateT_co", covariant=True)


class Voices(Protocol[StateT_co]):
    """Where a job's voice comes from."""

    def describe(self, voice: str) -> Described:
        """Look a voice up, "" for the default one; raise `UnknownVoice`."""
        ...

    def state(self, described: Described, check: Callable[[], None]) -> StateT_co:
        """The engine's state of a voice, learnt now or earlier; `check` is called while it waits."""
        ...


class Link(Protocol):
    """The way to the agent. A job goes by its key: id and attempt, as they stand in the envelope."""

    def send(self, *messages: Frames) -> None:
        """Send messages, together if that can be, waiting for room as long as it takes."""
        ...

    def check(self, key: bytes) -> None:
        """Raise `Cancelled` if this job is to stop."""
        ...

    def stopped(self, keys: Collection[bytes]) -> set[bytes]:
        """Return which of these jobs are to stop, for the price of one look at the link."""
        ...


@dataclass(frozen=True, slots=True)
class Host(Generic[StateT]):
    """What all attempts of an engine process share. `name` is the engine's name on the bus."""

    name: str
    worker: str
    engine: Engine[StateT]
    voices: Voices[StateT]
    link: Link
    checker: Checker


class Attempt(Generic[StateT]):
    """The state of one attempt. `engine_s`, seconds of the engine's time, is for its caller to count."""

    state: StateT
    "The engine's state of the voice, once `begin` has returned."

    def __init__(self, host: Host[StateT], frames: Frames) -> None:
        self._host = host
        self.key: bytes = frames[0][4:22]
        _, self.job, self.attempt, flags, self._segment, _ = unpack_envelope(frames[0])
        self.is_patient = bool(flags & wire.PATIENT)
        self.engine_s = 0.0
        self.has_enough = False
        "Whatever the engine still has to say of this segment is not wanted."
        self.heard = False
        "Whether some of this segment has left."
        self._streamed = bool(flags & wire.STREAM)
        self._holds = host.checker.holds(streamed=self._streamed)
        self._header = frames[1]
        self._text = frames[2]
        self._chunks = self._bytes = 0
        self._take = 0
        self._closed = False
        "Whether the chunk that ends the segment has been made."
        self._audio: list[Samples] = []
        self._progress_at = 0.0
        self._last: list[Frames] = []
        "The chunk that ends the attempt: it leaves with DONE, which is known at the same time."

    def begin(self) -> None:
        """Check the job, announce it, and get its voice. Raises `BusError`."""
        host = self._host
        submit = decode(self._header, Submit)
        try:
            text = bytes(self._text).decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"the text is not UTF-8 ({error.reason}): send it encoded as UTF-8") from None
        wire.check_text(text)
        described = host.voices.describe(submit.voice)
        language = match_language(submit.language or described.language, host.engine.languages, host.name)
        self._segments = self._cut(text, language)
        self._submit, self._language = submit, language
        host.engine.check(Request(self._segments[0], language, submit.speed, submit.options, self._streamed))
        host.link.send(
            [
                pack_envelope(wire.STARTED, self.job, self.attempt, sequence=self._segment),
                encode(Started(host.worker, host.name, host.engine.sample_rate, len(self._segments))),
            ]
        )
        self.check()
        began = time.perf_counter()
        self.state = host.voices.state(described, self.check)
        self.engine_s += time.perf_counter() - began
        self._open()

    def _cut(self, text: str, language: str) -> list[str]:
        host = self._host
        segments = host.engine.segments(text, language)
        if not segments:
            raise BadRequest("nothing in this text can be spoken: give at least one word")
        limit = host.engine.max_chars(language)
        longest = max(map(len, segments))
        if longest > limit:
            raise TextTooLong(
                f"a piece of {longest} characters cannot be cut further, {host.name} speaks at most"
                f" {limit} in {language!r} at once: divide it into sentences"
            )
        return segments

    def _open(self) -> None:
        """Turn to the current segment, or to its second take."""
        self.has_enough = self.heard = False
        self._audio = []
        if not self.is_over:
            self.request = Request(
                self._segments[self._segment],
                self._language,
                self._submit.speed,
                self._submit.options,
                self._streamed,
                self._take,
            )
            self._guard = self._host.checker.guard(self.request, self._host.engine.sample_rate)

    @property
    def is_over(self) -> bool:
        """Whether all segments have been spoken."""
        return self._segment >= len(self._segments)

    def check(self) -> None:
        """Raise `Cancelled` if it is to stop."""
        self._host.link.check(self.key)

    # A segment.

    def audio(self, samples: Samples, *, ended: bool = False) -> None:
        """Take a part of the current segment; `ended` says that nothing follows. Raises `BusError`."""
        if self.has_enough:
            return
        samples = checked(samples)
        if self._guard is not None and self._guard.feed(samples) is not None:
            self.has_enough = True
        if self._host.checker.is_on:
            self._audio.append(samples)
        if self._holds or not len(samples):
            self.check()
            self._tell_progress()
        if not self._holds:
            self._send(samples, ended=ended or self.has_enough)

    def end_segment(self) -> None:
        """The engine has ended the current segment: on to the next, or to a second take of this one."""
        checker = self._host.checker
        if checker.is_on:
            whole = np.concatenate([np.zeros(0, np.float32), *self._audio])
            fault = checker.fault(self.request, whole, self._host.engine.sample_rate, self.check)
            again = fault is not None and self._holds and not self._take
            checker.count(fault, again=again)
            if fault is not None:
                where = f"job={self.job.hex()} attempt={self.attempt} segment={self._segment}"
                log.warning("%s: %s%s", where, fault, ": speaking it again" if again else "")
            if again:
                self._take += 1
                self._open()
                return
            if self._holds:
                self._send(whole, ended=True)
        if not self._closed:
            self._chunk(b"", wire.SEGMENT_END, last=self._is_last)
        self._closed = False
        self._segment += 1
        self._take = 0
        self._open()

    def begin_segment_anew(self) -> None:
        """Forget what was held of this segment: it is going to be spoken from its beginning."""
        self._open()

    @property
    def _is_last(self) -> bool:
        return self._segment == len(self._segments) - 1

    def _send(self, samples: Samples, *, ended: bool) -> None:
        left = len(samples) * 2
        if not left and ended:
            self._chunk(b"", wire.SEGMENT_END, last=self._is_last)
        for piece in pieces(samples, wire.MAX_PAYLOAD_BYTES if self._bytes else FIRST_CHUNK_BYTES):
            left -= len(piece)
            over = ended and not left
            self._chunk(piece, wire.SEGMENT_END if over else 0, last=self._is_last and over)
        self._closed = self._closed or ended

    def _chunk(self, payload: bytes, flags: int, *, last: bool) -> None:
        self.check()
        envelope = pack_envelope(wire.CHUNK, self.job, self.attempt, flags, self._chunks, self._segment)
        if last:
            self._last = [[envelope, payload]]
        else:
            self._host.link.send([envelope, payload])
            self.heard = True
        self._chunks += 1
        self._bytes += len(payload)

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if now >= self._progress_at:
            if self._progress_at:
                self._host.link.send(control.message(control.PROGRESS))
            self._progress_at = now + PROGRESS_S

    # The end.

    def finish(self) -> None:
        """Say that all has been spoken."""
        self._host.link.send(
            *self._last,
            [
                pack_envelope(wire.DONE, self.job, self.attempt),
                encode(Done(self._chunks, self._bytes // 2, round(self.engine_s, 6))),
            ],
        )

    def fail(self, error: BaseException) -> None:
        """Say that it cannot be spoken, in the words and with the code that `error` deserves."""
        problem = self._problem(error)
        log.info("job=%s attempt=%d failed: %s", self.job.hex(), self.attempt, problem.code)
        # Words from an engine may hold anything, halves of characters too, which no header can carry.
        problem.message = problem.message.encode(errors="replace").decode()
        self._host.link.send([pack_envelope(wire.FAILED, self.job, self.attempt), encode(failed(problem))])

    def _problem(self, error: BaseException) -> BusError:
        if isinstance(error, BusError):
            return error
        log.error("job=%s attempt=%d made the engine fail", self.job.hex(), self.attempt, exc_info=error)
        if is_out_of_memory(error):
            return Overloaded(
                "the engine ran out of memory on this text: send shorter pieces, or use fewer slots"
            )
        return EngineError(f"{self._host.name} failed: {type(error).__name__}: {error}")
