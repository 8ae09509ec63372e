"""One bus of `tone` workers and one edge for all tests that only ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from bench.processes import free_port, wait_listening
from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus
from voicebus.client.processes import Child
from voicebus.common.audio import to_s16
from voicebus.common.voices import VoiceStore
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.tone import ToneEngine

if TYPE_CHECKING:
    from voicebus.common.audio import Pcm

PACE = {"seconds_per_char": 0.01, "realtime_factor": 0, "hang_on": "STUCK"}


@pytest.fixture(scope="package")
def bus() -> Iterator[Bus]:
    with Bus(engines={"tone": 2}, settings=PACE, config={"broker": {"default_engine": "tone"}}) as bus:
        yield bus


@pytest.fixture(scope="package")
def edge(bus: Bus) -> Iterator[EdgeProcess]:
    with EdgeProcess(bus) as edge:
        yield edge


@pytest.fixture(scope="package")
def http(edge: EdgeProcess) -> Iterator[httpx.Client]:
    with edge.client() as http:
        yield http


@pytest.fixture(scope="package")
def redis_url() -> Iterator[str]:
    """A real Redis that keeps nothing on disk."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    child = Child("redis", ["redis-server", *options], "never said")
    try:
        wait_listening(port, 30)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        child.end(10)


Speaker = Callable[..., "Pcm"]


@pytest.fixture(scope="package")
def spoken() -> Speaker:
    """What the engine itself makes of a sentence: the yardstick for what comes over HTTP."""
    engine = ToneEngine()
    engine.load(PACE)
    store = VoiceStore()

    def speak(text: str, voice: str = "amber", speed: float = 1.0) -> Pcm:
        recording = store.reference(voice)
        known = engine.voice(Reference(voice, recording.samples, recording.rate_hz, recording.sha256))
        return np.concatenate([to_s16(part) for part in engine.speak(Request(text, "en", speed), known)])

    return speak
