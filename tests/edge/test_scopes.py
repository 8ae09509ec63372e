"""What a key may do: each route asks for its scope, each tenant has its own jobs, each key its characters."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus
from voicebus.common.apikeys import SCOPES, ApiKeys
from voicebus.common.audio import encode
from voicebus.common.config import Edge
from voicebus.common.errors import RateLimited, TextTooLong, Unauthorized
from voicebus.common.voices import VoiceStore
from voicebus.edge.keys import NOBODY, Caller, Keys
from voicebus.edge.limits import Limits

Maker = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def edge(bus: Bus, folder: Path) -> Iterator[EdgeProcess]:
    with EdgeProcess(bus, edge={"api_keys": str(folder / "keys.json")}) as edge:
        yield edge


@pytest.fixture(scope="module")
def http(edge: EdgeProcess) -> Iterator[httpx.Client]:
    with edge.client() as http:
        yield http


@pytest.fixture(scope="module")
def made(folder: Path) -> Maker:
    """Headers with a new key."""

    def make(name: str = "a", **wishes: Any) -> dict[str, str]:
        _, key = ApiKeys(folder / "keys.json").new(name, **wishes)
        return {"Authorization": f"Bearer {key}"}

    return make


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    return str(answer.json()["detail"])


ASKED: list[tuple[str, str, str]] = [
    ("POST", "/v1/audio/speech", "speak"),
    ("POST", "/v1/text-to-speech/amber", "speak"),
    ("POST", "/v1/text-to-speech/amber/stream", "speak"),
    ("POST", "/tts_to_audio", "speak"),
    ("POST", "/tts_to_audio/", "speak"),
    ("GET", "/tts_stream?text=Hi", "speak"),
    ("GET", "/tts_stream/?text=Hi", "speak"),
    ("POST", "/v1/jobs", "speak"),
    ("GET", "/v1/jobs", "speak"),
    ("GET", "/v1/jobs/0", "speak"),
    ("DELETE", "/v1/jobs/0", "speak"),
    ("GET", "/v1/jobs/0/audio", "speak"),
    ("GET", "/v1/audio/voices/amber/sample", "speak"),
    ("POST", "/v1/audio/voices", "voices"),
    ("DELETE", "/v1/audio/voices/nobody", "voices"),
    ("GET", "/metrics", "operate"),
]


@pytest.mark.parametrize(("method", "path", "scope"), ASKED)
def test_a_route_asks_for_its_scope_and_for_no_other(
    http: httpx.Client, made: Maker, method: str, path: str, scope: str
) -> None:
    shape = "elevenlabs" if "text-to-speech" in path else "problem"
    others = [other for other in SCOPES if other != scope]
    denied = http.request(method, path, headers=made(scopes=others))
    assert denied.status_code == 403
    said = denied.json()["detail"] if shape == "problem" else denied.json()["detail"]["message"]
    assert f"--scope {scope}" in said
    assert http.request(method, path, headers=made(scopes=[scope])).status_code not in (401, 403)
    assert http.request(method, path).status_code == 401


def test_every_scope_that_the_table_names_is_tried_above(http: httpx.Client) -> None:
    """A route that is added with a scope and without a line in `ASKED` is seen here."""
    document = http.get("/openapi.json").json()
    named = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "with the scope" in operation.get("description", "") and path != "/readyz"
    }
    assert len(named) > 12
    tried = {(method, path.partition("?")[0]) for method, path, _ in ASKED}

    def like(path: str) -> str:
        return "/".join(
            "{}" if "{" in part or part in ("0", "amber", "nobody") else part for part in path.split("/")
        )

    assert {(method, like(path)) for method, path in named} <= {
        (method, like(path)) for method, path in tried
    }
    speech = document["paths"]["/v1/audio/speech"]["post"]
    assert speech["security"] == [{"bearer": ["speak"]}, {"xi-api-key": ["speak"]}, {}]
    assert {"401", "403"} <= set(speech["responses"])
    assert "Needs a key with the scope `speak`." in http.get("/docs").text


def test_any_key_reads_what_there_is(http: httpx.Client, made: Maker) -> None:
    none = made(scopes=[])
    for path in (
        "/v1/models",
        "/v1/audio/models",
        "/v1/voices",
        "/v1/audio/voices",
        "/v1/audio/voices/amber",
    ):
        assert http.get(path, headers=none).status_code == 200
        assert http.get(path).status_code == 401


def test_strangers_learn_whether_it_lives_and_is_ready_and_no_more(http: httpx.Client, made: Maker) -> None:
    assert http.get("/livez").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ok"}
    assert http.get("/readyz", headers={"Authorization": "Bearer x"}).json() == {"status": "ok"}
    assert http.get("/readyz", headers=made(scopes=["speak"])).json() == {"status": "ok"}
    assert http.get("/readyz", headers=made(scopes=["operate"])).json()["engines"] == ["tone"]
    assert http.get("/docs").status_code == http.get("/openapi.json").status_code == 200


def test_strangers_are_not_told_where_the_broker_is(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    _, key = ApiKeys(file).new("a", scopes=["operate"])
    with EdgeProcess("tcp://127.0.0.1:1", edge={"api_keys": str(file)}) as edge, edge.client() as http:
        answer = http.get("/readyz")
        assert refused(answer, 503, "broker_unreachable") == "the broker does not answer"
        assert "127.0.0.1:1" in http.get("/readyz", headers={"xi-api-key": key}).text


def test_a_broken_file_of_keys_does_not_take_liveness_along(bus: Bus, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text("{")
    with EdgeProcess(bus, edge={"api_keys": str(file)}) as edge, edge.client() as http:
        assert http.get("/livez", headers={"xi-api-key": "x"}).status_code == 200
        assert http.get("/v1/models", headers={"xi-api-key": "x"}).status_code == 500


# ---- tenants


def finished(http: httpx.Client, job: str, headers: dict[str, str]) -> dict[str, Any]:
    while (shown := http.get(f"/v1/jobs/{job}", headers=headers).json())["state"] == "running":
        pass
    return shown


def test_a_tenants_jobs_are_found_by_nobody_else(http: httpx.Client, made: Maker) -> None:
    """Keys without a tenant had one in common, and saw each other's jobs."""
    one, same, other = made("one"), made("its twin", tenant="one"), made("other", scopes=SCOPES)
    job = http.post("/v1/jobs", json={"input": "A secret."}, headers=one).json()["id"]
    assert finished(http, job, one)["state"] == "done"
    assert http.get(f"/v1/jobs/{job}", headers=same).status_code == 200
    assert [shown["id"] for shown in http.get("/v1/jobs", headers=same).json()["jobs"]] == [job]
    assert http.get("/v1/jobs", headers=other).json() == {"jobs": []}
    never = "0" * 32
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/audio"), ("GET", "/audio?format=zip")):
        said = [
            refused(http.request(method, f"/v1/jobs/{id}{path}", headers=other), 404, "unknown_job").replace(
                id, ""
            )
            for id in (job, never)
        ]
        assert said[0] == said[1], "a job of others is told from none at all"
    assert http.get(f"/v1/jobs/{job}/audio", headers=one).status_code == 200


