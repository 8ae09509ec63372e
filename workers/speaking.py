"""One job, from its JOB message to its DONE or FAILED, with an engine and without a transport.

Audio leaves as soon as the engine has yielded it. Whether a piece was a segment's last is known only when
the engine has ended the segment; holding a piece back until then would delay it, so the end is marked by
an empty chunk, unless the engine's iterator can tell that nothing follows. Between chunks the job may be
stopped.
"""

from __future__ import annotations

import logging
import operator
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ..common import wire
from ..common.errors import BadRequest, BusError, EngineError, Overloaded, TextTooLong
from ..common.messages import Done, Started, Submit, decode, encode, failed
from ..common.wire import pack_envelope, unpack_envelope
from .actions import Frames
from .engine import Engine, Request, Samples, StateT
from .languages import match_language
from .pcm import FIRST_CHUNK_BYTES, checked, pieces

log = logging.getLogger(__name__)


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
    """The way to the agent."""

    def send(self, *messages: Frames) -> None:
        """Send messages, together if that can be, waiting for room as long as it takes."""
        ...

    def check(self) -> None:
        """Raise `Cancelled` if this job is to stop."""
        ...


class Speaker(Generic[StateT]):
    """Speaks jobs with one engine, one at a time. `name` is the engine's name on the bus."""

    def __init__(
        self, name: str, worker: str, engine: Engine[StateT], voices: Voices[StateT], link: Link
    ) -> None:
        self._name = name
        self._worker = worker
        self._engine = engine
        self._voices = voices
        self._link = link

    def run(self, frames: Frames) -> None:
        """Answer one JOB completely. Never raises for what the job or the engine did."""
        _, job, attempt, _, _, _ = unpack_envelope(frames[0])
        try:
            _Attempt(self._name, self._worker, self._engine, self._voices, self._link, frames).speak()
        except BusError as error:
            problem = error
        except MemoryError:
            log.exception("job=%s attempt=%d ran out of memory", job.hex(), attempt)
            problem = _out_of_memory()
        except (Exception, SystemExit) as error:
            log.exception("job=%s attempt=%d made the engine fail", job.hex(), attempt)
            if type(error).__name__ == "OutOfMemoryError":  # torch's, for a GPU; torch is not imported here
                problem = _out_of_memory()
            else:
                problem = EngineError(f"{self._name} failed: {type(error).__name__}: {error}")
        else:
            return
        log.info("job=%s attempt=%d failed: %s", job.hex(), attempt, problem.code)
        # Words from an engine may hold anything, halves of characters too, which no header can carry.
        problem.message = problem.message.encode(errors="replace").decode()
        self._link.send([pack_envelope(wire.FAILED, job, attempt), encode(failed(problem))])


class _Attempt(Generic[StateT]):
    """The state of one attempt while it is spoken."""

    def __init__(
        self,
        name: str,
        worker: str,
        engine: Engine[StateT],
        voices: Voices[StateT],
        link: Link,
        frames: Frames,
    ) -> None:
        self._name = name
        self._worker = worker
        self._engine = engine
        self._voices = voices
        self._link = link
        _, self._job, self._attempt, _, self._first_segment, _ = unpack_envelope(frames[0])
        self._header = frames[1]
        self._text = frames[2]
        self._chunks = self._bytes = 0
        self._engine_s = 0.0
        self._last: list[Frames] = []
        "The chunk that ends the attempt: it leaves with DONE, which is known at the same time."

    def speak(self) -> None:
        submit = decode(self._header, Submit)
        try:
            text = bytes(self._text).decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"the text is not UTF-8 ({error.reason}): send it encoded as UTF-8") from None
        wire.check_text(text)
        described = self._voices.describe(submit.voice)
        language = match_language(submit.language or described.language, self._engine.languages, self._name)
        segments = self._segments(text, language)
        self._link.send(
            [
                pack_envelope(wire.STARTED, self._job, self._attempt, sequence=self._first_segment),
                encode(Started(self._worker, self._name, self._engine.sample_rate, len(segments))),
            ]
        )
        self._link.check()
        began = time.perf_counter()
        state = self._voices.state(described, self._link.check)
        self._engine_s += time.perf_counter() - began
        for number in range(self._first_segment, len(segments)):
            self._link.check()
            request = Request(segments[number], language, submit.speed, submit.options)
            self._segment(number, request, state, last=number == len(segments) - 1)
        self._link.send(
            *self._last,
            [
                pack_envelope(wire.DONE, self._job, self._attempt),
                encode(Done(self._chunks, self._bytes // 2, round(self._engine_s, 6))),
            ],
        )

    def _segments(self, text: str, language: str) -> list[str]:
        segments = self._engine.segments(text, language)
        if not segments:
            raise BadRequest("nothing in this text can be spoken: give at least one word")
        limit = self._engine.max_chars(language)
        longest = max(map(len, segments))
        if longest > limit:
            raise TextTooLong(
                f"a piece of {longest} characters cannot be cut further, {self._name} speaks at most"
                f" {limit} in {language!r} at once: divide it into sentences"
            )
        return segments

    def _segment(self, number: int, request: Request, state: StateT, *, last: bool) -> None:
        iterator: Iterator[Samples] = iter(self._timed(lambda: self._engine.speak(request, state)))
        ended = False
        try:
            while not ended:
                samples = self._timed(lambda: next(iterator, None))
                if samples is None:
                    break
                ended = operator.length_hint(iterator, 1) == 0
                self._audio(number, checked(samples), ended, last=last)
        finally:
            close: Any = getattr(iterator, "close", None)
            if close is not None:
                close()
        if not ended:
            self._chunk(number, b"", wire.SEGMENT_END, last=last)

    def _audio(self, number: int, samples: Samples, ended: bool, *, last: bool) -> None:
        left = len(samples) * 2
        if not left and ended:
            self._chunk(number, b"", wire.SEGMENT_END, last=last)
        elif not left:
            self._link.check()
        for piece in pieces(samples, wire.MAX_PAYLOAD_BYTES if self._bytes else FIRST_CHUNK_BYTES):
            left -= len(piece)
            over = ended and not left
            self._chunk(number, piece, wire.SEGMENT_END if over else 0, last=last and over)

    def _chunk(self, number: int, payload: bytes, flags: int, *, last: bool) -> None:
        self._link.check()
        envelope = pack_envelope(wire.CHUNK, self._job, self._attempt, flags, self._chunks, number)
        if last:
            self._last = [[envelope, payload]]
        else:
            self._link.send([envelope, payload])
        self._chunks += 1
        self._bytes += len(payload)

    def _timed(self, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            return call()
        finally:
            self._engine_s += time.perf_counter() - began


def _out_of_memory() -> BusError:
    return Overloaded("the engine ran out of memory on this text: send shorter pieces, or use fewer slots")
