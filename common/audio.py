"""Speech as numbers and as files: decoding, encoding, resampling and joining.

On the bus speech is mono, either float32 in [-1, 1] (engines) or signed 16 bit (the wire, files, clients);
everything here turns one into the other or into a file format. What comes from outside is bounded in
bytes, in seconds as counted while decoding (headers lie) and in channels, and refused with a sentence.
numpy, soundfile and soxr are imported where they are used, so that a client that only sends text starts
fast.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .atomic import replacing
from .errors import BadRequest

if TYPE_CHECKING:
    import numpy as np
    import soxr
    from numpy.typing import NDArray

    Samples: TypeAlias = NDArray[np.float32]
    Pcm: TypeAlias = NDArray[np.int16]

MAX_DECODED_SECONDS: Final = 600.0
MAX_ENCODED_BYTES: Final = 128 * 1024 * 1024
MAX_CHANNELS: Final = 8
MIN_RATE_HZ: Final = 4_000
MAX_RATE_HZ: Final = 192_000
MAX_SAMPLE: Final = 1000.0
"""60 dB above what can be played: more comes of a broken file, and squared it is beyond all numbers."""
BLOCK_FRAMES: Final = 65_536
OPUS_RATES_HZ: Final = (8_000, 12_000, 16_000, 24_000, 48_000)
# Of the lower, MPEG-2 rates, libsndfile's variable bit rate makes frames that mpg123 complains about.
MP3_RATES_HZ: Final = (32_000, 44_100, 48_000)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Mono float32 audio, its rate, and whether the end was left out because a limit was reached."""

    samples: Samples
    rate_hz: int
    cut: bool = False


def decode(
    source: str | os.PathLike[str] | bytes,
    *,
    max_seconds: float = MAX_DECODED_SECONDS,
    max_bytes: int = MAX_ENCODED_BYTES,
    cut: bool = False,
) -> Decoded:
    """Decode a file or its bytes (WAV, FLAC, MP3, Ogg …, whatever libsndfile reads) to mono float32.

    Several channels are averaged. `cut=True` stops at `max_seconds` instead of refusing. Raises
    `BadRequest` for what is missing, not audio, empty, too long, or holds values that no sound has.
    """
    import numpy as np
    import soundfile

    data = source if isinstance(source, bytes) else _read(Path(source), max_bytes)
    if not data:
        raise BadRequest("the audio file is empty: give a recording in WAV, FLAC, MP3 or Ogg")
    if len(data) > max_bytes:
        raise BadRequest(
            f"the audio has {len(data):,} bytes, more than {max_bytes:,}: give a shorter recording"
        )
    blocks: list[NDArray[np.float32]] = []
    frames = 0
    try:
        with soundfile.SoundFile(_Steady(data)) as file:
            rate_hz, channels = int(file.samplerate), int(file.channels)
            if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ or channels > MAX_CHANNELS:
                raise BadRequest(
                    f"the audio has {channels} channels at {rate_hz} Hz: "
                    f"give at most {MAX_CHANNELS} channels at {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz"
                )
            limit = int(max_seconds * rate_hz)
            while frames <= limit:
                block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
                if not len(block):
                    break
                frames += len(block)
                blocks.append(block.mean(axis=1, dtype=np.float32))
    except (RuntimeError, TypeError, ValueError) as error:  # libsndfile's own error is a RuntimeError
        raise BadRequest(
            f"this is not audio that can be decoded ({_reason(error)}): give WAV, FLAC, MP3 or Ogg"
        ) from None
    if not frames:
        raise BadRequest("the audio file holds no sound: give a recording in WAV, FLAC, MP3 or Ogg")
    if frames > limit and not cut:
        raise BadRequest(f"the audio is longer than {max_seconds:g} s: give a shorter recording")
    samples = np.concatenate(blocks)[:limit]
    # What is not a number is no less than this either.
    if not np.abs(samples).max() <= MAX_SAMPLE:
        raise BadRequest("the audio holds values that no sound has: export it again as 16-bit WAV")
    return Decoded(samples, rate_hz, frames > limit)


def to_s16(samples: NDArray[Any]) -> Pcm:
    """Round float samples to signed 16 bit, clipping beyond [-1, 1); signed 16 bit passes unchanged.

    The scale is 2**15, as libsndfile's, so 16-bit audio survives the way to float32 and back bit for bit.
    """
    import numpy as np

    if samples.dtype == np.int16:
        return samples
    # A NaN from an engine's overflow would become an arbitrary, loud number: silence does less harm.
    bounded = np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)
    return np.minimum(np.rint(bounded * 32768.0), 32767.0).astype(np.int16)


def to_float(samples: NDArray[Any]) -> Samples:
    """Turn signed 16 bit into float32 in [-1, 1); float samples are only made float32."""
    import numpy as np

    if samples.dtype == np.int16:
        return samples.astype(np.float32) * np.float32(1.0 / 32768.0)
    return np.asarray(samples, dtype=np.float32)


def resample(samples: NDArray[Any], from_hz: int, to_hz: int) -> Samples:
    """Resample a whole signal with soxr's high quality; float32 out, length scaled by the ratio."""
    whole = to_float(samples)
    if from_hz == to_hz or not whole.size:
        return whole
    import soxr

    return soxr.resample(whole, from_hz, to_hz)