async def _news(session: aiohttp.ClientSession, url: str, headers: dict[str, str], until: str) -> list[Any]:
    """All that comes before an event whose id is this."""
    found: list[Any] = []
    async with session.ws_connect(f"{url}/ws/status", headers=headers) as socket:
        await session.post(
            f"{url.replace('ws', 'http', 1)}/v1/audio/speech",
            json={"input": "Mine."},
            headers={**headers, "X-Request-Id": until},
        )
        while not any(event["id"] == until for news in found for event in news.get("events", ())):
            found.append(json.loads((await socket.receive(timeout=30)).data))
    return found


def test_a_watcher_sees_its_tenants_events_and_workers_only_if_it_may(edge: EdgeProcess, made: Maker) -> None:
    """The status told every key which voices every worker knew, and how busy the others were."""
    little, full = made("little"), made("full", scopes=["speak", "operate"])

    async def main() -> tuple[list[Any], list[Any]]:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{edge.websocket}/ws/status", headers=little) as socket:
                seen = await _news(session, edge.websocket, full, "of-full")
                await socket.close()
            return await _news(session, edge.websocket, little, "of-little"), seen

    poor, rich = asyncio.run(main())
    statuses = [news for news in poor if news["type"] == "status"]
    assert statuses
    assert all(news == {"type": "status", "ready": True} for news in statuses)
    assert {event["id"] for news in poor for event in news.get("events", ())} == {"of-little"}
    assert any(news.get("workers") for news in rich)


