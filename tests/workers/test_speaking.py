"""One job, with an engine that does what the test tells it and a link that records."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.workers.fakes import FakeCatalogue, FakeEngine, FakeLink
from tests.workers.model import Message
from voicebus.common import wire
from voicebus.common.errors import BadRequest
from voicebus.common.messages import Submit, encode
from voicebus.common.wire import pack_envelope
from voicebus.workers import attempt as attempt_module
from voicebus.workers import control
from voicebus.workers.attempt import Host
from voicebus.workers.checking import Checker
from voicebus.workers.engine import Request, Samples
from voicebus.workers.pcm import FIRST_CHUNK_BYTES
from voicebus.workers.speaking import Speaker
from voicebus.workers.voicecache import VoiceCache

JOB = b"j" * 16


def run(
    engine: FakeEngine,
    text: str = "hello",
    *,
    link: FakeLink | None = None,
    checker: Checker | None = None,
    segment: int = 0,
    header: bytes | None = None,
    payload: bytes | None = None,
    **submit: Any,
) -> list[Message]:
    link = link or FakeLink()
    voices = VoiceCache(engine, FakeCatalogue(amber="aa"), "amber", None)
    speaker = Speaker(Host("bus-name", "w1", engine, voices, link, checker or Checker()))
    envelope = pack_envelope(wire.JOB, JOB, 2, wire.STREAM, segment, 1000)
    speaker.run([envelope, header or encode(Submit(**submit)), text.encode() if payload is None else payload])
    for message in link.messages:
        assert (message.job, message.attempt) == (JOB, 2)
    return link.messages


def failure(messages: list[Message]) -> tuple[str, str]:
    assert messages[-1].name == "FAILED"
    return messages[-1].header[0], messages[-1].header[1]


def test_segments_are_spoken_in_order_each_with_its_end() -> None:
    engine = FakeEngine()
    messages = run(engine, "one|two", speed=1.5, options={"style": "calm"})
    started, first, second, done = messages
    assert started.header == ["w1", "bus-name", 16_000, 2]
    assert [(chunk.sequence, chunk.value, chunk.flags) for chunk in (first, second)] == [(0, 0, 2), (1, 1, 2)]
    assert done.header[:2] == [2, 200]
    assert engine.spoken == [
        Request(text, "en-us", 1.5, {"style": "calm"}, streamed=True) for text in ("one", "two")
    ]


def test_audio_leaves_before_the_engine_is_asked_for_more() -> None:
    """First audio must not wait for the second piece: whether a piece is the last is told afterwards."""
    link = FakeLink()
    seen: list[int] = []

    def audio(request: Request) -> Iterator[Samples]:
        for _ in range(3):
            yield np.full(10, 0.5, np.float32)
            seen.append(len(link.frames))

    engine = FakeEngine()
    engine.audio = audio
    messages = run(engine, link=link)
    assert seen == [2, 3, 4]
    assert [(m.flags, len(m.payload)) for m in messages[1:-1]] == [(0, 20), (0, 20), (0, 20), (2, 0)]
    assert messages[-1].header[:2] == [4, 30]


def test_large_audio_is_cut_and_the_first_chunk_is_small() -> None:
    engine = FakeEngine()
    engine.audio = lambda request: iter([np.zeros(300_000, np.float32)])
    chunks = run(engine)[1:-1]
    assert [len(chunk.payload) for chunk in chunks] == [
        FIRST_CHUNK_BYTES,
        262_144,
        262_144,
        42_944,
    ]
    assert [chunk.flags for chunk in chunks] == [0, 0, 0, wire.SEGMENT_END]


def test_a_segment_without_audio_still_ends() -> None:
    engine = FakeEngine()
    for silent in (iter([]), iter([np.zeros(0, np.float32)])):
        engine.audio = lambda request, silent=silent: silent
        assert [(m.name, m.flags) for m in run(engine)] == [("STARTED", 0), ("CHUNK", 2), ("DONE", 0)]


def test_a_resumed_attempt_begins_at_its_segment() -> None:
    engine = FakeEngine()
    messages = run(engine, "one|two|three", segment=2)
    assert [request.text for request in engine.spoken] == ["three"]
    assert messages[0].sequence == 2
    assert messages[0].header[3] == 3
    assert (messages[1].sequence, messages[1].value) == (0, 2)


def test_cancel_is_seen_between_chunks_and_the_generator_is_closed() -> None:
    closed: list[bool] = []

    def audio(request: Request) -> Iterator[Samples]:
        try:
            while True:
                yield np.zeros(10, np.float32)
        finally:
            closed.append(True)

    engine = FakeEngine()
    engine.audio = audio
    messages = run(engine, link=FakeLink(cancel_after=4))
    assert failure(messages)[0] == "cancelled"
    assert len(messages) == 5
    assert closed == [True]


def test_the_language_is_the_requests_or_else_the_voices() -> None:
    engine = FakeEngine()
    run(engine)
    run(engine, language="fr-CA")
    assert [request.language for request in engine.spoken] == ["en-us", "fr"]
    assert failure(run(engine, language="de")) == (
        "bad_request",
        "bus-name does not speak 'de': it speaks en-us, fr",
    )


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        ({"text": "x" * 21}, "text_too_long", "at most 20"),
        ({"text": "short|" + "x" * 21, "segment": 1}, "text_too_long", "21 characters"),
        ({"text": "..."}, "bad_request", "nothing in this text"),
        ({"text": "  "}, "bad_request", "empty"),
        ({"payload": b"\xff\xfe"}, "bad_request", "UTF-8"),
        ({"header": b"\xc1"}, "protocol_error", "Submit"),
        ({"voice": "nobody"}, "unknown_voice", "nobody"),
    ],
)
def test_a_job_that_cannot_be_spoken_fails_before_it_starts(
    job: dict[str, Any], code: str, words: str
) -> None:
    messages = run(FakeEngine(), **job)
    assert [message.name for message in messages] == ["FAILED"]
    assert failure(messages)[0] == code
    assert words in failure(messages)[1]


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class PanicException(BaseException):
    """Named as pyo3's."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("bad tensor"), "engine_error", "bus-name failed: ValueError: bad tensor"),
        (BadRequest("no such option"), "bad_request", "no such option"),
        (MemoryError(), "overloaded", "memory"),
        (OutOfMemoryError("CUDA"), "overloaded", "memory"),
        (SystemExit(3), "engine_error", "SystemExit: 3"),
        # What a library written in Rust raises at its own bugs: it ended the engine, three times a job.
        (PanicException("not a char boundary"), "engine_error", "PanicException: not a char boundary"),
        (RecursionError("deep"), "engine_error", "RecursionError"),
    ],
)
def test_what_the_engine_raises_becomes_a_code_and_never_a_traceback(
    error: BaseException, code: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine()

    def audio(request: Request) -> Iterator[Samples]:
        yield np.zeros(10, np.float32)
        raise error

    engine.audio = audio
    with caplog.at_level(logging.INFO):
        messages = run(engine)
    assert [message.name for message in messages] == ["STARTED", "CHUNK", "FAILED"]
    assert failure(messages)[0] == code
    assert words in failure(messages)[1]
    assert "Traceback" not in failure(messages)[1]
    assert JOB.hex() in caplog.text


@pytest.mark.parametrize("text", ["é" * 100_000, "half a character: \ud800"])
def test_an_error_whose_text_no_header_could_carry_is_still_answered(text: str) -> None:
    """An exception inside the answer to an exception would end the process and cost a restart."""
    engine = FakeEngine()

    def audio(request: Request) -> Iterator[Samples]:
        raise ValueError(text)

    engine.audio = audio
    assert failure(run(engine))[0] == "engine_error"


def test_audio_that_is_no_number_fails_the_job() -> None:
    engine = FakeEngine()
    engine.audio = lambda request: iter([np.full(10, np.nan, np.float32)])
    assert failure(run(engine)) == ("engine_error", "the engine yielded audio that is not a number")


# What the host looks at before anybody hears it.


def take(request: Request) -> Iterator[Samples]:
    """Half a second of noise, a little louder in a second take; nothing but silence for "mute" at first."""
    noise = np.random.default_rng(request.take).standard_normal(8000).astype(np.float32)
    loudness = 0.0 if "mute" in request.text and not request.take else 0.1 + 0.1 * request.take
    yield noise[:3000] * np.float32(loudness)
    yield noise[3000:] * np.float32(loudness)


def unheard(engine: FakeEngine, text: str, checker: Checker, flags: int = 0) -> list[Message]:
    """Speak a job that nobody listens to yet."""
    link = FakeLink()
    voices = VoiceCache(engine, FakeCatalogue(amber="aa"), "amber", None)
    speaker = Speaker(Host("bus-name", "w1", engine, voices, link, checker))
    speaker.run([pack_envelope(wire.JOB, JOB, 2, flags, 0, 1000), encode(Submit()), text.encode()])
    return link.messages


def test_a_faulty_segment_is_spoken_again_before_anybody_heard_it() -> None:
    engine, checker = FakeEngine(), Checker(is_on=True)
    engine.audio = take
    messages = unheard(engine, "one|mute|three", checker)
    assert [(request.text, request.take) for request in engine.spoken] == [
        ("one", 0), ("mute", 0), ("mute", 1), ("three", 0),
    ]  # fmt: skip
    chunks = [message for message in messages if message.name == "CHUNK"]
    assert [(chunk.value, len(chunk.payload), chunk.flags) for chunk in chunks] == [
        (0, 16_000, wire.SEGMENT_END), (1, 16_000, wire.SEGMENT_END), (2, 16_000, wire.SEGMENT_END),
    ]  # fmt: skip
    levels = [np.frombuffer(chunk.payload, "<i2").std() for chunk in chunks]
    assert levels[1] > 1.8 * levels[0], "the second take is what is heard"
    assert checker.figures() == {"segments_checked": 4, "segments_respoken": 1, "segments_faulty": 0}


def test_a_second_take_is_the_last() -> None:
    engine, checker = FakeEngine(), Checker(is_on=True)
    engine.audio = lambda request: iter([np.zeros(8000, np.float32)])
    messages = unheard(engine, "mute", checker)
    assert len(engine.spoken) == 2
    assert messages[-1].name == "DONE"
    assert checker.figures() == {"segments_checked": 2, "segments_respoken": 1, "segments_faulty": 1}


def test_what_a_listener_has_heard_is_not_spoken_again_but_counted() -> None:
    engine, checker = FakeEngine(), Checker(is_on=True)
    engine.audio = lambda request: iter([np.zeros(4000, np.float32), np.zeros(4000, np.float32)])
    messages = unheard(engine, "mute", checker, wire.STREAM)
    assert len(engine.spoken) == 1
    assert [len(message.payload) for message in messages if message.name == "CHUNK"] == [8000, 8000]
    assert checker.figures() == {"segments_checked": 1, "segments_respoken": 0, "segments_faulty": 1}


@pytest.mark.parametrize("flags", [0, wire.STREAM])
def test_an_engine_that_runs_away_is_stopped(flags: int) -> None:
    """It would have gone on until the deadline."""
    engine, checker = FakeEngine(), Checker(is_on=True)
    closed: list[int] = []

    def babble(request: Request) -> Iterator[Samples]:
        noise = np.random.default_rng(1).standard_normal(16_000).astype(np.float32) * np.float32(0.1)
        try:
            while True:
                yield noise
        finally:
            closed.append(request.take)

    engine.audio = babble
    messages = unheard(engine, "one", checker, flags)
    assert messages[-1].name == "DONE"
    assert closed == ([0] if flags else [0, 1])
    assert sum(bool(message.flags & wire.SEGMENT_END) for message in messages) == 1
    assert checker.faulty == 1


def test_a_held_segment_tells_the_agent_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a long one would outlive its lease: nothing of it is heard before its end."""
    monkeypatch.setattr(attempt_module, "PROGRESS_S", 0.0)
    engine = FakeEngine()
    engine.audio = lambda request: (part for part in np.full((4, 2000), 0.1, np.float32))
    link = FakeLink()
    voices = VoiceCache(engine, FakeCatalogue(amber="aa"), "amber", None)
    Speaker(Host("bus-name", "w1", engine, voices, link, Checker(is_on=True))).run(
        [pack_envelope(wire.JOB, JOB, 2), encode(Submit()), b"one"]
    )
    kinds = [frames[0][3] for frames in link.frames]
    assert kinds.count(control.PROGRESS) >= 3
    assert kinds[-2:] == [wire.CHUNK, wire.DONE]