class StreamResampler:
    """Resamples a stream piece by piece; together the pieces are what `resample` gives for the whole."""

    __slots__ = ("_stream",)

    def __init__(self, from_hz: int, to_hz: int) -> None:
        import soxr

        self._stream: soxr.ResampleStream | None = None
        if from_hz != to_hz:
            self._stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32")

    def feed(self, samples: NDArray[Any], *, last: bool = False) -> Samples:
        """Take the next piece (float or 16 bit) and return what is ready; with `last`, all that is left."""
        piece = to_float(samples)
        return piece if self._stream is None else self._stream.resample_chunk(piece, last=last)


def join(
    pieces: Iterable[NDArray[Any]], rate_hz: int, *, overlap_ms: float = 5.0, pause_ms: float = 0.0
) -> NDArray[Any]:
    """Join pieces of speech without clicks; 16-bit pieces give 16 bit, others float32.

    Neighbours overlap by `overlap_ms` with an equal-power crossfade, which keeps the loudness of sounds
    that have nothing to do with each other. With a pause, the pieces are faded out and in around it.
    """
    import numpy as np

    given = [piece for piece in pieces if piece.size]
    if not given:
        return np.zeros(0, np.float32)
    whole = all(piece.dtype == np.int16 for piece in given)
    floats = [to_float(piece) for piece in given]
    overlap = int(rate_hz * overlap_ms / 1000)
    out = [floats[0]]
    for piece in floats[1:]:
        size = min(overlap, out[-1].size, piece.size)
        phase = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(np.pi / 2 / max(size, 1))
        tail = out[-1][out[-1].size - size :] * np.cos(phase)
        head = piece[:size] * np.sin(phase)
        out[-1] = out[-1][: out[-1].size - size]
        seam = (
            [tail, np.zeros(int(rate_hz * pause_ms / 1000), np.float32), head] if pause_ms else [tail + head]
        )
        out += [*seam, piece[size:]]
    joined = np.concatenate(out)
    return to_s16(joined) if whole else joined


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: its media type and the function that makes its bytes of 16-bit samples."""

    media_type: str
    encode: Callable[[Pcm, int], bytes]


def encode(samples: NDArray[Any], rate_hz: int, format: str = "wav") -> bytes:
    """Encode mono samples (float or 16 bit) in one of `FORMATS`.

    MP3 and Opus know some rates only; other rates are resampled to the next higher one. Raises
    `BadRequest` for an unknown format or one that the installed libsndfile cannot write.
    """
    known = FORMATS.get(format)
    if known is None:
        raise BadRequest(f"no audio format is called {format!r}: use one of {', '.join(FORMATS)}")
    return known.encode(to_s16(samples), rate_hz)


def write_wav(path: str | os.PathLike[str], samples: NDArray[Any], rate_hz: int) -> None:
    """Write mono 16-bit WAV, whole or not at all. Raises `OSError` where the disk refuses."""
    with replacing(path) as file:
        file.write(encode(samples, rate_hz, "wav"))


def _wav(samples: Pcm, rate_hz: int) -> bytes:
    import wave

    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(_pcm(samples, rate_hz))
    return buffer.getvalue()


def _pcm(samples: Pcm, rate_hz: int) -> bytes:
    return samples.astype("<i2", copy=False).tobytes()


def _sndfile(container: str, subtype: str, rates_hz: tuple[int, ...] = ()) -> Callable[[Pcm, int], bytes]:
    def encoded(samples: Pcm, rate_hz: int) -> bytes:
        import soundfile

        target_hz = rate_hz
        if rates_hz and rate_hz not in rates_hz:
            target_hz = min((rate for rate in rates_hz if rate > rate_hz), default=rates_hz[-1])
            samples = to_s16(resample(samples, rate_hz, target_hz))
        buffer = io.BytesIO()
        try:
            with soundfile.SoundFile(
                buffer, "w", samplerate=target_hz, channels=1, format=container, subtype=subtype
            ) as file:
                # In blocks: libsndfile's Ogg encoders keep a whole write on the stack and overflow it.
                for start in range(0, samples.size, BLOCK_FRAMES):
                    file.write(samples[start : start + BLOCK_FRAMES])
        except (RuntimeError, ValueError) as error:
            raise BadRequest(
                f"{container} cannot be written at {rate_hz} Hz here ({_reason(error)}): choose wav"
            ) from None
        return buffer.getvalue()

    return encoded


FORMATS: Final[Mapping[str, Format]] = {
    "wav": Format("audio/wav", _wav),
    "flac": Format("audio/flac", _sndfile("FLAC", "PCM_16")),
    "mp3": Format("audio/mpeg", _sndfile("MP3", "MPEG_LAYER_III", MP3_RATES_HZ)),
    "opus": Format("audio/ogg; codecs=opus", _sndfile("OGG", "OPUS", OPUS_RATES_HZ)),
    "pcm": Format("audio/pcm", _pcm),
}
"What `encode` can make; `pcm` is bare signed 16 bit, little-endian."


class _Steady(io.BytesIO):
    """Bytes in which a broken file may be sought: an error would be printed, with its traceback, by cffi."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place if there is one."""
        with suppress(ValueError, OverflowError):
            return super().seek(offset, whence)
        return self.tell()


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise BadRequest(f"the audio file {str(path)!r} cannot be read: {error.strerror or error}") from None


def _reason(error: Exception) -> str:
    """The library's words without its prefix about the object it was reading."""
    return str(error).rpartition(": ")[2].strip().rstrip(".") or type(error).__name__
