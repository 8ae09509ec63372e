"""The Python client on a real bus: streams, cancels, long texts, and brokers that come and go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from time import monotonic

import numpy as np
import pytest

from voicebus.client import AsyncClient, Client
from voicebus.client.launch import Bus, WorkerPlan, worker_command
from voicebus.client.processes import Child
from voicebus.common.errors import BusError, UnknownVoice

PACE = {"seconds_per_char": 0.01, "realtime_factor": 0.2}
STORY = "The harbour was quiet. A single boat came in.\n\nNobody waited for it; it rained. " * 4


@pytest.fixture(scope="module")
def bus() -> Iterator[Bus]:
    with Bus({"tone": 2}, settings=PACE) as running:
        yield running


def until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait for what other processes do."""
    pause, give_up_at = threading.Event(), monotonic() + timeout_s
    while not true():
        assert monotonic() < give_up_at
        pause.wait(0.02)


def test_what_is_streamed_is_what_is_said(bus: Bus) -> None:
    with Client(bus.frontend) as client:
        said = client.say(STORY, voice="amber", engine="tone")
        chunks = list(client.stream(STORY, voice="amber", engine="tone"))
    assert b"".join(map(bytes, chunks)) == said.pcm
    assert [chunk.piece for chunk in chunks] == sorted(chunk.piece for chunk in chunks)
    assert len({chunk.worker for chunk in chunks}) == 2, "both workers speak"
    jumps = np.abs(np.diff(said.to_float()))
    assert jumps.max() < 0.5, "a join without a fade is a click"


def test_a_stream_that_is_left_early_stops_the_workers(bus: Bus) -> None:
    with Client(bus.frontend) as client:
        before = client.status()["totals"]["cancelled"]
        for _chunk in client.stream(STORY * 4, voice="amber", engine="tone"):
            break
        until(lambda: client.status()["jobs"]["open"] == 0)
        assert client.status()["totals"]["cancelled"] > before


def test_a_cancelled_coroutine_cancels_its_jobs(bus: Bus) -> None:
    async def run() -> None:
        async with AsyncClient(bus.frontend) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.say(STORY * 10, voice="amber", engine="tone")
            with Client(bus.frontend) as other:
                await asyncio.to_thread(until, lambda: other.status()["jobs"]["open"] == 0)

    asyncio.run(run())


def test_a_long_text_fails_as_a_whole_and_at_once(bus: Bus) -> None:
    with Client(bus.frontend) as client:
        with pytest.raises(UnknownVoice):
            client.say(STORY * 40, voice="nobody", engine="tone")
        assert client.say("Still here.", engine="tone").samples.size


def test_a_killed_worker_under_a_stream_costs_no_word_or_is_told(bus: Bus) -> None:
    with Client(bus.frontend) as client:
        whole = client.say(STORY, voice="amber", engine="tone").pcm
        number = bus.start_worker("tone", name="doomed")
        heard = b""
        error: BusError | None = None
        try:
            for chunk in client.stream(STORY, voice="amber", engine="tone"):
                heard += bytes(chunk)
                if chunk.worker == "doomed":
                    bus.kill_worker(number)
        except BusError as told:
            error = told
        if error is None:
            assert heard == whole
        else:
            assert error.code == "worker_lost"
            assert whole.startswith(heard)


def test_a_broker_of_two_dies_and_every_line_is_still_spoken_once() -> None:
    with Bus({}) as first, Bus({}) as second:
        backends = f"{first.backend},{second.backend}"
        arguments = (
            "--config",
            str(first.config_file),
            *(f"--set={key}={value}" for key, value in PACE.items()),
        )
        plan = WorkerPlan("tone", "shared", arguments)
        worker = Child("shared", worker_command(plan, backends), "vc-worker ready")
        try:
            worker.wait_ready(60)
            for bus in (first, second):
                with Client(bus.frontend) as client:
                    until(lambda client=client: bool(client.status()["workers"]))
            with Client([first.frontend, second.frontend]) as client:
                indices: list[int] = []
                for result in client.map([f"Line {number}." for number in range(120)], engine="tone"):
                    assert result.error is None, result.error
                    indices.append(result.index)
                    if result.index == 30:
                        first.kill_broker()
                assert indices == list(range(120))
        finally:
            worker.end(10)