def test_a_watcher_whose_key_is_revoked_is_told_to_leave(edge: EdgeProcess, folder: Path) -> None:
    """It went on watching for as long as it stayed connected."""
    keys = ApiKeys(folder / "keys.json")
    known, key = keys.new("leaving")
    _, stays = keys.new("staying", tenant="leaving")

    async def main() -> int | None:
        async with aiohttp.ClientSession() as session:
            headers = {"xi-api-key": key}
            async with session.ws_connect(f"{edge.websocket}/ws/status", headers=headers) as socket:
                await socket.receive(timeout=30)
                keys.revoke(known.id)
                await session.post(
                    f"{edge.url}/v1/audio/speech", json={"input": "Hi."}, headers={"xi-api-key": stays}
                )
                while (await socket.receive(timeout=30)).type is aiohttp.WSMsgType.TEXT:
                    pass
                return socket.close_code

    assert asyncio.run(main()) == 1008


def test_a_talk_whose_key_is_revoked_says_no_more(edge: EdgeProcess, folder: Path) -> None:
    """It could go on for as long as text came."""
    keys = ApiKeys(folder / "keys.json")
    known, key = keys.new("talking")

    async def main() -> dict[str, Any]:
        url = f"{edge.websocket}/v1/text-to-speech/amber/stream-input?output_format=pcm_24000"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            await socket.send_json({"text": "One sentence. And ", "xi_api_key": key})
            assert json.loads((await socket.receive(timeout=30)).data)["audio"]
            keys.revoke(known.id)
            await socket.send_json({"text": "another one. ", "flush": True})
            while "error" not in (told := json.loads((await socket.receive(timeout=30)).data)):
                assert told["audio"]
            return told

    told = asyncio.run(main())
    assert (told["error"], told["message"]) == ("unauthorized", "this API key was revoked")


# ---- voices


def test_who_adds_and_removes_a_voice_is_written_down(
    edge: EdgeProcess, http: httpx.Client, made: Maker
) -> None:
    sample = VoiceStore().reference("amber")
    wav = encode(sample.samples, sample.rate_hz)
    headers = made("curator", tenant="studio", scopes=["voices"])
    form = {"name": "Nina", "consent": "Nina agreed\r\nby letter", "licence": "CC0"}
    answer = http.post("/v1/audio/voices", data=form, files={"audio_sample": ("a", wav)}, headers=headers)
    assert answer.status_code == 201
    assert http.delete("/v1/audio/voices/nina", headers=headers).status_code == 204
    assert http.delete("/v1/audio/voices/nina", headers=headers).status_code == 404
    text = (edge.folder / "state" / "audit.jsonl").read_text()
    told = [json.loads(line) for line in text.splitlines()]
    assert [(line["deed"], line["step"]) for line in told] == [
        ("voice.add", "begun"),
        ("voice.add", "done"),
        ("voice.remove", "begun"),
        ("voice.remove", "done"),
    ]
    added, removed = told[1], told[3]
    assert (added["door"], added["name"], added["tenant"]) == ("edge", "curator", "studio")
    assert (added["address"], added["voice"], added["licence"]) == ("127.0.0.1", "nina", "CC0")
    assert added["consent"] == form["consent"]
    assert added["sha256"] == removed["sha256"]
    assert headers["Authorization"].split("_")[1] == added["key"]
    assert headers["Authorization"].split("_", 2)[2] not in text


