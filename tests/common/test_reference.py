"""Reference recordings: each fault is refused with what was measured and what to do about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from voicebus.common import audio
from voicebus.common.errors import BadRequest
from voicebus.common.levels import measure
from voicebus.common.reference import MAX_SECONDS, check_reference, prepare_reference
from voicebus.common.voices import shipped_folder

GOOD = audio.decode(shipped_folder() / "amber" / "reference.wav")
NOISE = np.random.default_rng(7).standard_normal(240_000).astype(np.float32)


def overdriven() -> Any:
    return np.clip(GOOD.samples * 8, -1, 1)


@pytest.mark.parametrize(
    ("samples", "rate", "measured", "remedy"),
    [
        (np.zeros(240_000, np.float32), 24_000, "silent", "microphone"),
        (NOISE * 1e-4, 24_000, "silent", "microphone"),
        (GOOD.samples * 0.02, 24_000, r"-5\d dBFS, at least -45", "closer"),
        (overdriven(), 24_000, r"clipped \(\d+\.\d% of it", "less gain"),
        (overdriven() * 0.4, 24_000, r"clipped \(\d+\.\d% of it", "less gain"),
        (
            np.pad(GOOD.samples[:48_000], 48_000),
            24_000,
            r"holds 1\.\d s of speech, at least 3 s",
            "full sentences",
        ),
        (GOOD.samples[20_000:20_100], 24_000, r"is 0\.0 s long", "full sentences"),
        (NOISE * 0.1, 24_000, r"holds 0\.\d s of voice", "quiet room"),
        (audio.resample(GOOD.samples, 24_000, 8_000), 8_000, "8000 Hz", "16000 Hz or more"),
    ],
)
def test_a_bad_recording_is_refused(samples: Any, rate: int, measured: str, remedy: str) -> None:
    with pytest.raises(BadRequest, match=measured) as refused:
        check_reference(samples, rate)
    assert remedy in refused.value.message


@pytest.mark.parametrize(
    ("name", "rate"), [("wav", 24_000), ("flac", 44_100), ("mp3", 44_100), ("opus", 48_000)]
)
def test_a_good_recording_of_any_format_is_kept_as_16_bit_mono(name: str, rate: int) -> None:
    prepared = prepare_reference(audio.encode(audio.resample(GOOD.samples, 24_000, rate), rate, name))
    stored = audio.decode(prepared.wav)
    assert (stored.rate_hz, prepared.rate_hz) == (rate, rate)
    assert prepared.levels.speech_s == pytest.approx(measure(GOOD.samples, 24_000).speech_s, abs=0.5)
    assert not prepared.cut


def test_a_recording_of_hours_is_cut_to_its_first_minute_and_high_rates_to_48_khz() -> None:
    long = np.tile(audio.resample(GOOD.samples, 24_000, 96_000), 7)
    prepared = prepare_reference(audio.encode(long, 96_000, "flac"))
    assert prepared.cut
    assert prepared.rate_hz == 48_000
    assert audio.decode(prepared.wav).samples.size == MAX_SECONDS * 48_000


def test_measures_agree_with_what_is_known_of_the_signal() -> None:
    square = np.where(np.arange(48_000) % 120 < 60, 0.5, -0.5).astype(np.float32)
    gap = np.zeros(24_000, np.float32)
    levels = measure(np.concatenate([square, gap]), 24_000)
    assert levels.seconds == 3.0
    assert levels.speech_dbfs == pytest.approx(-6.02, abs=0.1)
    assert levels.rms_dbfs == pytest.approx(-6.02 - 1.76, abs=0.1)
    assert levels.peak == 0.5
    assert levels.speech_s == pytest.approx(2.0, abs=0.05)
    assert levels.voiced_s == pytest.approx(2.0, abs=0.05)
    assert measure(np.zeros(0, np.float32), 24_000).speech_s == 0.0
