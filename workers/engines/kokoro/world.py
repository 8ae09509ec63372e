"""Move speech towards a speaker: spectrum and pitch, by the WORLD vocoder.

WORLD (Morise et al. 2016, doi:10.1587/transinf.2015EDP7457) takes speech apart into pitch, spectral envelope
and aperiodicity and puts it together again. A speaker is described by a `Profile`: how pitch and the coded
envelope are distributed over loud voiced frames. Speech is converted by mapping one distribution onto the
other; loudness and aperiodicity stay, so that articulation, and with it intelligibility, is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from .model import RATE_HZ

Array = NDArray[np.float64]

FRAME_MS: Final = 5.0
F0_FLOOR_HZ: Final = 60.0
F0_CEIL_HZ: Final = 500.0
DIM: Final = 40
"Coefficients of the coded envelope."
STD_RATIO: Final = (0.7, 1.4)
F0_STD_RATIO: Final = (0.6, 1.6)
_VOICED_RANGE: Final = 6.5
"Nepers of power under the 95th percentile within which a voiced frame counts as loud: 28 dB."


@dataclass(frozen=True, slots=True)
class Analysis:
    """Speech taken apart, a frame each 5 ms."""

    f0: Array
    envelope: Array
    "Power spectrum [frames, bins]."
    coded: Array
    "The same, coded: [frames, DIM]."
    aperiodicity: Array

    @property
    def loud(self) -> NDArray[np.bool_]:
        """Which frames are voiced and not far below the loudest."""
        level = np.log(np.maximum(self.envelope.sum(axis=1), 1e-12))
        return (self.f0 > 0) & (level > np.percentile(level, 95) - _VOICED_RANGE)


@dataclass(frozen=True, slots=True)
class Profile:
    """How a speaker's pitch and coded envelope are distributed."""

    log_f0: float
    log_f0_std: float
    mean: Array
    std: Array


@dataclass(frozen=True, slots=True)
class Conversion:
    """How to move from one profile to another. Strength 0 and both pitch terms off leave speech as it is."""

    source: Profile
    target: Profile
    strength: float = 1.0
    warp: float = 1.0
    "Factor on the frequency axis; above 1 formants rise, as in a shorter vocal tract."
    move_pitch: bool = True
    scale_pitch: bool = True

    def with_strength(self, strength: float) -> Conversion:
        """The same conversion, weaker or stronger."""
        return replace(self, strength=strength)


def _pyworld() -> Any:
    import pyworld

    return cast("Any", pyworld)


def analyse(samples: NDArray[np.float32], *, careful: bool = False) -> Analysis:
    """Take 24 kHz speech apart. `careful` uses the slower pitch tracker that copes with noisy recordings."""
    world = _pyworld()
    x = np.ascontiguousarray(samples, np.float64)
    if careful:
        f0, times = world.harvest(x, RATE_HZ, F0_FLOOR_HZ, F0_CEIL_HZ, FRAME_MS)
    else:
        f0, times = world.dio(x, RATE_HZ, F0_FLOOR_HZ, F0_CEIL_HZ, frame_period=FRAME_MS)
        f0 = world.stonemask(x, f0, times, RATE_HZ)
    envelope = world.cheaptrick(x, f0, times, RATE_HZ)
    coded = world.code_spectral_envelope(envelope, RATE_HZ, DIM)
    return Analysis(f0, envelope, coded, world.d4c(x, f0, times, RATE_HZ))


def profile(analysis: Analysis) -> Profile:
    """Describe a speaker. Raises `ValueError` where there is less than 0.25 s of loud voiced speech."""
    loud = analysis.loud
    if np.count_nonzero(loud) * FRAME_MS < 250:
        raise ValueError("too little voiced speech")
    log_f0, coded = np.log(analysis.f0[loud]), analysis.coded[loud]
    return Profile(float(np.median(log_f0)), float(log_f0.std()), coded.mean(axis=0), coded.std(axis=0))


def _warped(envelope: Array, factor: float) -> Array:
    """Stretch the frequency axis by `factor`; what lies beyond the edge repeats the last bin."""
    bins = np.arange(envelope.shape[1])
    wanted = np.minimum(bins / factor, bins[-1])
    low = np.minimum(wanted.astype(np.intp), bins[-1] - 1)
    part = wanted - low
    log = np.log(np.maximum(envelope, 1e-16))
    return np.exp(log[:, low] * (1 - part) + log[:, low + 1] * part)


def converted_f0(f0: Array, conversion: Conversion) -> Array:
    """Map the pitch contour; unvoiced frames stay 0."""
    source, target = conversion.source, conversion.target
    moved = f0.copy()
    voiced = f0 > 0
    log = np.log(f0[voiced])
    centre = target.log_f0 if conversion.move_pitch else source.log_f0
    ratio = float(np.clip(target.log_f0_std / max(source.log_f0_std, 1e-3), *F0_STD_RATIO))
    spread = ratio if conversion.scale_pitch else 1.0
    moved[voiced] = np.clip(np.exp((log - source.log_f0) * spread + centre), 40.0, 700.0)
    return moved


def converted_envelope(analysis: Analysis, conversion: Conversion) -> Array:
    """Map the envelope: multiply it by the smooth ratio of converted to original coded envelope."""
    world = _pyworld()
    source, target, strength = conversion.source, conversion.target, conversion.strength
    ratio = np.clip(target.std / np.maximum(source.std, 1e-6), *STD_RATIO)
    centred = analysis.coded - source.mean
    moved = centred * (1 + strength * (ratio - 1)) + source.mean + strength * (target.mean - source.mean)
    moved[:, 0] = analysis.coded[:, 0]
    size = (analysis.envelope.shape[1] - 1) * 2
    change = np.ascontiguousarray(moved - analysis.coded)
    # Decoding is linear in the log spectrum, so the difference decodes to the ratio.
    zero = np.zeros((1, DIM))
    gain = world.decode_spectral_envelope(change, RATE_HZ, size) / world.decode_spectral_envelope(
        zero, RATE_HZ, size
    )
    envelope = analysis.envelope if conversion.warp == 1.0 else _warped(analysis.envelope, conversion.warp)
    return np.ascontiguousarray(envelope * np.clip(gain, 1e-3, 1e3))


def convert(analysis: Analysis, conversion: Conversion) -> NDArray[np.float32]:
    """Put speech together again as the target would say it: float32 in [-1, 1] at 24 kHz."""
    f0, envelope = converted_f0(analysis.f0, conversion), converted_envelope(analysis, conversion)
    y = cast("Array", _pyworld().synthesize(f0, envelope, analysis.aperiodicity, RATE_HZ, FRAME_MS))
    peak = float(np.abs(y).max()) if y.size else 0.0
    return (y * (0.95 / max(peak, 0.95))).astype(np.float32)
