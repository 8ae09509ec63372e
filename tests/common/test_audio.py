"""Audio: 16 bit survives every way round, and nothing hostile gets past the decoder."""

from __future__ import annotations

import io
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from voicebus.common import audio
from voicebus.common.errors import BadRequest
from voicebus.common.levels import measure

RATE = 24_000


def tone(seconds: float, hz: float = 220.0, rate: int = RATE, gain: float = 0.5) -> Any:
    return (gain * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def wav(samples: Any, rate: int = RATE, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", **kwargs)
    return buffer.getvalue()


@given(arrays(np.int16, st.integers(0, 300)))
def test_16_bit_survives_float_and_wav_bit_for_bit(samples: Any) -> None:
    assert np.array_equal(audio.to_s16(audio.to_float(samples)), samples)
    if samples.size:
        decoded = audio.decode(audio.encode(audio.to_float(samples), RATE, "wav"))
        assert decoded.rate_hz == RATE
        assert np.array_equal(audio.to_s16(decoded.samples), samples)


@given(
    arrays(np.float32, st.integers(0, 100), elements=st.floats(width=32, allow_nan=True, allow_infinity=True))
)
def test_any_float_becomes_16_bit_within_half_a_step(samples: Any) -> None:
    result = audio.to_s16(samples).astype(np.float64)
    expected = np.clip(
        np.nan_to_num(samples.astype(np.float64), nan=0.0, posinf=1, neginf=-1) * 32768.0, -32768.0, 32767.0
    )
    assert np.abs(result - expected).max(initial=0.0) <= 0.5


@pytest.mark.parametrize("name", audio.FORMATS)
@pytest.mark.parametrize("rate", [22_050, 24_000])
def test_every_format_gives_the_speech_back(name: str, rate: int) -> None:
    samples = tone(3.0, rate=rate)
    data = audio.encode(samples, rate, name)
    if name == "pcm":
        assert data == audio.to_s16(samples).tobytes()
        return
    decoded = audio.decode(data)
    assert decoded.samples.size / decoded.rate_hz == pytest.approx(3.0, abs=0.1)
    assert measure(decoded.samples, decoded.rate_hz).rms_dbfs == pytest.approx(
        measure(samples, rate).rms_dbfs, abs=0.5
    )


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(BadRequest, match=r"wav, flac, mp3, opus, pcm"):
        audio.encode(tone(0.1), RATE, "wma")


def lying_wav() -> bytes:
    """A second of sound whose header promises four gigabytes."""
    data = bytearray(wav(audio.to_s16(tone(1.0))))
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", 0xFFFFFFF0)
    return bytes(data)


def test_a_header_that_lies_costs_only_what_is_there() -> None:
    assert audio.decode(lying_wav(), max_seconds=2.0).samples.size == RATE


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"RIFF", "not audio"),
        (b"this is a letter, not a song\n" * 50, "not audio"),
        (wav(np.zeros(0, np.float32)), "no sound"),
        (wav(tone(3.0)), "longer than 2 s"),
        (wav(np.zeros((100, 9), np.float32)), "9 channels"),
        (wav(np.full(RATE, np.nan, np.float32), subtype="FLOAT"), "no sound has"),
        (wav(np.full(RATE, 3e38, np.float32), subtype="FLOAT"), "no sound has"),
        (wav(tone(1.0, rate=1000), rate=1000), "1000 Hz"),
        (bytes(3_000_000), "more than 2,000,000"),
    ],
)
def test_what_is_not_usable_audio_is_refused_with_a_remedy(data: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as refused:
        audio.decode(data, max_seconds=2.0, max_bytes=2_000_000)
    assert ": " in refused.value.message
    assert "\n" not in refused.value.message


def test_a_broken_file_is_refused_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """libsndfile sought a place before the beginning, and cffi printed what Python said of that."""
    aiff = io.BytesIO()
    soundfile.write(aiff, audio.to_s16(tone(0.1)), RATE, format="AIFF")
    broken = bytearray(aiff.getvalue())
    broken[38] = 0xFF
    with suppress(BadRequest):
        audio.decode(bytes(broken))
    assert capfd.readouterr().err == ""


def test_hours_of_silence_in_a_small_file_cost_no_more_than_is_taken() -> None:
    file, rate_hz = io.BytesIO(), 8_000
    with soundfile.SoundFile(file, "w", rate_hz, 1, format="FLAC", subtype="PCM_16") as out:
        for _ in range(6 * 3600 * rate_hz // 65_536):
            out.write(np.zeros(65_536, np.int16))
    assert file.tell() < 6_000_000
    tracemalloc.start()
    decoded = audio.decode(file.getvalue(), max_seconds=10.0, cut=True)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert decoded.samples.size == 10 * rate_hz
    assert most_bytes < 10_000_000
    with pytest.raises(BadRequest, match="longer than 10 s"):
        audio.decode(file.getvalue(), max_seconds=10.0)


def test_a_file_that_is_not_there_or_is_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(BadRequest, match="cannot be read"):
            audio.decode(path)


def test_channels_are_averaged_and_a_long_recording_can_be_cut() -> None:
    stereo = np.stack([tone(3.0), np.zeros(3 * RATE, np.float32)], axis=1)
    decoded = audio.decode(wav(stereo, subtype="FLOAT"), max_seconds=2.0, cut=True)
    assert decoded.cut
    assert np.allclose(decoded.samples, tone(2.0) / 2, atol=1e-6)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "speech.wav"
    audio.write_wav(path, tone(0.5), RATE)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        audio.write_wav(path, tone(1.0), RATE)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["speech.wav"]


@given(
    st.lists(st.integers(1, 4000), max_size=12),
    st.sampled_from([(24_000, 48_000), (48_000, 16_000), (22_050, 24_000)]),
)
def test_a_stream_resampled_in_pieces_is_the_whole_resampled(cuts: list[int], rates: tuple[int, int]) -> None:
    from_hz, to_hz = rates
    signal = tone(0.5, rate=from_hz)
    stream = audio.StreamResampler(from_hz, to_hz)
    ends = np.cumsum(cuts)
    pieces = [stream.feed(piece) for piece in np.split(signal, ends[ends < signal.size])]
    pieces.append(stream.feed(signal[:0], last=True))
    joined, whole = np.concatenate(pieces), audio.resample(signal, from_hz, to_hz)
    assert joined.size == whole.size
    assert np.abs(joined - whole).max() < 1e-4


@pytest.mark.parametrize("pause_ms", [0.0, 80.0])
def test_pieces_are_joined_without_a_click(pause_ms: float) -> None:
    pieces = [tone(0.2, hz)[: 4800 - cut] for hz, cut in ((200, 13), (310, 29), (250, 0))]
    click = np.abs(np.diff(np.concatenate(pieces))).max()

    joined = audio.join(pieces, RATE, overlap_ms=5.0, pause_ms=pause_ms)

    steepest = max(np.abs(np.diff(piece)).max() for piece in pieces)
    assert click > 4 * steepest
    assert np.abs(np.diff(joined)).max() < 2 * steepest
    seam = 120 if not pause_ms else -int(RATE * pause_ms / 1000)
    assert joined.size == sum(piece.size for piece in pieces) - 2 * seam
    assert audio.join([audio.to_s16(piece) for piece in pieces], RATE).dtype == np.int16


@given(st.lists(st.integers(0, 200), max_size=6), st.floats(0, 20), st.sampled_from([0.0, 3.0]))
def test_joining_pieces_of_any_length_never_fails(
    sizes: list[int], overlap_ms: float, pause_ms: float
) -> None:
    pieces = [np.ones(size, np.float32) for size in sizes]
    joined = audio.join(pieces, 8000, overlap_ms=overlap_ms, pause_ms=pause_ms)
    assert np.isfinite(joined).all()
    assert np.abs(joined).max(initial=0.0) <= 1.5
