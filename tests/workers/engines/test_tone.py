from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from voicebus.common.errors import BadRequest, ConfigError
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.tone import CRASH_EXIT_CODE, LOUDNESS, MAX_CHARS, ToneEngine


def loaded(**settings: Any) -> ToneEngine:
    engine = ToneEngine()
    engine.load(settings)
    return engine


def voice(engine: ToneEngine, sha256: str = "00" * 32) -> Any:
    return engine.voice(Reference("x", np.zeros(0, np.float32), 24_000, sha256))


def spoken(engine: ToneEngine, text: str, sha256: str = "00" * 32, speed: float = 1.0) -> Any:
    return np.concatenate(list(engine.speak(Request(text, "en", speed), voice(engine, sha256))))


def strongest_hz(samples: Any, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 17))
    return float(np.argmax(spectrum) * rate_hz / (1 << 17))


def test_every_character_has_its_time_and_its_pitch() -> None:
    engine = loaded(seconds_per_char=0.1)
    samples = spoken(engine, "a b")
    assert samples.dtype == np.float32
    assert len(samples) == 3 * 2400
    assert not samples[2400:4800].any()
    first, second = strongest_hz(samples[:2400], 24_000), strongest_hz(samples[4800:], 24_000)
    assert second / first == pytest.approx(2 ** (1 / 12), rel=0.01)
    assert len(spoken(engine, "a b", speed=2.0)) == 3 * 1200


def test_there_is_no_click_at_any_edge() -> None:
    engine = loaded(seconds_per_char=0.05)
    samples = spoken(engine, "Hello there", "ff" * 32)
    assert np.abs(samples).max() <= LOUDNESS
    assert abs(samples[0]) < 1e-6
    assert abs(samples[-1]) < 1e-6
    edges = np.arange(1, 11) * 1200
    assert np.abs(samples[edges] - samples[edges - 1]).max() < 0.01


def test_the_timbre_is_the_voices_and_survives_the_disk() -> None:
    engine = loaded()
    one, other = spoken(engine, "tone", "12" * 32), spoken(engine, "tone", "f0" * 32)
    assert np.abs(one - other).max() > 0.02
    assert np.array_equal(one, spoken(engine, "tone", "12" * 32))
    state = voice(engine, "12" * 32)
    assert engine.unpack(engine.pack(state)) == state


def test_it_takes_the_time_it_is_told_to_in_slices() -> None:
    engine = loaded(realtime_factor=0.1, seconds_per_char=0.1)
    slices = list(engine.speak(Request("abcde", "en"), voice(engine)))
    assert len(slices) == 10
    fast = list(loaded(seconds_per_char=0.1).speak(Request("abcde", "en"), voice(engine)))
    assert len(fast) == 1
    assert np.array_equal(np.concatenate(slices), fast[0])


def test_segments_are_sentences_within_the_limit() -> None:
    engine = loaded()
    assert engine.segments(" One. Two!  Three？ four", "en") == ["One.", "Two!", "Three？", "four"]
    long = engine.segments("x" * 1000 + ". y", "en")
    assert [len(segment) for segment in long] == [MAX_CHARS, MAX_CHARS, 201, 1]
    assert engine.segments("   ", "en") == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pitch": 3}, "'pitch'.*seconds_per_char, realtime_factor"),
        ({"seconds_per_char": 0}, "seconds_per_char must be a number from 0.001 to 10"),
        ({"realtime_factor": -1}, "from 0 to 100"),
        ({"sample_rate": True}, "from 8000 to 48000"),
        ({"sample_rate": "fast"}, "'fast'"),
        ({"realtime_factor": float("nan")}, "from 0 to 100"),
        ({"crash_on": 5}, "must be a string"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        loaded(**settings)


def test_what_every_engine_is_given_is_accepted() -> None:
    assert loaded(device="cpu", threads=2, sample_rate=8000).sample_rate == 8000


def test_an_option_is_refused() -> None:
    with pytest.raises(BadRequest, match="'style'"):
        loaded().speak(Request("a", "en", options={"style": 1}), voice(loaded()))


def test_crash_on_ends_the_process() -> None:
    code = (
        "from voicebus.workers.engines.tone import ToneEngine, Timbre\n"
        "from voicebus.workers.engine import Request\n"
        "engine = ToneEngine(); engine.load({'crash_on': 'boom'})\n"
        "print(len(list(engine.speak(Request('fine', 'en'), Timbre((1.0,))))), flush=True)\n"
        "engine.speak(Request('a boom', 'en'), Timbre((1.0,)))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.returncode) == ("1", CRASH_EXIT_CODE)


def test_its_own_voice_is_a_bare_sine() -> None:
    engine = loaded()
    assert engine.stock_voice().overtones == (1.0,)
    with pytest.raises(ConfigError, match="no voice 'bell'"):
        engine.stock_voice("bell")
