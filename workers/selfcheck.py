"""Whether a spoken segment can be what its text says, judged by its sound alone.

Models that draw speech step by step go wrong in few ways, and most of them are plain without understanding a
word: they stop early, fall silent, drone or loop until they are stopped, or clip. The bounds here are wide. A
segment that is found faulty costs a second synthesis, so true speech, however odd, must pass.

Rates: languages are spoken at 4.3 to 9.1 syllables a second on average (Coupé, Oh, Dediu and Pellegrino,
Science Advances 5, 2019). The bounds allow 3 to 13, with what scripts write in a character.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FASTEST_SYLLABLE_S: Final = 1 / 13
SLOWEST_SYLLABLE_S: Final = 1 / 3
SYLLABLES: Final = {
    "alphabetic": (0.27, 0.5),
    "consonantal": (0.35, 1.0),
    "syllabic": (0.8, 1.3),
    "ideographic": (0.8, 2.5),
    "digit": (0.5, 4.0),
}
"""Least and most syllables that a character of a script stands for: English letters near a third, Arabic
ones up to one since vowels are not written, Hangul and kana about one, a Chinese character read in
Japanese up to three; a digit is a syllable, and in a long number several."""
PAUSE_S: Final = 0.9
"""The longest pause that a mark or a line's end calls for."""
ALLOWANCE_S: Final = 2.0
"""Quiet before and after, and room for words like 'Oh'."""
SHORTFALL_S: Final = 0.35
"""So much may be missing: a word that is swallowed, sound too soft to count."""
SILENT_DBFS: Final = -55.0
DEAD_DBFS: Final = -65.0
LONGEST_PAUSE_S: Final = 4.0
CLIPPED: Final = 0.999
MOST_CLIPPED: Final = 0.02
"""Share of samples in runs of three or more at full scale: beyond it, clipping is heard as crackling."""

HOP_S: Final = 0.02
BANDS: Final = 18
BAND_EDGES_HZ: Final = (80.0, 7000.0)
ACTIVE_DB: Final = 35.0
"""A frame counts as sound if it is at most so far below the loudest."""
LAGS_S: Final = (0.16, 3.0)
LEAST_LOOP_S: Final = 2.6
LOOP_DB: Final = 3.2
"""Mean difference of band energies below which two stretches are the same sound."""

FloatArray = NDArray[np.floating[Any]]
_WORD: Final = re.compile(r"\w+")


def find_fault(
    text: str, language: str, samples: FloatArray, sample_rate: int, speed: float = 1.0
) -> str | None:
    """Return what is wrong with a segment in a short phrase, None when nothing is.

    `samples` are mono floats in [-1, 1] at `sample_rate` Hz; `speed` is the factor it was asked for.
    """
    if not np.isfinite(samples).all():
        return "samples that are no numbers"
    length_s = len(samples) / sample_rate
    if length_s == 0 or _dbfs(samples) < SILENT_DBFS:
        return f"{length_s:.1f} s of silence"
    least_s, most_s = bounds_s(text, language, speed)
    if length_s > most_s:
        return f"{length_s:.1f} s of audio for {len(text)} characters"
    levels = _levels(samples, sample_rate)
    sounding_s = float((levels > levels.max() - ACTIVE_DB).sum()) * HOP_S
    if sounding_s < least_s:
        return f"{sounding_s:.1f} s of sound for {len(text)} characters"
    dead_s = _longest_run(levels < DEAD_DBFS) * HOP_S
    if dead_s > LONGEST_PAUSE_S / min(speed, 1.0):
        return f"{dead_s:.1f} s of silence inside"
    clipped = _clipped_share(samples)
    if clipped > MOST_CLIPPED:
        return f"{clipped:.0%} of it clipped"
    return None if _repeats(text) else _loop(samples, sample_rate)


class Runaway:
    """Counts the audio of a segment while it is made; says when no text of this length can need more."""

    def __init__(self, text: str, language: str, sample_rate: int, speed: float = 1.0) -> None:
        self._chars = len(text)
        self._sample_rate = sample_rate
        self._left = round(bounds_s(text, language, speed)[1] * sample_rate)
        self._samples = 0

    def feed(self, samples: FloatArray) -> str | None:
        """Take the next part; return what is wrong once it is too much, in a short phrase."""
        self._samples += len(samples)
        if self._samples <= self._left:
            return None
        return f"{self._samples / self._sample_rate:.1f} s of audio for {self._chars} characters, and more"


