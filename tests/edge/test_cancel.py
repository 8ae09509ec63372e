"""A hundred at once hear each their own text; who leaves takes their job along."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import soundfile

from tests.edge.server import EdgeProcess
from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.common.audio import resample, to_s16
from voicebus.common.voices import VoiceStore
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.tone import ToneEngine

LISTENERS = 100
LEAVERS = 20
PACE = {"seconds_per_char": 0.02, "realtime_factor": 0.5}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred voices: the shipped one at a hundred pitches."""
    folder = tmp_path_factory.mktemp("voices")
    recording = VoiceStore().reference("amber")
    made = VoiceStore(str(folder))
    wav = folder.parent / "pitched.wav"
    for number in range(LISTENERS):
        pitched = resample(recording.samples, recording.rate_hz, recording.rate_hz + 40 * number)
        soundfile.write(wav, pitched, recording.rate_hz)
        made.add(f"v{number:03}", wav, consent="synthetic, made by this test")
    return folder


@pytest.fixture(scope="module")
def crowd(store: Path) -> Iterator[tuple[Bus, EdgeProcess]]:
    config = {"broker": {"default_engine": "tone"}, "voices": {"path": str(store)}}
    with (
        Bus(engines={"tone": 2}, settings=PACE, config=config, slots=8) as bus,
        EdgeProcess(bus, config={"voices": {"path": str(store)}}) as edge,
    ):
        yield bus, edge


def own(store: Path, number: int) -> bytes:
    """What listener `number` must hear."""
    engine = ToneEngine()
    engine.load({**PACE, "realtime_factor": 0})
    recording = VoiceStore(str(store)).reference(f"v{number:03}")
    voice = engine.voice(Reference("", recording.samples, recording.rate_hz, recording.sha256))
    parts = [to_s16(part) for part in engine.speak(Request(text_of(number), "en"), voice)]
    return np.concatenate(parts).tobytes()


def text_of(number: int) -> str:
    return f"Listener {number} hears number {number * 7919 % 1000}, and nobody else's."


def test_a_hundred_at_once_hear_their_own_and_twenty_who_leave_cost_nothing(
    crowd: tuple[Bus, EdgeProcess], store: Path
) -> None:
    bus, edge = crowd
    long = " ".join(f"Sentence {number} of a long text, which somebody leaves." for number in range(40))

    async def listen(session: aiohttp.ClientSession, number: int) -> bytes:
        body = {"input": text_of(number), "voice": f"v{number:03}", "response_format": "pcm"}
        async with session.post(f"{edge.url}/v1/audio/speech", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()

    async def leave(session: aiohttp.ClientSession, number: int) -> str:
        body = {"input": long, "voice": f"v{number:03}", "response_format": "pcm"}
        async with session.post(f"{edge.url}/v1/audio/speech", json=body) as answer:
            await answer.content.readany()
            id = answer.headers["X-Request-Id"]
            answer.close()
            return id

    async def ends(socket: aiohttp.ClientWebSocketResponse, wanted: int) -> dict[str, dict[str, Any]]:
        """Each speech's last event, as the status socket tells it."""
        ended: dict[str, dict[str, Any]] = {}
        while len(ended) < wanted:
            news = json.loads((await socket.receive(timeout=60)).data)
            for event in news.get("events", ()):
                if event["state"] != "begun":
                    ended[event["id"]] = event
        return ended

    async def main() -> tuple[list[bytes], list[str], dict[str, dict[str, Any]]]:
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.ws_connect(f"{edge.url}/ws/status") as socket,
        ):
            watching = asyncio.create_task(ends(socket, LISTENERS + LEAVERS))
            left, heard = await asyncio.gather(
                asyncio.gather(*(leave(session, number) for number in range(LEAVERS))),
                asyncio.gather(*(listen(session, number) for number in range(LISTENERS))),
            )
            return heard, left, await watching

    heard, left, ended = asyncio.run(main())
    for number, pcm in enumerate(heard):
        assert pcm == own(store, number), f"listener {number} heard somebody else's"
    for id in left:
        assert ended[id]["state"] == "cancelled"
    with Client(bus.frontend) as client:
        status = client.status()
        assert status["jobs"] == {"queued": 0, "running": 0, "open": 0}
        # Of 20 x 40 sentences those that were under way: at most 8 ahead of each listener.
        assert status["totals"]["cancelled"] >= LEAVERS