def test_no_voice_is_added_or_removed_without_a_trace(bus: Bus, tmp_path: Path) -> None:
    sample = VoiceStore().reference("amber")
    wav = encode(sample.samples, sample.rate_hz)
    (tmp_path / "audit.jsonl").mkdir()
    security = {"security": {"audit": str(tmp_path / "audit.jsonl")}}
    form = {"name": "Nina", "consent": "Nina agreed"}
    config = {**security, "voices": {"path": str(tmp_path / "voices")}}
    with EdgeProcess(bus, config=config) as edge, edge.client() as http:
        answer = http.post("/v1/audio/voices", data=form, files={"audio_sample": ("a", wav)})
        assert "nothing was done" in refused(answer, 507, "storage_error")
        assert str(tmp_path) not in answer.text
        assert "journal" not in answer.json()["title"], "which is the broker's, and well"
        assert http.get("/v1/audio/voices/nina").status_code == 404
        VoiceStore(tmp_path / "voices").add("nina", io.BytesIO(wav).getvalue(), consent="Nina agreed")
        refused(http.delete("/v1/audio/voices/nina"), 507, "storage_error")
        assert http.get("/v1/audio/voices/nina").status_code == 200


@pytest.mark.parametrize("field", ["name", "licence", "consent", "text"])
def test_words_that_do_not_show_become_no_voice(http: httpx.Client, made: Maker, field: str) -> None:
    sample = VoiceStore().reference("amber")
    form = {"name": "Nina", "consent": "Nina agreed", field: "a\x1b[2J\u202eb"}
    files = {"audio_sample": ("a", encode(sample.samples, sample.rate_hz))}
    answer = http.post("/v1/audio/voices", data=form, files=files, headers=made(scopes=["voices"]))
    assert f"{field} has a character that does not show (U+001B" in refused(answer, 400, "bad_request")
    listed = http.get("/v1/audio/voices", headers=made()).json()["voices"]
    assert all(voice["shipped"] for voice in listed)


# ---- expiry


def test_an_expired_key_is_told_so_and_only_to_its_holder(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made, key = ApiKeys(file).new("a", expires=datetime.now(UTC) + timedelta(days=1))
    keys = Keys(Edge(api_keys=str(file)))
    caller = keys.holder(key)
    keys.still(caller)
    content = json.loads(file.read_text())
    content[0]["expires"] = "2001-02-03T04:05:06Z"
    file.write_text(json.dumps(content))
    with pytest.raises(Unauthorized, match="expired at 2001-02-03T04:05:06Z"):
        keys.holder(key)
    with pytest.raises(Unauthorized, match="expired"):
        keys.still(caller)
    with pytest.raises(Unauthorized, match="not known here"):
        keys.holder(f"vb_{made.id}_{'a' * 43}")


# ---- characters a day


def test_characters_are_counted_whatever_the_face(edge: EdgeProcess, http: httpx.Client, made: Maker) -> None:
    text = "Ten chars."
    faces: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", "/v1/audio/speech", {"input": text}),
        ("POST", "/v1/text-to-speech/amber", {"text": text}),
        ("POST", "/tts_to_audio/", {"text": text}),
        ("GET", f"/tts_stream?text={text}", None),
        ("POST", "/v1/jobs", {"input": text}),
    ]
    headers = made("counted", chars_per_day=10 * len(faces) + 10)
    for method, path, body in faces:
        assert http.request(method, path, json=body, headers=headers).status_code in (200, 202)

    async def talk() -> list[dict[str, Any]]:
        url = f"{edge.websocket}/v1/text-to-speech/amber/stream-input"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
            for part in (text, ""):
                await socket.send_json({"text": part})
            told: list[dict[str, Any]] = []
            while (message := await socket.receive(timeout=30)).type is aiohttp.WSMsgType.TEXT:
                told.append(json.loads(message.data))
            return told

    assert asyncio.run(talk())[-1].get("isFinal") is True
    for method, path, body in faces:
        answer = http.request(method, path, json=body, headers=headers)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 3600
        assert answer.headers["ratelimit-policy"].endswith(f"q={10 * len(faces) + 10};w=86400")
    assert asyncio.run(talk())[-1]["error"] == "rate_limited"
    assert http.get("/v1/models", headers=headers).status_code == 200


