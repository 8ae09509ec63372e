"""Several rows at once, and rows that are stopped."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workers.engines.gpt_sovits.scripted import CHUNKED, LAST_CHUNK, Scripted, chunk, open_header, words
from tests.workers.engines.gpt_sovits.talking import PCM, TONES, WHOLE, Start, voice
from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.common.audio import to_s16
from voicebus.common.errors import EngineError
from voicebus.workers.engine import Request, Row

pytest.importorskip("aiohttp", reason="the engine's own package: pip install 'voicebus[gpt-sovits]'")


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


def test_jobs_of_the_bus_reach_the_server_together(server: Scripted, tmp_path: Path) -> None:
    """All but the first with a voice: while it is learnt, the broker sends no second one."""
    server.scripts = [[WHOLE], ["together", WHOLE]]
    settings = {"api_url": server.url, "reference_dir": str(tmp_path), "concurrency": 2, "batch_wait_s": 1}
    with Bus(engines={"gpt-sovits": 1}, settings=settings) as bus, Client(bus.frontend) as client:
        client.say("Hello?", engine="gpt-sovits", voice="amber")
        jobs = [client.submit(text, engine="gpt-sovits", voice="amber") for text in ("Hello.", "Hello!")]
        heard = [job.result(60).samples for job in jobs]
        assert client.status()["engines"]["gpt-sovits"]["slots"] == 2
    assert server.spoken[0]["text"] == "Hello?"
    assert sorted(body["text"] for body in server.spoken[1:]) == ["Hello!", "Hello."]
    assert all(np.array_equal(samples, TONES) for samples in heard)
