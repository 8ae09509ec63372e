"""Make the ends of each stretch of speech fit the next: trimmed silence, short fades, pauses by punctuation.

A click is a jump of the waveform; speech that starts and ends at zero can be joined in any order.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .model import RATE_HZ, FloatArray

_FRAME: Final = RATE_HZ // 200
_SILENT_DB: Final = -48.0
"Below the loudest 5 ms of the stretch; Kokoro's own silence lies under -60 dB."
_LEAD_MS: Final = 30
_TAIL_MS: Final = 60
_FADE_MS: Final = 8
PAUSES_S: Final = {"sentence": 0.32, "clause": 0.14, "none": 0.0}


def pause_after(text: str) -> float:
    """Seconds of silence that the end of `text` asks for."""
    end = text.rstrip().rstrip("\"'”’»)]")[-1:]
    if end and end in ".!?…。！？।॥":
        return PAUSES_S["sentence"]
    return PAUSES_S["clause"] if end and end in ",;:—、，；：" else PAUSES_S["none"]


def trim(samples: FloatArray) -> FloatArray:
    """Cut silence at both ends down to a short margin and fade what is left in and out."""
    count = samples.size // _FRAME
    if count == 0:
        return samples
    level = np.sqrt(np.mean(samples[: count * _FRAME].reshape(count, _FRAME) ** 2, axis=1))
    loud = np.flatnonzero(level > level.max() * 10 ** (_SILENT_DB / 20))
    if loud.size == 0 or level.max() < 1e-5:
        return samples[:0]
    start = max(0, loud[0] * _FRAME - _LEAD_MS * RATE_HZ // 1000)
    stop = min(samples.size, (loud[-1] + 1) * _FRAME + _TAIL_MS * RATE_HZ // 1000)
    kept = samples[start:stop].copy()
    fade = min(_FADE_MS * RATE_HZ // 1000, kept.size // 2)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / max(fade, 1))).astype(np.float32)
    kept[:fade] *= ramp
    kept[kept.size - fade :] *= ramp[::-1]
    return kept


def silence(seconds: float) -> FloatArray:
    """Zeros of a length."""
    return np.zeros(round(seconds * RATE_HZ), np.float32)
