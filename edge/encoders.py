"""Audio formats as they leave: each encoder takes speech piece by piece and gives out what is ready.

`common/audio.py` makes whole files; here the first bytes leave while the engine still speaks, and nothing can
be mended afterwards. So containers are written the way players expect of a live stream: MP3 without the frame
that would tell its length, Ogg in pages of a tenth of a second, WAV with the length that means "until it
ends". Compressed formats are PyAV's, that is FFmpeg's: libsndfile has no AAC and seeks in its MP3 and FLAC.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..common.audio import StreamResampler, to_s16
from ..common.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pcm = NDArray[np.int16]

UNKNOWN_SIZE: Final = 0xFFFFFFFF
"""As FFmpeg writes it into a pipe, and libsndfile, FFmpeg and browsers read it: until the stream ends."""
OPUS_RATES_HZ: Final = (8_000, 12_000, 16_000, 24_000, 48_000)


class Encoder(Protocol):
    """Takes mono 16-bit samples at the rate it was made for."""

    def feed(self, samples: Pcm) -> bytes:
        """The bytes that are ready."""
        ...

    def finish(self) -> bytes:
        """The rest; the encoder is then used up."""
        ...


class Raw:
    """Bare samples, little-endian."""

    def __init__(self, _rate_hz: int) -> None:
        pass

    def feed(self, samples: Pcm) -> bytes:
        """The samples as they are."""
        return samples.astype("<i2", copy=False).tobytes()

    def finish(self) -> bytes:
        """Nothing is kept back."""
        return b""


class Wav(Raw):
    """The same behind a header."""

    def __init__(self, rate_hz: int) -> None:
        super().__init__(rate_hz)
        self._header = wav_header(rate_hz)

    def feed(self, samples: Pcm) -> bytes:
        """The header before the first ones."""
        header, self._header = self._header, b""
        return header + super().feed(samples)

    def finish(self) -> bytes:
        """The header of a file with no samples."""
        return self._header


def wav_header(rate_hz: int, size_bytes: int | None = None) -> bytes:
    """44 bytes: mono, 16 bit, with so many bytes of samples; None: until the stream ends."""
    riff = UNKNOWN_SIZE if size_bytes is None else size_bytes + 36
    data = UNKNOWN_SIZE if size_bytes is None else size_bytes
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + struct.pack("<4sI", b"data", data)


def with_length(data: bytes, samples: int) -> bytes:
    """A whole file; WAV and FLAC, written as ones without end, then tell their length.

    `samples` is that of a FLAC: its STREAMINFO has it in the last 36 bits of the 64 at byte 18 (RFC 9639).
    """
    if data.startswith(b"RIFF") and data[36:44] == wav_header(0)[36:]:
        (rate_hz,) = struct.unpack_from("<I", data, 24)
        return wav_header(rate_hz, len(data) - 44) + data[44:]
    if data.startswith(b"fLaC"):
        (told,) = struct.unpack_from(">Q", data, 18)
        return data[:18] + struct.pack(">Q", told & ~(2**36 - 1) | samples) + data[26:]
    return data


class _Outlet:
    """What FFmpeg writes to; it cannot seek, and FFmpeg is told so by the lack of the method."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


