"""Speech as callers get it: numbers, files, and ends that do not click."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from voicebus.client.speech import Chunk, Speech, faded
from voicebus.common.errors import BadRequest

TONE = (8000 * np.sin(np.arange(24_000) / 20)).astype("<i2")


def test_samples_are_int16_and_floats_are_within_one() -> None:
    speech = Speech(TONE.tobytes(), 24_000, "tone", "w")
    assert speech.samples.dtype == np.int16
    assert np.array_equal(speech.samples, TONE)
    assert speech.duration_s == 1.0
    floats = Speech(np.array([-32768, 32767], dtype="<i2").tobytes(), 8000, "tone", "w").to_float()
    assert floats.dtype == np.float32
    assert floats.min() == -1.0
    assert floats.max() < 1.0
    chunk = Chunk(TONE.tobytes(), 24_000, "tone", "w")
    assert bytes(chunk) == TONE.tobytes()
    assert np.array_equal(chunk.samples, TONE)


@pytest.mark.parametrize(
    ("name", "exact"), [("a.wav", True), ("a.FLAC", True), ("a.mp3", False), ("a.opus", False)]
)
def test_a_file_is_of_the_format_its_name_says(tmp_path: Path, name: str, exact: bool) -> None:
    Speech(TONE.tobytes(), 24_000, "tone", "w").save(tmp_path / name)
    samples, rate_hz = soundfile.read(tmp_path / name, dtype="int16")
    assert samples.ndim == 1
    if exact:
        assert rate_hz == 24_000
        assert np.array_equal(samples, TONE)
    else:
        assert abs(len(samples) / rate_hz - 1.0) < 0.1


def test_a_file_that_cannot_be_is_a_bad_request_and_leaves_nothing(tmp_path: Path) -> None:
    speech = Speech(TONE.tobytes(), 24_000, "tone", "w")
    for path in (tmp_path / "a", tmp_path / "a.exe", tmp_path / "no" / "a.wav"):
        with pytest.raises(BadRequest):
            speech.save(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("samples", [0, 1, 5, 100])
def test_a_fade_touches_only_the_ends_and_reaches_silence(samples: int) -> None:
    flat = np.full(samples, 10_000, dtype="<i2")
    both = np.frombuffer(faded(flat.tobytes(), at_start=True, at_end=True, length=20), dtype="<i2")
    assert len(both) == samples
    if samples:
        assert both[0] == both[-1] == 0
    if samples > 40:
        assert (both[20:-20] == 10_000).all()
