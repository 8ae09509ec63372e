"""Limits that hold, and say when to come again: by address, by key, in all, at once, and shared by edges."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus
from voicebus.common.config import Edge, load_config
from voicebus.common.errors import Overloaded, RateLimited
from voicebus.edge.limits import Limits


def test_the_101st_request_of_an_address_waits_and_another_address_does_not(bus: Bus) -> None:
    """The seed's limits, which are the defaults, over HTTP; behind a trusted proxy addresses differ."""
    defaults = {"ip_rpm": 100, "global_rpm": 1000, "concurrency": 50, "trusted_proxies": ["127.0.0.1"]}
    with (
        EdgeProcess(bus, edge=defaults) as edge,
        edge.client(headers={"X-Forwarded-For": "198.51.100.1"}) as http,
    ):
        answers = [http.get("/v1/models") for _ in range(101)]
        assert {answer.status_code for answer in answers[:100]} == {200}
        left = [answer.headers["ratelimit"] for answer in answers[:100]]
        assert left[0].startswith('"address";r=99;t=')
        assert left[-1].startswith('"address";r=0;t=')
        refused = answers[100]
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit"].startswith('"address";r=0;t=')
        assert refused.json()["error"] == {
            "message": "more than 100 requests in a minute from one address",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limited",
        }
        assert http.get("/v1/models", headers={"X-Forwarded-For": "198.51.100.2"}).status_code == 200
        assert http.get("/livez").status_code == 200


def test_retry_after_is_when_there_is_room_again() -> None:
    """Caught by hand: a server that says 60 s at each refusal keeps clients away far too long."""

    async def main() -> None:
        limits = Limits(Edge(ip_rpm=60, global_rpm=10_000))
        for _ in range(60):
            await limits.admit("198.51.100.1")
        with pytest.raises(RateLimited) as refused:
            await limits.admit("198.51.100.1")
        assert refused.value.retry_after_s is not None
        assert 0 < refused.value.retry_after_s <= 60

    asyncio.run(main())


def test_what_one_address_is_refused_is_not_taken_from_all() -> None:
    async def main() -> None:
        limits = Limits(Edge(ip_rpm=1, global_rpm=3))
        await limits.admit("198.51.100.1")
        for _ in range(10):
            with pytest.raises(RateLimited, match="one address"):
                await limits.admit("198.51.100.1")
        await limits.admit("198.51.100.2")
        await limits.admit("198.51.100.3")
        with pytest.raises(RateLimited, match="in all"):
            await limits.admit("198.51.100.4")

    asyncio.run(main())


def test_places_are_given_back_whatever_happens() -> None:
    async def main() -> None:
        limits = Limits(Edge(concurrency=2))
        async with limits.place(), limits.place():
            with pytest.raises(Overloaded) as refused:
                async with limits.place():
                    pass
            assert refused.value.retry_after_s == 1
        with pytest.raises(ZeroDivisionError):
            async with limits.place():
                raise ZeroDivisionError
        assert limits.busy == 0

    asyncio.run(main())


def test_the_51st_at_once_is_told_to_come_again() -> None:
    """The 50 that have the places are spoken as slowly as a person speaks, for minutes."""
    slow = {"seconds_per_char": 0.01, "realtime_factor": 1}
    places = load_config(None, {}).edge.concurrency
    body = {"input": "It goes on and on. " * 800, "model": "tone", "response_format": "pcm"}

    async def main(url: str) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(url, connector=connector) as session:

            async def listen() -> aiohttp.ClientResponse:
                answer = await session.post("/v1/audio/speech", json=body)
                assert answer.status == 200
                await answer.content.readany()
                return answer

            heard = await asyncio.gather(*(listen() for _ in range(places)))
            async with session.post("/v1/audio/speech", json=body) as refused:
                assert (refused.status, (await refused.json())["error"]["code"]) == (503, "overloaded")
                assert refused.headers["Retry-After"] == "1"
            heard[0].close()  # a place is free as soon as one has left
            while (again := await session.post("/v1/audio/speech", json=body)).status == 503:
                again.release()
            assert again.status == 200
            again.close()
            for answer in heard:
                answer.close()

    with (
        Bus(engines={"tone": 1}, slots=64, settings=slow) as bus,
        EdgeProcess(bus, edge={"concurrency": places}) as edge,
    ):
        asyncio.run(main(edge.url))


@pytest.mark.edge
def test_two_edges_at_one_redis_count_together(bus: Bus, redis_url: str) -> None:
    shared = {"ip_rpm": 10, "redis": redis_url}
    with (
        EdgeProcess(bus, edge=shared) as one,
        EdgeProcess(bus, edge=shared) as other,
        one.client() as first,
        other.client() as second,
    ):
        answers = [http.get("/v1/models").status_code for _ in range(5) for http in (first, second)]
        assert answers == [200] * 10
        assert [first.get("/v1/models").status_code, second.get("/v1/models").status_code] == [429, 429]


def test_while_redis_is_gone_each_edge_counts_for_itself(bus: Bus) -> None:
    with (
        EdgeProcess(bus, edge={"ip_rpm": 10, "redis": "redis://127.0.0.1:1/0"}) as edge,
        edge.client() as http,
    ):
        assert [http.get("/v1/models").status_code for _ in range(11)] == [200] * 10 + [429]


def test_keys_have_quotas_of_their_own_and_stop_when_revoked(bus: Bus, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from voicebus.common.apikeys import ApiKeys

    file = tmp_path / "keys.json"
    keys = ApiKeys(file)
    made, key = keys.new("a test", tenant="tests", rpm=3)
    with EdgeProcess(bus, edge={"api_keys": str(file)}) as edge, edge.client() as http:
        assert http.get("/v1/models").status_code == 401
        assert http.get("/v1/models").headers["www-authenticate"].startswith("Bearer")
        for name, value in (
            ("Authorization", f"Bearer {key}"),
            ("xi-api-key", key),
            ("Authorization", f"bearer {key}"),
        ):
            assert http.get("/v1/models", headers={name: value}).status_code == 200
        refused = http.get("/v1/models", headers={"xi-api-key": key})
        assert (refused.status_code, refused.json()["detail"]) == (
            429,
            "more than 3 requests in a minute from one key",
        )
        keys.revoke(made.id)
        assert http.get("/v1/models", headers={"xi-api-key": key}).status_code == 401
        assert http.get("/livez").status_code == http.get("/").status_code == 200


def test_beyond_loopback_without_keys_the_edge_does_not_start(bus: Bus) -> None:
    with pytest.raises(Exception, match="vc keys api new"), EdgeProcess(bus, edge={"host": "0.0.0.0"}):  # noqa: S104 - refused
        pass
