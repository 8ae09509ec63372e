"""ElevenLabs's routes and its WebSocket, as its clients call them."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from tests.edge.conftest import Speaker
from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus
from voicebus.common.apikeys import ApiKeys

TEXT = "A small brown bird sat on the fence."


@pytest.mark.parametrize("path", ["/v1/text-to-speech/amber", "/v1/text-to-speech/amber/stream"])
def test_speech_in_a_named_format(http: httpx.Client, spoken: Speaker, path: str) -> None:
    for model in ("tone", "eleven_multilingual_v2"):
        wish = {"text": TEXT, "model_id": model}
        answer = http.post(path, params={"output_format": "pcm_24000"}, json=wish)
        assert answer.status_code == 200
        assert answer.content == spoken(TEXT).tobytes()


@pytest.mark.parametrize(
    ("path", "query", "body", "status", "code"),
    [
        ("nobody", {}, {"text": TEXT}, 404, "unknown_voice"),
        ("amber", {"output_format": "midi_1"}, {"text": TEXT}, 400, "bad_request"),
        ("amber", {}, {}, 400, "bad_request"),
        ("amber", {}, {"text": TEXT, "voice_settings": {"speed": 99}}, 400, "bad_request"),
    ],
)
def test_mistakes_are_told_in_elevenlabs_s_words(
    http: httpx.Client, path: str, query: dict[str, str], body: dict[str, Any], status: int, code: str
) -> None:
    answer = http.post(f"/v1/text-to-speech/{path}", params=query, json=body)
    assert (answer.status_code, answer.json()["detail"]["status"]) == (status, code)
    assert answer.json()["detail"]["message"]


def test_voices_are_listed(http: httpx.Client) -> None:
    voices = {voice["voice_id"]: voice for voice in http.get("/v1/voices").json()["voices"]}
    assert {"amber", "basil"} <= set(voices)
    assert http.get(voices["amber"]["preview_url"]).headers["content-type"] == "audio/wav"


def converse(edge: EdgeProcess, messages: list[dict[str, Any]], query: str = "") -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        url = f"{edge.websocket}/v1/text-to-speech/amber/stream-input?output_format=pcm_24000{query}"
        heard: list[dict[str, Any]] = []
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            for message in messages:
                await socket.send_str(json.dumps(message))
            async for message in socket:
                heard.append(json.loads(message.data))
        return heard

    return asyncio.run(main())


def test_a_text_that_comes_in_parts_is_spoken_as_one(edge: EdgeProcess, spoken: Speaker) -> None:
    words = f"{TEXT} Nobody had told her so.".split(" ")
    parts = [{"text": " "}, *({"text": f"{word} "} for word in words), {"text": ""}]
    heard = converse(edge, parts)
    assert heard[-1]["isFinal"] is True
    audio = b"".join(base64.b64decode(part["audio"]) for part in heard if part["audio"])
    assert audio == spoken(TEXT).tobytes() + spoken("Nobody had told her so.").tobytes()


def test_a_sentence_is_heard_while_the_text_goes_on(edge: EdgeProcess) -> None:
    async def main() -> None:
        url = f"{edge.websocket}/v1/text-to-speech/amber/stream-input?output_format=pcm_24000"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            await socket.send_str(json.dumps({"text": " "}))
            await socket.send_str(json.dumps({"text": f"{TEXT} And then "}))
            first = json.loads((await socket.receive(timeout=30)).data)
            assert first["audio"]
            await socket.send_str(json.dumps({"text": ""}))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([{"text": 5}], "bad_request"),
        ([{"text": " ", "voice_settings": {"speed": 50}}], "bad_request"),
        ([{"text": " "}, {"text": "a" * 60_000}, {"text": "a" * 60_000}], "text_too_long"),
    ],
)
def test_mistakes_end_the_conversation_with_their_code(
    edge: EdgeProcess, messages: list[dict[str, Any]], error: str
) -> None:
    assert converse(edge, messages)[-1]["error"] == error


def test_words_that_come_one_by_one_are_no_sentences(edge: EdgeProcess, spoken: Speaker) -> None:
    """Clients send try_trigger_generation with every word, and each word was spoken by itself."""
    words = [{"text": f"{word} ", "try_trigger_generation": True} for word in TEXT.split(" ")]
    heard = converse(edge, [{"text": " ", "voice_settings": {"speed": None}}, *words, {"text": ""}])
    audio = b"".join(base64.b64decode(part["audio"]) for part in heard if part["audio"])
    assert audio == spoken(TEXT).tobytes()


def test_a_ping_is_answered_while_the_last_words_are_spoken() -> None:
    """Nobody received any more once the text had ended, and clients took the connection for dead."""

    async def main(url: str) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(url, autoping=False) as socket:
            await socket.send_str(json.dumps({"text": "It goes on. " * 40}))
            await socket.send_str(json.dumps({"text": ""}))
            assert json.loads((await socket.receive(timeout=30)).data)["audio"]
            await socket.ping(b"there?")
            while (message := await socket.receive(timeout=30)).type is not aiohttp.WSMsgType.PONG:
                assert "isFinal" not in message.data or json.loads(message.data)["isFinal"] is None
            assert message.data == b"there?"

    slow = {"seconds_per_char": 0.05, "realtime_factor": 0.5}
    with Bus(engines={"tone": 1}, settings=slow) as bus, EdgeProcess(bus) as edge:
        asyncio.run(main(f"{edge.websocket}/v1/text-to-speech/amber/stream-input?model_id=tone"))


def test_a_stranger_takes_no_place_and_a_key_s_quota_holds(bus: Bus, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    _, key = ApiKeys(file).new("mine", rpm=2)

    async def main(edge: EdgeProcess) -> None:
        url = f"{edge.websocket}/v1/text-to-speech/amber/stream-input"

        async def said(socket: aiohttp.ClientWebSocketResponse, **first: str) -> dict[str, Any]:
            await socket.send_str(json.dumps({"text": " ", **first}))
            await socket.send_str(json.dumps({"text": ""}))
            return json.loads((await socket.receive(timeout=30)).data)

        async with aiohttp.ClientSession() as session:
            strangers = [await session.ws_connect(url) for _ in range(5)]
            for _ in range(2):
                async with session.ws_connect(url) as socket:
                    assert (await said(socket, xi_api_key=key))["isFinal"] is True
            async with session.ws_connect(url) as socket:
                assert (await said(socket, xi_api_key=key))["error"] == "rate_limited"
            assert (await said(strangers[0]))["error"] == "unauthorized"
            for socket in strangers:
                await socket.close()

    with EdgeProcess(bus, edge={"api_keys": str(file), "concurrency": 2}) as edge:
        asyncio.run(main(edge))
