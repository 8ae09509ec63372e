"""OpenAI's API by OpenAI's own client, unchanged: six formats, streams, events, errors, names."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Iterator
from typing import Literal

import av
import httpx
import numpy as np
import openai
import pytest
import soundfile

from tests.edge.conftest import Speaker
from tests.edge.server import EdgeProcess
from voicebus.client import Client
from voicebus.client.launch import Bus

TEXT = "The ferry leaves the northern harbour at nine."
Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
FORMATS: tuple[Format, ...] = ("mp3", "opus", "aac", "flac", "wav", "pcm")


@pytest.fixture(scope="module")
def official(edge: EdgeProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{edge.url}/v1", api_key="x", max_retries=0) as client:
        yield client


def seconds_of(data: bytes, format: str) -> float:
    if format == "pcm":
        return len(data) / 2 / 24_000
    with av.open(io.BytesIO(data), "r") as file:
        return sum(frame.samples for frame in file.decode(audio=0)) / file.streams.audio[0].rate


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_has_its_type_and_all_of_the_speech(
    official: openai.OpenAI, spoken: Speaker, format: Format
) -> None:
    answer = official.audio.speech.create(model="tts-1", voice="amber", input=TEXT, response_format=format)
    types = {
        "mp3": "audio/mpeg",
        "opus": "audio/ogg",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "wav": "audio/wav",
        "pcm": "audio/pcm",
    }
    assert answer.response.headers["content-type"] == types[format]
    assert seconds_of(answer.content, format) == pytest.approx(spoken(TEXT).size / 24_000, abs=0.12)


def test_a_wav_is_the_engine_s_own_samples(official: openai.OpenAI, spoken: Speaker) -> None:
    answer = official.audio.speech.create(model="tone", voice="basil", input=TEXT, response_format="wav")
    samples, rate_hz = soundfile.read(io.BytesIO(answer.content), dtype="int16")
    assert rate_hz == 24_000
    assert np.array_equal(samples, spoken(TEXT, "basil"))


def test_the_first_bytes_come_before_the_last_clause_is_spoken(
    official: openai.OpenAI, bus: Bus, spoken: Speaker
) -> None:
    """The last sentence hangs its engine, so it cannot have been spoken when the first is heard."""
    text = f"{TEXT} This one is STUCK."
    with official.audio.speech.with_streaming_response.create(
        model="tts-1", voice="amber", input=text, response_format="pcm"
    ) as answer:
        parts = answer.iter_bytes(4096)  # kept: one that is let go of ends the request
        heard = next(parts)
        assert heard == spoken(TEXT).tobytes()[: len(heard)]
        with Client(bus.frontend) as client:
            assert client.status()["jobs"]["open"] >= 1


def test_what_is_there_at_once_has_its_length(http: httpx.Client, spoken: Speaker) -> None:
    wish = {"input": TEXT, "voice": "amber", "response_format": "wav"}
    # The end may come a moment after the sound; then nobody waits for it, and the file has no length.
    while "content-length" not in (answer := http.post("/v1/audio/speech", json=wish)).headers:
        pass
    assert int(answer.headers["content-length"]) == len(answer.content)
    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.getnframes() == spoken(TEXT).size


def test_events_carry_the_audio_the_request_and_the_end(http: httpx.Client, spoken: Speaker) -> None:
    body = {"input": TEXT, "voice": "amber", "response_format": "pcm", "stream_format": "sse"}
    with http.stream("POST", "/v1/audio/speech", json=body, headers={"X-Request-Id": "mine-1"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
    assert events[-1]["type"] == "speech.audio.done"
    assert set(events[-1]["usage"]) == {"input_tokens", "output_tokens", "total_tokens"}
    deltas = events[:-1]
    assert all(event["type"] == "speech.audio.delta" and event["request_id"] == "mine-1" for event in deltas)
    audio = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    assert audio == spoken(TEXT).tobytes()


def test_headers_say_who_spoke_and_how_soon(http: httpx.Client) -> None:
    answer = http.post("/v1/audio/speech", json={"input": TEXT}, headers={"X-Request-Id": "abc.1"})
    assert answer.headers["x-request-id"] == "abc.1"
    assert answer.headers["x-voicebus-engine"] == "tone"
    assert answer.headers["x-voicebus-worker"].startswith("tone-")
    assert int(answer.headers["x-voicebus-first-audio-ms"]) >= 0
    assert answer.headers["ratelimit-policy"].endswith(";w=60")


@pytest.mark.parametrize("voice", ["alloy", "cedar", {"id": "amber"}, ""])
def test_names_of_openai_s_voices_and_voices_as_objects_are_understood(
    http: httpx.Client, voice: object
) -> None:
    assert http.post("/v1/audio/speech", json={"input": TEXT, "voice": voice}).status_code == 200


def test_speed_shortens(http: httpx.Client, spoken: Speaker) -> None:
    wish = {"input": TEXT, "voice": "amber", "response_format": "pcm", "speed": 2.0}
    assert len(http.post("/v1/audio/speech", json=wish).content) == 2 * spoken(TEXT, speed=2.0).size


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"input": ""}, 400, "bad_request", "input"),
        ({"input": "   "}, 400, "bad_request", "input"),
        ({"input": 5}, 400, "bad_request", "input"),
        ({"speed": 9}, 400, "bad_request", "speed"),
        ({"response_format": "midi"}, 400, "bad_request", "response_format"),
        ({"voice": "nobody"}, 404, "unknown_voice", None),
        ({"voice": "../../etc/passwd"}, 404, "unknown_voice", None),
        ({"model": "no-such-engine"}, 404, "unknown_engine", None),
        ({"input": "a" * 100_000}, 413, "text_too_long", None),
        ({"options": {"loudness": 99}}, 400, "bad_request", None),
    ],
)
def test_mistakes_are_told_as_openai_and_as_a_problem(
    http: httpx.Client, change: dict[str, object], status: int, code: str, param: str | None
) -> None:
    answer = http.post("/v1/audio/speech", json={"input": TEXT, "voice": "amber"} | change)
    body = answer.json()
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["error"]["code"], body["error"]["param"]) == (code, param)
    assert (body["status"], body["detail"]) == (status, body["error"]["message"])
    assert body["type"] == f"/docs#{code}"
    assert f'id="{code}"' in http.get("/docs").text


def test_the_official_client_raises_its_own_errors(official: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no voice is called 'nobody'"):
        official.audio.speech.create(model="tts-1", voice="nobody", input=TEXT)


def test_models_are_engines_and_the_names_that_mean_the_default_one(official: openai.OpenAI) -> None:
    names = [model.id for model in official.models.list()]
    assert names[0] == "tone"
    assert {"tts-1", "tts-1-hd", "gpt-4o-mini-tts"} <= set(names)
    assert official.models.retrieve("tone").owned_by == "voicebus"
