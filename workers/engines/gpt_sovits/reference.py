"""What is kept of a voice: the piece of its recording that the server accepts, and what is said in it.

GPT-SoVITS takes references of 3 to 10 seconds and refuses all others. A longer recording loses its silent
edges, and if that is not enough it is cut at pauses to the stretch with the most speech. What was said in
the whole is not what is said in the stretch, and a transcript that does not fit makes the model stammer or
leave words out, so it is dropped. Without one, models of version 1, 2 and 2Pro take the timbre alone from
the reference, and those of version 3 and 4 refuse it.

Nothing in a voice depends on the server or the settings, so it survives both: the file is placed where it is
needed, and again if it is gone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ....common.audio import encode, resample, to_float, to_s16
from ....common.errors import BadRequest
from ...engine import Arrays, Reference, Samples

if TYPE_CHECKING:
    from ....common.audio import Pcm

LEAST_S: Final = 3.0
LONGEST_S: Final = 9.95
"""The server measures after resampling, which may add a frame: keep clear of its limits on both sides."""
FILLED_S: Final = 3.1
MAX_STORED_RATE_HZ: Final = 48_000
SILENT_PEAK: Final = 10 ** (-55 / 20)

FRAME_S: Final = 0.02
QUIET_BELOW_LOUD_DB: Final = 30.0
"A frame is quiet that is this much below the loud ones."
PAUSE_FRAMES: Final = 8
"0.16 s: shorter quiet is the closure of a plosive, not a place to cut."
EDGE_S: Final = 0.2
"Quiet that stays at each end, where there is as much."
FADE_S: Final = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """A voice as this engine keeps it: mono 16 bit, `text` empty where it is not known."""

    pcm: Pcm
    rate_hz: int
    language: str
    text: str
    wav: bytes = field(init=False, repr=False)
    file_name: str = field(init=False)
    "Its content's hash: no name of a user's ever becomes a path."

    def __post_init__(self) -> None:
        wav = encode(self.pcm, self.rate_hz, "wav")
        object.__setattr__(self, "wav", wav)
        object.__setattr__(self, "file_name", f"{hashlib.sha256(wav).hexdigest()}.wav")

    def pack(self) -> Arrays:
        """As arrays: what the file holds, and its words as UTF-8."""
        return {
            "pcm": self.pcm,
            "rate_hz": np.array(self.rate_hz),
            "language": np.frombuffer(self.language.encode(), np.uint8),
            "text": np.frombuffer(self.text.encode(), np.uint8),
        }

    @classmethod
    def unpack(cls, arrays: Arrays) -> Voice:
        """Back from arrays. Raises what a damaged file leads to."""
        pcm = arrays["pcm"]
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise ValueError("the voice's audio is not mono 16 bit")
        return cls(
            pcm,
            int(arrays["rate_hz"]),
            arrays["language"].tobytes().decode(),
            arrays["text"].tobytes().decode(),
        )


def learn(reference: Reference) -> Voice:
    """Cut a recording to what the server accepts. Raises `BadRequest` for one it cannot use."""
    samples = to_float(np.asarray(reference.samples))
    rate_hz = reference.sample_rate
    if not samples.size or not np.isfinite(samples).all() or float(np.abs(samples).max()) < SILENT_PEAK:
        raise BadRequest("the reference is silent; record it again, closer to the microphone")
    if samples.size < LEAST_S * rate_hz:
        raise BadRequest(
            f"the reference is {samples.size / rate_hz:.1f} s long and GPT-SoVITS needs {LEAST_S:g} to 10 s:"
            " record a full sentence or two"
        )
    if rate_hz > MAX_STORED_RATE_HZ:
        samples, rate_hz = resample(samples, rate_hz, MAX_STORED_RATE_HZ), MAX_STORED_RATE_HZ
    start, end, fits = window(samples, rate_hz)
    taken = samples[start:end].copy()
    _fade(taken, rate_hz, at_start=start > 0, at_end=end < samples.size)
    lacking = round(FILLED_S * rate_hz) - taken.size
    if lacking > 0:
        taken = np.concatenate([taken, np.zeros(lacking, np.float32)])
    text = " ".join((reference.text or "").split()) if fits else ""
    return Voice(to_s16(taken), rate_hz, reference.language, text)


def window(samples: Samples, rate_hz: int) -> tuple[int, int, bool]:
    """Choose what to take of a recording of at least `LEAST_S`: from, to, whether all words are in it."""
    longest = int(LONGEST_S * rate_hz)
    if samples.size <= longest:
        return 0, samples.size, True
    loud = _loud_frames(samples, rate_hz)
    hop = int(FRAME_S * rate_hz)
    heard = np.flatnonzero(loud)
    edge = int(EDGE_S * rate_hz)
    first = max(0, int(heard[0]) * hop - edge)
    last = min(samples.size, (int(heard[-1]) + 1) * hop + edge)
    if last - first <= longest:
        # Grown back to what the server needs, where little is said in much silence.
        last = min(samples.size, max(last, first + round(FILLED_S * rate_hz)))
        return min(first, max(0, last - round(FILLED_S * rate_hz))), last, True
    start, end = _most_speech(loud, hop, samples.size, longest, int(LEAST_S * rate_hz))
    return start, end, False


def _most_speech(loud: NDArray[np.bool_], hop: int, size: int, longest: int, least: int) -> tuple[int, int]:
    """Of all stretches between two pauses, the one in which most is said; without any, the fullest."""
    spoken = np.concatenate([[0], np.cumsum(loud)])
    cuts = np.array(sorted({0, *(frame * hop for frame in _cuts(loud)), min(size, loud.size * hop)}))
    best, found = -1, (0, 0)
    for start in cuts:
        for end in cuts[(cuts - start >= least) & (cuts - start <= longest)]:
            said = int(spoken[end // hop] - spoken[start // hop])
            if said > best:
                best, found = said, (int(start), int(end))
    if best > 0:
        return found
    frames = longest // hop
    fullest = int(np.argmax(spoken[frames:] - spoken[: spoken.size - frames]))
    return fullest * hop, fullest * hop + longest


def _cuts(loud: NDArray[np.bool_]) -> list[int]:
    """Where to cut, in frames: behind the beginning of each pause and before its end, or in its middle."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], loud, [True]]).astype(np.int8)))
    most = round(EDGE_S / FRAME_S)
    found: list[int] = []
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        if end - begin >= PAUSE_FRAMES:
            kept = min(most, int(end - begin) // 2)
            found += [int(begin) + kept, int(end) - kept]
    return found


def _loud_frames(samples: Samples, rate_hz: int) -> NDArray[np.bool_]:
    hop = int(FRAME_S * rate_hz)
    frames = samples[: samples.size // hop * hop].reshape(-1, hop)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    reference_power = float(np.percentile(power, 95)) or float(power.max())
    return power > max(reference_power * 10 ** (-QUIET_BELOW_LOUD_DB / 10), 1e-12)


def _fade(samples: Samples, rate_hz: int, *, at_start: bool, at_end: bool) -> None:
    """Let a cut begin and end in silence: a step would be a click in every prompt."""
    size = int(FADE_S * rate_hz)
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    if at_start:
        samples[:size] *= ramp
    if at_end:
        samples[-size:] *= ramp[::-1]