class Ffmpeg:
    """A codec in a container."""

    def __init__(
        self,
        rate_hz: int,
        codec: str,
        container: str,
        options: Mapping[str, str],
        bit_rate: int | None = None,
    ) -> None:
        import av

        self._frame_of = av.AudioFrame.from_ndarray
        self._outlet = _Outlet()
        self._file: Any = av.open(
            self._outlet, "w", format=container, container_options={"flush_packets": "1", **options}
        )
        self._stream: Any = self._file.add_stream(codec, rate=rate_hz, layout="mono")
        if bit_rate is not None:
            self._stream.bit_rate = bit_rate
        self._rate_hz = rate_hz
        self._at = 0

    def feed(self, samples: Pcm) -> bytes:
        """What the codec has made so far."""
        if samples.size:
            frame = self._frame_of(samples.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate = self._rate_hz
            frame.pts = self._at
            self._at += samples.size
            self._file.mux(self._stream.encode(frame))
        return self._outlet.take()

    def finish(self) -> bytes:
        """What the codec kept for its last frame, and the container's end."""
        self._file.mux(self._stream.encode(None))
        self._file.close()
        return self._outlet.take()


@dataclass(frozen=True, slots=True)
class Output:
    """A format of the API. `rates_hz` are those it can have, the first the usual; empty: any."""

    name: str
    media_type: str
    make: Callable[[int], Encoder]
    rates_hz: tuple[int, ...] = ()


class Resampled:
    """Another encoder at a rate that the engine does not have."""

    def __init__(self, from_hz: int, to_hz: int, inner: Encoder) -> None:
        self._resampler = StreamResampler(from_hz, to_hz)
        self._inner = inner

    def feed(self, samples: Pcm) -> bytes:
        """The same at the encoder's rate."""
        return self._inner.feed(to_s16(self._resampler.feed(samples)))

    def finish(self) -> bytes:
        """What both keep."""
        import numpy as np

        rest = to_s16(self._resampler.feed(np.zeros(0, np.int16), last=True))
        return self._inner.feed(rest) + self._inner.finish()


def _at(rates_hz: tuple[int, ...], make: Callable[[int], Encoder]) -> Callable[[int], Encoder]:
    """Resample where the engine's rate is none of these; to the next higher one, else to the highest."""

    def made(rate_hz: int) -> Encoder:
        if not rates_hz or rate_hz in rates_hz:
            return make(rate_hz)
        to_hz = min((rate for rate in rates_hz if rate > rate_hz), default=max(rates_hz))
        return Resampled(rate_hz, to_hz, make(to_hz))

    return made


def _ffmpeg(
    codec: str, container: str, options: Mapping[str, str] | None = None, bit_rate: int | None = None
) -> Callable[[int], Encoder]:
    return lambda rate_hz: Ffmpeg(rate_hz, codec, container, options or {}, bit_rate)


MP3_RATES_HZ: Final = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
AAC_RATES_HZ: Final = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_LIVE_MP3: Final = {"write_xing": "0", "id3v2_version": "0"}
_LIVE_OGG: Final = {"page_duration": "100000"}

OPENAI_OUTPUTS: Final[Mapping[str, Output]] = {
    output.name: output
    for output in (
        Output("mp3", "audio/mpeg", _at(MP3_RATES_HZ, _ffmpeg("libmp3lame", "mp3", _LIVE_MP3, 96_000))),
        Output("opus", "audio/ogg", _at(OPUS_RATES_HZ, _ffmpeg("libopus", "ogg", _LIVE_OGG, 48_000))),
        Output("aac", "audio/aac", _at(AAC_RATES_HZ, _ffmpeg("aac", "adts", None, 96_000))),
        Output("flac", "audio/flac", _ffmpeg("flac", "flac")),
        Output("wav", "audio/wav", Wav),
        # OpenAI's pcm has no header that could tell another rate.
        Output("pcm", "audio/pcm", _at((24_000,), Raw)),
    )
}


def named_output(codec: str, rate_hz: int, bit_rate: int | None) -> Output:
    """A format at a rate that the client chose. Raises `BadRequest`."""
    makers: dict[str, tuple[str, Callable[[int], Encoder]]] = {
        "mp3": ("audio/mpeg", _ffmpeg("libmp3lame", "mp3", _LIVE_MP3, bit_rate)),
        "opus": ("audio/ogg", _ffmpeg("libopus", "ogg", _LIVE_OGG, bit_rate)),
        "pcm": ("audio/pcm", Raw),
        "wav": ("audio/wav", Wav),
        "ulaw": ("audio/basic", _ffmpeg("pcm_mulaw", "mulaw")),
        "alaw": ("audio/x-alaw-basic", _ffmpeg("pcm_alaw", "alaw")),
    }
    found = makers.get(codec)
    if found is None:
        raise BadRequest(f"no codec is called {codec!r}: choose one of {', '.join(makers)}")
    media_type, make = found
    return Output(f"{codec}_{rate_hz}", media_type, _at((rate_hz,), make), (rate_hz,))