def test_what_was_not_spoken_is_given_back(http: httpx.Client, made: Maker) -> None:
    """A bus that is down for an hour would use up a day."""
    headers = made("unlucky", chars_per_day=20)
    for _ in range(5):
        wish = {"input": "Twenty characters ..", "model": "nothing"}
        refused(http.post("/v1/audio/speech", json=wish, headers=headers), 404, "unknown_engine")
    good = {"input": "Twenty characters .."}
    assert http.post("/v1/audio/speech", json=good, headers=headers).status_code == 200
    assert http.post("/v1/audio/speech", json=good, headers=headers).status_code == 429


def test_what_is_refused_is_not_counted_and_what_never_fits_is_told_so() -> None:
    caller = Caller("k", chars_per_day=100)

    async def main() -> None:
        limits = Limits(Edge())
        await limits.pay(caller, 60)
        for _ in range(5):
            with pytest.raises(RateLimited) as over:
                await limits.pay(caller, 50)
            assert over.value.retry_after_s is not None
            assert 8000 < over.value.retry_after_s < 9000, "ten of a hundred a day are there in 2.4 hours"
        await limits.pay(caller, 40)
        with pytest.raises(TextTooLong):
            await limits.pay(caller, 101)
        limits.give_back(caller, 30)
        await limits.pay(caller, 10)
        await limits.pay(caller, 20)
        with pytest.raises(RateLimited):
            await limits.pay(caller, 1)
        await limits.pay(NOBODY, 10**9)

    asyncio.run(main())


def test_what_was_given_back_cannot_be_spent_twice() -> None:
    caller = Caller("k", chars_per_day=100)

    async def main() -> list[BaseException | None]:
        limits = Limits(Edge())
        await limits.pay(caller, 100)
        limits.give_back(caller, 50)
        return await asyncio.gather(*(limits.pay(caller, 40) for _ in range(5)), return_exceptions=True)

    assert sum(outcome is None for outcome in asyncio.run(main())) == 1


def test_strangers_addresses_do_not_push_a_keys_count_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is bounded, and an address costs nothing to whoever has a network of them."""
    monkeypatch.setattr("voicebus.edge.limits.ADDRESSES", 10)
    caller = Caller("k", chars_per_day=100)

    async def main() -> None:
        limits = Limits(Edge(global_rpm=100_000))
        await limits.pay(caller, 100)
        for number in range(50):
            await limits.admit(f"198.51.100.{number}")
        with pytest.raises(RateLimited):
            await limits.pay(caller, 1)

    asyncio.run(main())


@pytest.mark.edge
def test_two_edges_at_one_redis_count_a_keys_characters_together(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    _, key = ApiKeys(file).new("a", chars_per_day=20)
    shared = {"api_keys": str(file), "redis": redis_url}
    wish, headers = {"input": "Ten chars."}, {"xi-api-key": key}
    with (
        EdgeProcess(bus, edge=shared) as one,
        EdgeProcess(bus, edge=shared) as other,
        one.client(headers=headers) as first,
        other.client(headers=headers) as second,
    ):
        answers = [
            http.post("/v1/audio/speech", json=wish).status_code for http in (first, second, first, second)
        ]
    assert answers == [200, 200, 429, 429]
