"""The status socket: pushes what changed, at most ten times a second, and drops who does not read."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import httpx
import pytest

from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus
from voicebus.edge.keys import Caller
from voicebus.edge.news import Happening, News
from voicebus.edge.status_socket import EVENTS_KEPT, Rates, Status, Subscriber

PACE = {"seconds_per_char": 0.01, "realtime_factor": 0}


async def until(socket: aiohttp.ClientWebSocketResponse, wanted: Any) -> dict[str, Any]:
    """The first news of which `wanted` is true."""
    while True:
        news = json.loads((await socket.receive(timeout=30)).data)
        if wanted(news):
            return news


def test_a_worker_that_is_killed_and_one_that_comes_are_seen(bus: Bus) -> None:
    with Bus(engines={"tone": 2}, settings=PACE) as own, EdgeProcess(own) as edge:

        async def main() -> None:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{edge.websocket}/ws/status") as socket,
            ):
                await until(socket, lambda news: len(news.get("workers", ())) == 2)
                own.kill_worker(0)
                left = await until(socket, lambda news: len(news.get("workers", ())) == 1)
                assert left["workers"][0]["id"] == "tone-1"
                await asyncio.to_thread(own.start_worker)
                await until(socket, lambda news: len(news.get("workers", ())) == 2)
                own.kill_broker()
                gone = await until(socket, lambda news: "error" in news)
                assert gone["error"]["code"] == "broker_unreachable"
                await asyncio.to_thread(own.start_broker)
                await until(socket, lambda news: len(news.get("workers", ())) == 2)

        asyncio.run(main())


def test_speech_is_told_as_it_begins_and_ends(edge: EdgeProcess, http: httpx.Client) -> None:
    async def main() -> list[dict[str, Any]]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{edge.websocket}/ws/status") as socket,
        ):
            await until(socket, lambda news: news["type"] == "status")
            body = {"input": "To be seen.", "voice": "amber"}
            headers = {"X-Request-Id": "seen-1"}
            async with session.post(f"{edge.url}/v1/audio/speech", json=body, headers=headers) as answer:
                await answer.read()
            events: list[dict[str, Any]] = []
            while not events or events[-1]["state"] != "done":
                news = await until(socket, lambda news: news["type"] == "events")
                events += [event for event in news["events"] if event["id"] == "seen-1"]
            return events

    events = asyncio.run(main())
    assert [event["state"] for event in events] == ["begun", "done"]
    assert events[1]["audio_s"] > 0
    assert events[1]["worker"].startswith("tone-")


def test_pages_from_elsewhere_may_not_watch(edge: EdgeProcess, bus: Bus) -> None:
    async def main(url: str, origin: str) -> int:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.ws_connect(url, headers={"Origin": origin}) as socket:
                    await socket.receive(timeout=30)
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    assert asyncio.run(main(f"{edge.websocket}/ws/status", "https://evil.example")) == 403
    assert asyncio.run(main(f"{edge.websocket}/ws/status", edge.url)) == 101
    with EdgeProcess(bus, edge={"cors_origins": ["https://good.example"]}) as other:
        assert asyncio.run(main(f"{other.websocket}/ws/status", "https://good.example")) == 101


def test_a_subscriber_that_is_slow_gets_the_latest_and_no_queue() -> None:
    async def main() -> None:
        subscriber = Subscriber(Caller(tenant="mine", scopes=("operate",)))
        news = News()
        news.listen(subscriber.happened)
        for number in range(1000):
            subscriber.put(Status(b"status %d" % number, b"little"))
            news.tell("mine", Happening("job", f"job {number}", "running"))
            news.tell("another's", Happening("job", "secret", "running"))
        status, events = await subscriber.get()
        assert status == b"status 999"
        told = json.loads(events)["events"]
        assert [event["id"] for event in told] == [
            f"job {number}" for number in range(1000 - EVENTS_KEPT, 1000)
        ]

    asyncio.run(main())


def test_a_rate_is_what_ended_in_the_last_seconds() -> None:
    rates, rate = Rates(), 0.0
    for tick in range(40):
        rate = rates.add(tick / 4, {"totals": {"done": 3 * tick, "failed": tick}})
    assert rate == pytest.approx(16.0)
    assert rates.add(10.0, {"totals": {"done": 0}}) == 0.0, "a broker that began anew has no negative rate"


def test_status_comes_at_most_ten_times_a_second(edge: EdgeProcess) -> None:
    """The gap is kept by the server, so it holds however noisy the machine is: it can only be longer."""

    async def main() -> list[float]:
        at: list[float] = []
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{edge.websocket}/ws/status") as socket,
        ):
            stop = asyncio.get_running_loop().time() + 2

            async def speak() -> None:
                while asyncio.get_running_loop().time() < stop:
                    async with session.post(
                        f"{edge.url}/v1/audio/speech", json={"input": "Again."}
                    ) as answer:
                        await answer.read()

            speaking = asyncio.create_task(speak())
            while not speaking.done():
                try:
                    await socket.receive(timeout=0.5)
                    at.append(time.monotonic())
                except TimeoutError:
                    pass
        return at

    at = asyncio.run(main())
    assert len(at) >= 3
    assert len(at) <= 2 * 21 + 4
