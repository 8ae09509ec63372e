"""What callers get: speech, chunks of it, and the results of a long row of lines.

Audio stays the bytes that came off the wire until somebody asks for numbers, so that a client which only
stores or forwards it pays for one join and never imports numpy.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..common.errors import BusError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BYTES_PER_SAMPLE = 2


class Speech:
    """One finished piece of speech.

    `pcm` is mono signed 16-bit little-endian at `sample_rate_hz`. `attempts` counts the workers that tried.
    `first_audio_s` is the time from the request to its first audio and `engine_s` the engine's own time,
    both 0 where unknown; `elapsed_s` is the time from the request to the last audio.
    """

    __slots__ = (
        "attempts",
        "elapsed_s",
        "engine",
        "engine_s",
        "first_audio_s",
        "pcm",
        "sample_rate_hz",
        "worker",
    )

    def __init__(
        self,
        pcm: bytes,
        sample_rate_hz: int,
        engine: str,
        worker: str,
        attempts: int = 1,
        first_audio_s: float = 0.0,
        engine_s: float = 0.0,
        elapsed_s: float = 0.0,
    ) -> None:
        self.pcm = pcm
        self.sample_rate_hz = sample_rate_hz
        self.engine = engine
        self.worker = worker
        self.attempts = attempts
        self.first_audio_s = first_audio_s
        self.engine_s = engine_s
        self.elapsed_s = elapsed_s

    @property
    def samples(self) -> NDArray[np.int16]:
        """The audio as an int16 array of shape (samples,); read-only, it shares memory with `pcm`."""
        return _samples(self.pcm)

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return len(self.pcm) / BYTES_PER_SAMPLE / self.sample_rate_hz

    def to_float(self) -> NDArray[np.float32]:
        """The audio as float32 in [-1, 1), shape (samples,)."""
        import numpy as np

        return self.samples.astype(np.float32) / np.float32(32768)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file whose format its suffix names: .wav, .flac, .ogg, .opus, .mp3 …

        The file appears whole or not at all. Raises `BadRequest` for a suffix or folder that will not do.
        """
        from .saving import save

        save(self, path)

    def __repr__(self) -> str:
        return (
            f"<Speech {self.duration_s:.2f} s at {self.sample_rate_hz} Hz by {self.engine} on {self.worker}>"
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a stream, in order. `pcm` is mono signed 16-bit little-endian; `bytes(chunk)` gives it too.

    `piece` counts the sentences of the text from 0. `last` is True where it is known already that nothing
    follows; otherwise only the end of the stream tells.
    """

    pcm: bytes
    sample_rate_hz: int
    engine: str
    worker: str
    piece: int = 0
    last: bool = False

    @property
    def samples(self) -> NDArray[np.int16]:
        """The audio as an int16 array of shape (samples,), read-only."""
        return _samples(self.pcm)

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return len(self.pcm) / BYTES_PER_SAMPLE / self.sample_rate_hz

    def __bytes__(self) -> bytes:
        return self.pcm

    def __len__(self) -> int:
        return len(self.pcm)


class Result:
    """What became of one line of `map`: either `speech` or `error` is None.

    `index` is the line's place in the input, from 0; `item` is the line as it was given; `jobs` are the ids
    of its jobs, one for each piece.
    """

    __slots__ = ("error", "index", "item", "jobs", "speech")

    def __init__(
        self,
        index: int,
        item: Any,
        speech: Speech | None,
        error: BusError | None,
        jobs: tuple[str, ...] = (),
    ) -> None:
        self.index = index
        self.item = item
        self.speech = speech
        self.error = error
        self.jobs = jobs

    def __repr__(self) -> str:
        return f"<Result {self.index} {self.error or self.speech!r}>"


def silence(seconds: float, sample_rate_hz: int) -> bytes:
    """PCM of nothing."""
    return bytes(BYTES_PER_SAMPLE * int(seconds * sample_rate_hz))


def faded(pcm: bytes, *, at_start: bool, at_end: bool, length: int) -> bytes:
    """Raise and lower the ends of a piece over `length` samples each, so that no join clicks.

    A straight line is enough at a few milliseconds. Plain Python, as the ends are some hundred samples.
    """
    import sys

    samples = array("h")
    samples.frombytes(pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    length = min(length, len(samples))
    for at in range(length):
        if at_start:
            samples[at] = samples[at] * at // length
        if at_end:
            samples[-1 - at] = samples[-1 - at] * at // length
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


def _samples(pcm: bytes) -> NDArray[np.int16]:
    import numpy as np

    # On the one kind of host where the wire's order is not the machine's, this copies.
    return np.frombuffer(pcm, dtype="<i2").astype(np.int16, copy=False)
