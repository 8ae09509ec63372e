"""The shipped voices: whole, checked like any other, and as their note describes them."""

from __future__ import annotations

import hashlib
import wave

import pytest

from voicebus.common.audio import decode
from voicebus.common.reference import check_reference
from voicebus.common.voices import VoiceStore, shipped_folder

NAMES = ("amber", "basil")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_voice_is_usable_and_stands_in_the_note(name: str, tmp_path: object) -> None:
    path = shipped_folder() / name / "reference.wav"
    voice = VoiceStore(f"{tmp_path}/none").get(name)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
    decoded = decode(path)
    levels = check_reference(decoded.samples, decoded.rate_hz)
    assert 8.0 <= levels.seconds <= 12.0
    assert levels.clipped_fraction == 0.0
    assert voice.seconds == pytest.approx(levels.seconds, abs=0.001)
    assert voice.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert voice.sha256 in (shipped_folder() / "README.md").read_text()
    assert voice.text
    assert "ynthetic" in voice.consent
    assert voice.shipped


def test_the_two_are_all_that_ships_and_say_different_things(tmp_path: object) -> None:
    voices = VoiceStore(f"{tmp_path}/none").list()
    assert tuple(voice.id for voice in voices) == NAMES
    assert voices[0].text != voices[1].text
