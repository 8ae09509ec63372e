"""Faults of the server and of the line: those that another try mends, and those it does not."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from tests.workers.engines.gpt_sovits.scripted import (
    CHUNKED,
    LAST_CHUNK,
    Scripted,
    Step,
    chunk,
    http,
    open_header,
    wav,
    words,
)
from tests.workers.engines.gpt_sovits.talking import PCM, TONES, WHOLE, Start, say, voice
from voicebus.common.audio import to_s16
from voicebus.common.errors import BadRequest, EngineError, Overloaded, WorkerLost
from voicebus.workers.engine import Request

pytest.importorskip("aiohttp", reason="the engine's own package: pip install 'voicebus[gpt-sovits]'")
ZEROS = bytes(32_000)
"The pipeline's second of silence at 16 kHz."


@pytest.mark.parametrize(
    "fault",
    [
        ["reset"],
        [],
        http(status=429),
        http(status=503, kind="text/html"),
        [http(wav(TONES))[:-100]],
        [http(wav(TONES))[:-100], "reset"],
        http(wav(TONES)[:-100]),
        [CHUNKED, chunk(open_header() + PCM)],
        [CHUNKED, chunk(open_header() + PCM), "reset"],
        [CHUNKED, chunk(open_header() + PCM[:-1]), LAST_CHUNK],
    ],
    ids=[
        "reset",
        "hung up",
        "busy",
        "gateway",
        "short by HTTP",
        "reset within",
        "short by WAV",
        "stream without end",
        "stream reset",
        "half a sample",
    ],
)
def test_what_breaks_before_it_was_heard_is_asked_again(start: Start, fault: Any) -> None:
    engine = start(fault, WHOLE)
    assert np.array_equal(say(engine), TONES)
    assert engine.figures()["retries"] == 1


@pytest.mark.parametrize("end", [[], ["reset"], [LAST_CHUNK[:2]]], ids=["closed", "reset", "cut"])
def test_what_breaks_after_it_was_heard_gives_the_job_back(start: Start, end: list[Step]) -> None:
    engine = start([CHUNKED, chunk(open_header() + PCM[:1000]), *end])
    heard: list[Any] = []
    with pytest.raises(WorkerLost, match="broke off"):
        heard.extend(engine.speak(Request("Hello.", "en", streamed=True), voice(engine)))
    assert np.array_equal(to_s16(np.concatenate(heard)), TONES[:500])


def test_a_mute_stream_is_asked_again_for_the_words(start: Start, server: Scripted) -> None:
    """api_v2 cannot say what is wrong in a stream: it has said 200 before it knows."""
    engine = start([CHUNKED], words(400, message="tts failed", Exception="no such phoneme"))
    with pytest.raises(EngineError, match="no such phoneme"):
        say(engine, streamed=True)
    assert [body["streaming_mode"] for body in server.spoken] == [1, 0]


def test_a_server_that_stays_away_overloads(start: Start) -> None:
    engine = start(http(status=503), outage_s=0)
    with pytest.raises(Overloaded, match="503") as raised:
        say(engine)
    assert raised.value.retry_after_s


def test_a_silent_line_is_given_up_after_its_time(start: Start) -> None:
    engine = start([threading.Event()], outage_s=0, timeout_s=0.2)
    with pytest.raises(Overloaded, match="in time"):
        say(engine)


def test_patience_ends_while_the_server_is_refused(start: Start, server: Scripted) -> None:
    engine = start(["reset"], outage_s=0.3)
    server.description = http(status=503)
    with pytest.raises(Overloaded):
        say(engine)
    assert engine.figures()["outages"] == 1


def test_another_server_at_the_same_address_is_noticed(start: Start, server: Scripted) -> None:
    engine = start(["reset"])
    server.description = http(b"<html>", kind="text/html")
    with pytest.raises(EngineError, match="not an api_v2"):
        say(engine)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http(status=302, headers="Location: http://evil.example/tts\r\n"), r"redirects to evil\.example"),
        (http(status=307, headers="Location: /other\r\n"), "another path"),
        (http(status=302, headers="Location: http://169.254.169.254/latest/meta-data\r\n"), "not followed"),
        (http(status=302, headers="Location: file:///etc/passwd\r\n"), "not followed"),
        (
            http(status=302, headers="Location: http://[\r\n"),
            "an address that is none, which is not followed",
        ),
        (http(b"<html>", kind="text/html"), "text/html"),
        (http(b"<html>" * 10), "is none"),
        (http(wav(TONES), headers="Content-Encoding: gzip\r\n"), "packs"),
        (b"HTTP/1.0 200 OK\r\nContent-Type: audio/wav\r\n\r\n" + wav(TONES), "where it ends"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "HTTP"),
        (http(status=404), "not an api_v2"),
        (http(b"Internal Server Error", status=500, kind="text/plain"), "500: Internal"),
        (words(400, message="tts failed", Exception="boom"), "boom"),
        (http(b"x" * 1_000_000, status=500, kind="text/plain"), "500: xxx"),
    ],
)
def test_a_fault_of_the_server_has_its_words(
    start: Start, server: Scripted, answer: bytes, said: str
) -> None:
    with pytest.raises(EngineError, match=said):
        say(start(answer))
    assert len(server.spoken) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (words(400, message="text_lang: en is not supported in version v2"), "text_lang"),
        (words(422, detail=[{"loc": ["body", "top_k"], "msg": "no"}]), "top_k"),
        (words(400, message="tts failed", Exception="参考音频在3~10秒范围外，请更换！"), "3 to 10"),
    ],
)
def test_a_fault_of_the_request_is_the_askers(start: Start, answer: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        say(start(answer))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        [http(wav(np.zeros(16_000, np.int16), 16_000))],
        [http(wav(np.zeros(64_000, np.int16)))],
        [http(wav(np.zeros(0, np.int16)))],
        [CHUNKED, chunk(open_header(16_000)), chunk(ZEROS), LAST_CHUNK],
    ],
    ids=["a second", "two", "nothing", "stream"],
)
def test_silence_is_a_fault(start: Start, server: Scripted, answer: list[Step], streamed: bool) -> None:
    engine = start(answer)
    with pytest.raises(EngineError, match="server's log"):
        say(engine, streamed=streamed)
    assert (engine.figures()["silent_answers"], len(server.spoken)) == (1, 1)


@pytest.mark.parametrize("before", [b"", PCM], ids=["at once", "after a fragment"])
def test_a_stream_that_ends_in_the_pipelines_silence_is_a_fault(start: Start, before: bytes) -> None:
    """It is not retryable as a broken connection is: the server lives, and would fail again."""
    engine = start([CHUNKED, chunk(open_header(16_000) + before), chunk(ZEROS)])
    with pytest.raises(EngineError, match="server's log"):
        say(engine, streamed=True)


def test_silence_before_a_sound_is_kept_and_late(start: Start) -> None:
    engine = start([CHUNKED, chunk(open_header()), chunk(ZEROS), chunk(PCM), LAST_CHUNK])
    assert np.array_equal(say(engine, streamed=True), np.concatenate([np.zeros(16_000, np.int16), TONES]))


def test_an_endless_answer_is_cut_off(start: Start, server: Scripted) -> None:
    loud = chunk(b"\1\1" * 500_000)
    with pytest.raises(EngineError, match="more than"):
        say(start([CHUNKED, chunk(open_header()), *[loud] * 20, threading.Event()]), text="A")
