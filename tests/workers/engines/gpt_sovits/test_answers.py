"""The engine against a server on loopback that answers with whatever bytes a test wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
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
from tests.workers.engines.gpt_sovits.tones import spoken
from voicebus.common.audio import to_s16
from voicebus.common.errors import BadRequest, BusError, ConfigError, EngineError, Overloaded, WorkerLost
from voicebus.workers.engine import Reference, Request, Row
from voicebus.workers.engines.gpt_sovits.engine import GptSovitsEngine
from voicebus.workers.engines.gpt_sovits.reference import Voice

TONES = spoken("Hello.")
PCM = TONES.tobytes()
WHOLE = http(wav(TONES))
STREAM = [CHUNKED, chunk(open_header()), chunk(PCM), LAST_CHUNK]
ZEROS = bytes(32_000)
"The pipeline's second of silence at 16 kHz."
LOST = words(400, message="tts failed", Exception="/r/x.wav not exists")
Start = Callable[..., GptSovitsEngine]
pytest.importorskip("aiohttp", reason="the engine's own package: pip install 'voicebus[gpt_sovits]'")


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as server:
        yield server


@pytest.fixture
def start(server: Scripted, tmp_path: Path) -> Iterator[Start]:
    """Load an engine; scripts are what the server answers, in turn."""
    engines: list[GptSovitsEngine] = []

    def load(*scripts: Step | list[Step], **settings: Any) -> GptSovitsEngine:
        server.scripts = [[script] if not isinstance(script, list) else script for script in scripts]
        engine = GptSovitsEngine()
        engine.load({"api_url": server.url, "reference_dir": str(tmp_path / "refs")} | settings)
        engines.append(engine)
        return engine

    yield load
    for engine in engines:
        engine.close()


def voice(engine: GptSovitsEngine, text: str | None = "Said.", language: str = "en-us") -> Voice:
    samples = (np.sin(np.arange(4 * 16_000) / 20) / 4).astype(np.float32)
    return engine.voice(Reference("v", samples, 16_000, "0" * 64, language, text))


def say(engine: GptSovitsEngine, text: str = "Hello.", **request: Any) -> np.ndarray[Any, Any]:
    parts = list(engine.speak(Request(text, "en", **request), voice(engine)))
    return to_s16(np.concatenate([np.zeros(0, np.float32), *parts]))


# Audio.


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("answer", [WHOLE, STREAM], ids=["whole", "stream"])
def test_an_answer_is_spoken_as_it_is(start: Start, answer: Any, streamed: bool) -> None:
    assert np.array_equal(say(start(answer), streamed=streamed), TONES)


def test_an_answer_may_come_in_single_bytes(start: Start, server: Scripted) -> None:
    body = [chunk(bytes([byte])) for byte in open_header() + PCM[:64]]
    heard = say(start([CHUNKED, *body, LAST_CHUNK]), streamed=True)
    assert np.array_equal(heard, TONES[:32])


def test_a_stream_is_heard_before_it_ends(start: Start) -> None:
    more = threading.Event()
    engine = start([CHUNKED, chunk(open_header() + PCM[:1000]), more, chunk(PCM[1000:]), LAST_CHUNK])
    parts = engine.speak(Request("Hello.", "en", streamed=True), voice(engine))
    first = next(part for part in parts if part.size)
    assert np.array_equal(to_s16(first), TONES[:500])
    more.set()
    assert np.array_equal(to_s16(np.concatenate(list(parts))), TONES[500:])


def test_while_nothing_comes_the_host_can_look_up(start: Start) -> None:
    more = threading.Event()
    engine = start([more, WHOLE])
    parts = engine.speak(Request("Hello.", "en"), voice(engine))
    assert next(parts).size == 0
    more.set()
    assert np.array_equal(to_s16(np.concatenate(list(parts))), TONES)


def test_another_rate_is_resampled(start: Start) -> None:
    times = np.arange(16_000) / 16_000
    slow = (np.sin(2 * np.pi * 440 * times) * 9000).astype(np.int16)
    heard = say(start([CHUNKED, chunk(open_header(16_000) + slow.tobytes()), LAST_CHUNK]), streamed=True)
    assert heard.size == 32_000
    assert int(np.argmax(np.abs(np.fft.rfft(heard)))) == 440


def test_what_the_server_is_asked(start: Start, server: Scripted, tmp_path: Path) -> None:
    engine = start(WHOLE, STREAM, WHOLE, seed=5, top_k=7, server_reference_dir="/srv/refs/")
    known = voice(engine)
    list(engine.speak(Request("One.", "en", 1.5, {"top_k": 9}, take=1), known))
    list(engine.speak(Request("Two.", "en", streamed=True), known))
    list(engine.speak(Request("Three.", "en"), voice(engine, "Gesagt.", "de")))
    name = known.file_name
    assert (tmp_path / "refs" / name).read_bytes() == known.wav
    one, two, three = server.spoken
    assert one == {
        "text": "One.", "text_lang": "en", "ref_audio_path": f"/srv/refs/{name}", "prompt_text": "Said.",
        "prompt_lang": "en", "media_type": "wav", "streaming_mode": 0, "seed": 6, "top_k": 9,
        "speed_factor": 1.5,
    }  # fmt: skip
    assert (two["streaming_mode"], two["seed"]) == (1, 5)
    assert (three["prompt_text"], three["prompt_lang"]) == ("", "auto"), "the server cannot read German"


def test_figures_count_what_happened(start: Start) -> None:
    engine = start(http(status=502), WHOLE)
    say(engine)
    assert engine.figures() == {
        "requests": 2, "retries": 1, "outages": 0, "broken_answers": 0, "silent_answers": 0,
        "references_placed": 1,
    }  # fmt: skip


# Faults that another try mends, and those it does not.


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


# References.


def test_a_lost_reference_is_placed_again_once(start: Start, server: Scripted, tmp_path: Path) -> None:
    engine = start(LOST, WHOLE)
    assert np.array_equal(say(engine), TONES)
    assert engine.figures()["references_placed"] == 2
    server.scripts = [[LOST]]
    with pytest.raises(EngineError, match="reference_dir"):
        say(engine)
    assert len(server.spoken) == 4


def test_a_voice_of_an_earlier_start_is_placed_where_it_is_gone(start: Start, tmp_path: Path) -> None:
    engine = start(WHOLE)
    known = engine.unpack(voice(engine).pack())
    (tmp_path / "refs" / known.file_name).unlink()
    list(engine.speak(Request("Hello.", "en"), known))
    assert (tmp_path / "refs" / known.file_name).exists()


def test_references_are_uploaded_once(start: Start, server: Scripted) -> None:
    engine = start(
        WHOLE,
        reference_dir=None,
        upload_url=server.url.replace("//", "//me:pass@") + "/dav",
        server_reference_dir="/srv",
    )
    say(engine)
    say(engine)
    puts = [asked for asked in server.asked if asked.method == "PUT"]
    name = voice(engine).file_name
    assert [(put.path, put.body) for put in puts] == [(f"/dav/{name}", voice(engine).wav)]
    assert puts[0].headers["authorization"] == "Basic bWU6cGFzcw=="
    assert server.spoken[0]["ref_audio_path"] == f"/srv/{name}"


def test_an_upload_that_is_refused_is_named(start: Start, server: Scripted) -> None:
    server.put = http(status=403)
    engine = start(WHOLE, reference_dir=None, upload_url=server.url, server_reference_dir="/srv")
    with pytest.raises(EngineError, match="403 to a PUT"):
        say(engine)


# Stopping.


def test_a_job_that_is_stopped_lets_go_of_the_server(start: Start, server: Scripted) -> None:
    engine = start([CHUNKED, chunk(open_header() + PCM), threading.Event()])
    parts = engine.speak(Request("Hello.", "en", streamed=True), voice(engine))
    assert next(part for part in parts if part.size).size
    parts.close()  # type: ignore[attr-defined]
    assert server.gone.wait(30)


def test_rows_are_spoken_together(start: Start, server: Scripted) -> None:
    """The server answers neither before it has been asked both."""
    engine = start(["together", WHOLE], concurrency=2)
    assert engine.batch == 2
    known = voice(engine)
    rows = [Row(Request("Hello.", "en", streamed=bool(place)), known) for place in range(2)]
    heard: list[list[Any]] = [[], []]
    ends: list[int] = []
    for place, samples in engine.speak_batch(rows):
        if samples is None:
            ends.append(place)
        else:
            heard[place].append(samples)
    assert sorted(ends) == [0, 1]
    for parts in heard:
        assert np.array_equal(to_s16(np.concatenate(parts)), TONES)


def test_a_stopped_row_ends_and_the_other_goes_on(start: Start, server: Scripted) -> None:
    more = threading.Event()
    engine = start(
        [CHUNKED, chunk(open_header() + PCM), more],
        [CHUNKED, chunk(open_header()), more, chunk(PCM), LAST_CHUNK],
        concurrency=2,
    )
    known = voice(engine)
    rows = [Row(Request("Hello.", "en", streamed=True), known) for _ in range(2)]
    heard: list[Any] = []
    ended: list[int] = []
    first = -1
    for place, samples in engine.speak_batch(rows):
        if samples is None:
            ended.append(place)
        elif samples.size and first < 0:
            first = place
            rows[place].stopped = True
        elif samples.size:
            heard.append((place, samples))
    assert ended == [first, 1 - first], "the server goes on only when it has seen the first one leave"
    assert server.gone.is_set()
    assert np.array_equal(
        to_s16(np.concatenate([samples for place, samples in heard if place != first])), TONES
    )


def test_a_row_that_fails_does_not_take_the_other_with_it(start: Start) -> None:
    engine = start(words(400, message="tts failed", Exception="boom"), WHOLE, concurrency=2)
    known = voice(engine)
    ends: list[int] = []
    parts = engine.speak_batch([Row(Request("Hello.", "en"), known) for _ in range(2)])
    with pytest.raises(EngineError, match="boom"):
        ends.extend(place for place, samples in parts if samples is None)
    assert len(ends) == 1


# Starting.


@pytest.mark.parametrize(
    ("description", "said"),
    [
        (http(b"<html>", kind="text/html"), "not an api_v2"),
        (words(200, paths={"/": {}}), "not an api_v2"),
        (http(status=302, headers="Location: http://evil.example/\r\n"), "evil"),
        (http(status=401), "credentials"),
        (http(status=503), "no GPT-SoVITS server answers"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "HTTP"),
    ],
)
def test_what_is_no_api_v2_is_not_begun_with(
    start: Start, server: Scripted, description: bytes, said: str
) -> None:
    server.description = description
    with pytest.raises(EngineError, match=said):
        start(WHOLE, startup_s=0)


def test_a_server_that_does_not_describe_itself_is_taken(start: Start, server: Scripted) -> None:
    server.description = http(status=404)
    engine = start(WHOLE)
    engine.check(Request("Hello.", "en", options={"sample_steps": 32}))
    assert np.array_equal(say(engine), TONES)


def test_nobody_at_the_address_is_said_with_the_remedy(start: Start) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://user:secret@127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(EngineError, match=r"start its api_v2\.py") as raised:
            start(WHOLE, api_url=url, startup_s=0)
    assert "secret" not in str(raised.value)


def test_credentials_are_sent_and_never_shown(
    start: Start, server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    engine = start(["reset"], api_url=server.url.replace("//", "//me:secret@"), outage_s=0.2)
    server.description = http(status=503)
    with pytest.raises(BusError) as raised:
        say(engine)
    assert all("authorization" in asked.headers for asked in server.asked)
    assert "secret" not in caplog.text + str(raised.value)


def test_what_this_servers_version_lacks_is_refused(start: Start) -> None:
    with pytest.raises(ConfigError, match="super_sampling"):
        start(WHOLE, super_sampling=True)
    with pytest.raises(BadRequest, match="sample_steps"):
        start(WHOLE).check(Request("Hello.", "en", options={"sample_steps": 8}))


def test_a_folder_that_cannot_be_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        start(WHOLE, reference_dir=str(tmp_path / "file" / "refs"))


def test_dense_scripts_get_shorter_segments(start: Start) -> None:
    engine = start(WHOLE, max_chars=90)
    assert (engine.max_chars("en"), engine.max_chars("zh-cn"), engine.max_chars("ko")) == (90, 30, 30)
    assert all(len(piece) <= 30 for piece in engine.segments("今天天气很好，" * 20 + "。", "zh"))


def test_an_engine_that_was_never_loaded_says_so_and_closes() -> None:
    engine = GptSovitsEngine()
    assert engine.figures() == {}
    with pytest.raises(EngineError, match="not loaded"):
        engine.check(Request("a", "en"))
    engine.close()
    engine.close()
