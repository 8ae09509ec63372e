"""How loud, how clipped and how much speech a recording is.

A voice is only as good as the recording it is learnt from, and most bad clones come from one that is too
short, too quiet or overdriven. These measures find that before an engine spends seconds on it. They are
estimates by energy and periodicity, good enough to refuse a recording, not to cut one up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLOOR_DBFS: Final = -120.0
HOP_S: Final = 0.015
"Frames are two hops long: enough for two periods of the lowest voice."
ACTIVE_BELOW_LOUD_DB: Final = 30.0
ACTIVE_DBFS: Final = -60.0
VOICED_HZ: Final = (60.0, 400.0)
VOICED_PERIODICITY: Final = 0.5
PITCH_RATE_HZ: Final = 8_000


@dataclass(frozen=True, slots=True)
class Levels:
    """Measures of one mono recording. dBFS are relative to a full-scale square wave."""

    seconds: float
    rms_dbfs: float
    speech_dbfs: float
    "RMS over the active frames alone, so that pauses do not make a recording quiet."
    peak: float
    clipped_fraction: float
    speech_s: float
    "Seconds in which something is said, by energy."
    voiced_s: float
    "Seconds of these that have a pitch, as vowels do and noise does not."


def measure(samples: NDArray[Any], rate_hz: int) -> Levels:
    """Measure mono audio, float or 16 bit, of any length."""
    from .audio import to_float

    signal = to_float(samples)
    step = max(1, rate_hz // PITCH_RATE_HZ)
    hop = int(HOP_S * rate_hz / step) * step
    power = _frame_power(signal, hop)
    active = _active(_decibels(power))
    voiced = active.copy()
    if active.any():
        voiced[active] = _periodicity(signal, active, hop, step, rate_hz) >= VOICED_PERIODICITY
    return Levels(
        seconds=signal.size / rate_hz,
        rms_dbfs=rms_dbfs(signal),
        speech_dbfs=float(_decibels(power[active].mean())) if active.any() else FLOOR_DBFS,
        peak=peak(signal),
        clipped_fraction=clipped_fraction(signal),
        speech_s=float(active.sum()) * hop / rate_hz,
        voiced_s=float(voiced.sum()) * hop / rate_hz,
    )


def rms_dbfs(samples: NDArray[Any]) -> float:
    """Root mean square in dBFS, `FLOOR_DBFS` for silence."""
    import numpy as np

    from .audio import to_float

    signal = to_float(samples)
    if not signal.size:
        return FLOOR_DBFS
    return float(_decibels(np.mean(np.square(signal, dtype=np.float64))))


def peak(samples: NDArray[Any]) -> float:
    """Largest magnitude, 1.0 being full scale."""
    import numpy as np

    from .audio import to_float

    signal = to_float(samples)
    return float(np.abs(signal).max()) if signal.size else 0.0


def clipped_fraction(samples: NDArray[Any]) -> float:
    """Share of samples at full scale or on a flat top: three or more equal ones near the largest magnitude.

    Flat tops give away a recording that was overdriven first and turned down afterwards.
    """
    import numpy as np

    from .audio import to_float

    signal = to_float(samples)
    if signal.size < 3:
        return 0.0
    magnitude = np.abs(signal)
    top = float(magnitude.max())
    if top <= 0.0:
        return 0.0
    clipped = magnitude >= 0.999
    same = (signal[1:] == signal[:-1]) & (magnitude[1:] >= 0.98 * top)
    middle = same[1:] & same[:-1]
    for shift in range(3):
        clipped[shift : shift + middle.size] |= middle
    return float(clipped.mean())


def _frame_power(signal: NDArray[np.float32], hop: int) -> NDArray[np.float64]:
    """Mean square of frames two hops long, one each hop."""
    import numpy as np

    count = signal.size // hop
    if count < 2:
        return np.zeros(0, np.float64)
    blocks = signal[: count * hop].reshape(count, hop)
    power = np.einsum("ij,ij->i", blocks, blocks).astype(np.float64) / hop
    return (power[:-1] + power[1:]) / 2


def _decibels(power: Any) -> Any:
    import numpy as np

    return np.maximum(10.0 * np.log10(np.maximum(power, 1e-12)), FLOOR_DBFS)


def _active(level_db: NDArray[np.float64]) -> NDArray[np.bool_]:
    import numpy as np

    if not level_db.size:
        return np.zeros(0, np.bool_)
    # The loud level is a high percentile and not the maximum: a knock on the table is not speech.
    loud_db = float(np.percentile(level_db, 95))
    return level_db > max(loud_db - ACTIVE_BELOW_LOUD_DB, ACTIVE_DBFS)


def _periodicity(
    signal: NDArray[np.float32], active: NDArray[np.bool_], hop: int, step: int, rate_hz: int
) -> NDArray[np.float64]:
    """Highest normalised autocorrelation at a lag of a speaking pitch, for each active frame: 0 to 1."""
    import numpy as np

    # Averaging before thinning out is low-pass enough: pitch lies far below what could fold over.
    usable = signal.size // step * step
    thin = signal[:usable].reshape(-1, step).mean(axis=1, dtype=np.float64)
    thin_hz, size = rate_hz / step, 2 * hop // step
    frames = np.lib.stride_tricks.sliding_window_view(thin, size)[:: hop // step][: active.size][active]
    frames = frames - frames.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(frames, 2 * size, axis=1)) ** 2
    # A frame holds fewer products at a longer lag; without this, low voices would look aperiodic.
    fewer = size / (size - np.arange(size, dtype=np.float64))
    correlation = np.asarray(np.fft.irfft(power, axis=1)[:, :size], dtype=np.float64) * fewer
    shortest, longest = int(thin_hz / VOICED_HZ[1]), min(int(thin_hz / VOICED_HZ[0]), size * 2 // 3)
    return correlation[:, shortest : longest + 1].max(axis=1) / np.maximum(correlation[:, 0], 1e-12)
