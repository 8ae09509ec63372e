"""The routes of xtts-api-server, as SillyTavern calls them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import soundfile

from tests.edge.conftest import Speaker
from voicebus.edge.sillytavern import LANGUAGES, named

if TYPE_CHECKING:
    from voicebus.common.audio import Pcm

TEXT = "We could hear the sea."


def same(answer: httpx.Response, expected: Pcm) -> bool:
    return np.array_equal(soundfile.read(io.BytesIO(answer.content), dtype="int16")[0], expected)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_line_whole_and_streamed(http: httpx.Client, spoken: Speaker, slash: str) -> None:
    line = {"text": TEXT, "speaker_wav": "basil", "language": "en"}
    assert same(http.post(f"/tts_to_audio{slash}", json=line), spoken(TEXT, "basil"))
    answer = http.get(f"/tts_stream{slash}", params=line)
    assert answer.headers["content-type"] == "audio/wav"
    assert same(answer, spoken(TEXT, "basil"))


def test_what_can_be_chosen(http: httpx.Client) -> None:
    assert {"amber", "basil"} <= set(http.get("/speakers_list").json())
    speaker = next(found for found in http.get("/speakers").json() if found["voice_id"] == "amber")
    assert http.get(speaker["preview_url"]).headers["content-type"] == "audio/wav"
    assert http.get("/languages").json() == {"languages": LANGUAGES}, "tone speaks them all"
    assert named(["en-us", "zh", "eo"]) == {"Chinese": "zh-cn", "English": "en"}


def test_settings_are_taken_and_change_nobody_s_speech(http: httpx.Client, spoken: Speaker) -> None:
    assert http.post("/set_tts_settings", json={"speed": "1.2", "stream_chunk_size": 100}).status_code == 200
    assert same(http.post("/tts_to_audio/", json={"text": TEXT, "speaker_wav": "amber.wav"}), spoken(TEXT))
