"""Every format piece by piece: what comes out is well-formed, whole, at the right rate, and comes early."""

from __future__ import annotations

import io
import wave

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from voicebus.common.errors import BadRequest
from voicebus.edge.encoders import OPENAI_OUTPUTS, Output, named_output, wav_header, with_length

RATES_HZ = (16_000, 22_050, 24_000, 44_100, 48_000)
SECONDS = 2.0


def sweep(rate_hz: int, seconds: float = SECONDS) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    return (8000 * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype(np.int16)


def pieces(output: Output, rate_hz: int, size: int = 2400) -> list[bytes]:
    encoder = output.make(rate_hz)
    samples = sweep(rate_hz)
    parts = [encoder.feed(samples[at : at + size]) for at in range(0, samples.size, size)]
    return [*parts, encoder.finish()]


def decoded(data: bytes) -> tuple[float, int]:
    """Seconds and rate, by FFmpeg."""
    with av.open(io.BytesIO(data), "r") as file:
        stream = file.streams.audio[0]
        samples = sum(frame.samples for frame in file.decode(stream))
        return samples / stream.rate, stream.rate


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("name", ["mp3", "opus", "aac", "flac", "wav"])
def test_a_file_has_all_that_was_said(name: str, rate_hz: int) -> None:
    seconds, _ = decoded(b"".join(pieces(OPENAI_OUTPUTS[name], rate_hz)))
    # The padding of a codec's first and last frames: MP3 two of 1,152, AAC of 1,024, Opus 80 ms at most.
    assert seconds == pytest.approx(SECONDS, abs=0.12)


@pytest.mark.parametrize("name", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_the_first_bytes_come_long_before_the_end(name: str) -> None:
    """Of what has left when a quarter was fed, a player can already play nearly all."""
    parts = pieces(OPENAI_OUTPUTS[name], 24_000)
    quarter = b"".join(parts[: len(parts) // 4])
    seconds = len(quarter) / 48_000 if name == "pcm" else decoded(quarter)[0]
    assert 0.7 * SECONDS / 4 < seconds <= SECONDS / 4 + 0.01


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_pcm_is_24_khz_whatever_the_engine(rate_hz: int) -> None:
    data = b"".join(pieces(OPENAI_OUTPUTS["pcm"], rate_hz))
    assert len(data) / 2 / 24_000 == pytest.approx(SECONDS, abs=0.01)


def test_a_streamed_wav_opens_in_wave_and_soundfile_with_its_samples() -> None:
    data = b"".join(pieces(OPENAI_OUTPUTS["wav"], 22_050))
    samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate_hz == 22_050
    assert np.array_equal(samples, sweep(22_050))
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (22_050, 1, 2)
        assert file.readframes(file.getnframes()) == sweep(22_050).tobytes()


@pytest.mark.parametrize("name", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_a_whole_file_tells_its_length_and_is_else_the_same(name: str) -> None:
    """libsndfile took a FLAC without one for longer than all memory."""
    data = b"".join(pieces(OPENAI_OUTPUTS[name], 22_050))
    whole = with_length(data, sweep(22_050).size)
    if name not in ("wav", "flac"):
        assert whole == data
        return
    assert whole[44:] == data[44:]
    samples, rate_hz = soundfile.read(io.BytesIO(whole), dtype="int16")
    assert rate_hz == 22_050
    assert np.array_equal(samples, sweep(22_050))


def test_flac_is_lossless() -> None:
    data = b"".join(pieces(OPENAI_OUTPUTS["flac"], 24_000))
    with av.open(io.BytesIO(data), "r") as file:
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in file.decode(audio=0)])
    assert np.array_equal(samples.astype(np.int16), sweep(24_000))


@given(st.lists(st.integers(0, 4000), max_size=12))
@settings(max_examples=30)
def test_how_speech_is_cut_changes_no_sample(sizes: list[int]) -> None:
    samples = sweep(24_000)
    encoder = OPENAI_OUTPUTS["wav"].make(24_000)
    data, at = b"", 0
    for size in sizes:
        data += encoder.feed(samples[at : at + size])
        at += size
    data += encoder.feed(samples[at:]) + encoder.finish()
    assert data == wav_header(24_000) + samples.tobytes()


@pytest.mark.parametrize("name", list(OPENAI_OUTPUTS))
def test_nothing_said_is_a_file_without_sound(name: str) -> None:
    encoder = OPENAI_OUTPUTS[name].make(24_000)
    data = encoder.finish()
    if name == "wav":
        assert soundfile.read(io.BytesIO(data))[0].size == 0


@pytest.mark.parametrize(
    ("named", "rate_hz"),
    [(("mp3", 44_100, 128_000), 44_100), (("pcm", 8_000, None), 8_000), (("ulaw", 8_000, None), 8_000)],
)
def test_a_named_format_has_the_rate_it_names(named: tuple[str, int, int | None], rate_hz: int) -> None:
    data = b"".join(pieces(named_output(*named), 24_000))
    if named[0] == "mp3":
        assert decoded(data) == (pytest.approx(SECONDS, abs=0.12), rate_hz)
    else:
        width = 2 if named[0] == "pcm" else 1
        assert len(data) / width / rate_hz == pytest.approx(SECONDS, abs=0.01)


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(BadRequest, match="codec"):
        named_output("midi", 8_000, None)