def bounds_s(text: str, language: str, speed: float = 1.0) -> tuple[float, float]:
    """Return the least and the most seconds that this text can take."""
    least = most = pauses = 0.0
    for character in unicodedata.normalize("NFC", text):
        script = _script(character, language)
        if script:
            few, many = SYLLABLES[script]
            least += few
            most += many
        elif character == "\n" or unicodedata.category(character)[0] in "PS":
            pauses += 1
    shortest = least * FASTEST_SYLLABLE_S - SHORTFALL_S
    longest = most * SLOWEST_SYLLABLE_S + PAUSE_S * pauses + ALLOWANCE_S
    return max(0.0, shortest / speed), longest / speed


def _script(character: str, language: str) -> str:
    """What kind of writing a character belongs to; "" for what is not said by itself."""
    if character.isdigit():
        return "digit"
    if not character.isalpha():
        return ""
    code = ord(character)
    if 0x0590 <= code <= 0x08FF:
        return "consonantal"
    if 0x0900 <= code <= 0x0DFF or 0x0E00 <= code <= 0x0EFF:
        return "consonantal"
    if 0x3040 <= code <= 0x30FF or 0xAC00 <= code <= 0xD7AF:
        return "syllabic"
    if 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF:
        return "ideographic" if language.startswith("ja") else "syllabic"
    return "alphabetic"


def _dbfs(samples: FloatArray) -> float:
    return 10 * float(np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-12))


def _levels(samples: FloatArray, sample_rate: int) -> FloatArray:
    """Level of each hop [hops], dBFS."""
    hop = round(HOP_S * sample_rate)
    hops = len(samples) // hop
    if not hops:
        return np.array([_dbfs(samples)])
    energy = np.square(samples[: hops * hop].reshape(hops, hop)).mean(axis=1)
    return 10 * np.log10(energy + 1e-12)


def _longest_run(flags: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _clipped_share(samples: FloatArray) -> float:
    full = np.abs(samples) >= CLIPPED
    if full.mean() <= MOST_CLIPPED:
        return 0.0
    middle = full[:-2] & full[1:-1] & full[2:]
    return float(middle.mean())


def _repeats(text: str) -> bool:
    """Whether the text itself says something three times in a row: 'no, no, no'."""
    words = [word.casefold() for word in _WORD.findall(text)]
    units = words if len(words) > 1 else list(text)
    for size in (1, 2, 3):
        for start in range(len(units) - 3 * size + 1):
            first, second, third = (units[start + size * k : start + size * (k + 1)] for k in range(3))
            if first == second == third:
                return True
    return False


def _loop(samples: FloatArray, sample_rate: int) -> str | None:
    """Look for a stretch that is the same sound over and over, or the same sound all along."""
    spectra, sounding = _spectra(samples, sample_rate)
    frames = len(spectra)
    least = round(LEAST_LOOP_S / HOP_S)
    for lag in range(round(LAGS_S[0] / HOP_S), round(LAGS_S[1] / HOP_S) + 1):
        window = max(least, 2 * lag)
        if frames < window + lag:
            break
        both = sounding[lag:] | sounding[:-lag]
        apart = np.abs(spectra[lag:] - spectra[:-lag]).mean(axis=1) * both
        total = np.concatenate([[0.0], np.cumsum(apart)])
        count = np.concatenate([[0], np.cumsum(both)])
        apart_sum = total[window:] - total[:-window]
        counted = count[window:] - count[:-window]
        same = (counted > window // 2) & (apart_sum < LOOP_DB * counted)
        if same.any():
            start_s = float(np.argmax(same)) * HOP_S
            return f"the same {lag * HOP_S:.2f} s over and over from {start_s:.1f} s on"
    return None


def _spectra(samples: FloatArray, sample_rate: int) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Band energies [frames, bands] in dB, floored a little below what counts as sound; and what does."""
    hop = round(HOP_S * sample_rate)
    size = 2 * hop
    if len(samples) < size:
        return np.zeros((0, BANDS)), np.zeros(0, np.bool_)
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float32), size)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32))))
    low, high = BAND_EDGES_HZ
    # Equal steps in mel, as the ear has them.
    top = min(high, 0.45 * sample_rate)
    mels = (math.log1p(low / 700), math.log1p(top / 700))
    mel = mels[0] + (mels[1] - mels[0]) * np.arange(BANDS + 1) / BANDS
    bins = np.round(700 * np.expm1(mel) * size / sample_rate).astype(int)
    bins = np.maximum(bins, bins[0] + np.arange(BANDS + 1))  # a band holds at least one bin
    bands = np.add.reduceat(power[:, : bins[-1]], bins[:-1], axis=1)
    decibels = 10 * np.log10(bands + 1e-9)
    level = decibels.max(axis=1)
    floor = level.max() - ACTIVE_DB
    return np.maximum(decibels, floor - 5), level > floor
