"""How the engine takes audio: whole, in a stream, in single bytes, and what it asked for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workers.engines.gpt_sovits.scripted import (
    CHUNKED,
    LAST_CHUNK,
    Scripted,
    chunk,
    http,
    open_header,
)
from tests.workers.engines.gpt_sovits.talking import PCM, STREAM, TONES, WHOLE, Start, say, voice
from voicebus.common.audio import to_s16
from voicebus.workers.engine import Request

pytest.importorskip("aiohttp", reason="the engine's own package: pip install 'voicebus[gpt-sovits]'")


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
