"""What a recording must be like for a voice to be learnt from it, and how it is stored.

The limits are those under which cloning engines give their best: GPT-SoVITS wants 3 to 10 s, XTTS gains
little beyond 30 s, speaker encoders settle within 5 s. A refusal names what was measured and what to do,
because whoever records with a telephone or a headset can usually mend it at once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .audio import decode, encode, resample
from .errors import BadRequest
from .levels import Levels, measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_SPEECH_S: Final = 3.0
MIN_VOICED_S: Final = 1.0
MAX_SECONDS: Final = 60.0
"Of a longer recording the first minute is used."
MIN_LEVEL_DBFS: Final = -45.0
SILENT_DBFS: Final = -65.0
MAX_CLIPPED: Final = 0.01
MIN_RATE_HZ: Final = 16_000
MAX_STORED_RATE_HZ: Final = 48_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recording that passed: the bytes to store (mono 16-bit WAV) and what was measured."""

    wav: bytes
    rate_hz: int
    levels: Levels
    cut: bool
    "True where only the first `MAX_SECONDS` were kept."


def prepare_reference(source: str | os.PathLike[str] | bytes) -> Prepared:
    """Decode, check and convert a recording for the store: mono 16 bit at its own rate, 48 kHz at most.

    Raises `BadRequest` for anything that is not a usable recording of speech.
    """
    decoded = decode(source, max_seconds=MAX_SECONDS, cut=True)
    levels = check_reference(decoded.samples, decoded.rate_hz)
    rate_hz = min(decoded.rate_hz, MAX_STORED_RATE_HZ)
    samples = resample(decoded.samples, decoded.rate_hz, rate_hz)
    return Prepared(encode(samples, rate_hz, "wav"), rate_hz, levels, decoded.cut)


def check_reference(samples: NDArray[Any], rate_hz: int) -> Levels:
    """Measure a mono recording and refuse one that no voice can be learnt from.

    Raises `BadRequest` with the measured value and the remedy.
    """
    if rate_hz < MIN_RATE_HZ:
        raise BadRequest(
            f"the recording has a sample rate of {rate_hz} Hz: record at {MIN_RATE_HZ} Hz or more "
            "(telephone recordings lack the upper half of a voice)"
        )
    levels = measure(samples, rate_hz)
    if levels.seconds < MIN_SPEECH_S:
        raise BadRequest(
            f"the recording is {levels.seconds:.1f} s long, at least {MIN_SPEECH_S:.0f} s of speech are "
            "needed: record a few full sentences, best 10 s"
        )
    if levels.rms_dbfs < SILENT_DBFS:
        raise BadRequest(
            f"the recording is silent ({levels.rms_dbfs:.0f} dBFS): check that the right microphone was on"
        )
    if levels.speech_dbfs < MIN_LEVEL_DBFS:
        raise BadRequest(
            f"the recording is too quiet ({levels.speech_dbfs:.0f} dBFS, at least {MIN_LEVEL_DBFS:.0f} is "
            "needed): record closer to the microphone or with more gain"
        )
    if levels.clipped_fraction > MAX_CLIPPED:
        raise BadRequest(
            f"the recording is clipped ({levels.clipped_fraction:.1%} of it, at most {MAX_CLIPPED:.0%} may "
            "be): record again with less gain"
        )
    if levels.speech_s < MIN_SPEECH_S:
        raise BadRequest(
            f"the recording holds {levels.speech_s:.1f} s of speech, at least {MIN_SPEECH_S:.0f} s are "
            "needed: record a few full sentences, best 10 s"
        )
    if levels.voiced_s < MIN_VOICED_S:
        raise BadRequest(
            f"the recording holds {levels.voiced_s:.1f} s of voice, at least {MIN_VOICED_S:.0f} s is needed: "
            "noise or whispering cannot be cloned, record speech in a quiet room"
        )
    return levels
