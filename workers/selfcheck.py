"""Whether a spoken segment can be what its text says, judged by its sound alone.

Models that draw speech step by step go wrong in few ways, and most of them are plain without understanding a
word: they stop early, fall silent, drone or loop until they are stopped, or clip. The bounds here are wide. A
segment that is found faulty costs a second synthesis, so true speech, however odd, must pass.

Rates: speakers of seventeen languages read at 4.3 to 9.1 syllables a second (Coupé, Oh, Dediu and Pellegrino,
Science Advances 5, 2019). The bounds allow 3 to 10, with what scripts write in a character. Figures that say
"measured" come from 186 pieces of Kokoro's speech, odd texts among them, in seven languages at speeds
from 0.5 to 2: the shortest was twice as long as the least that is allowed, the longest half of the most.
"""

from __future__ import annotations

import math
import re
import unicodedata
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FASTEST_SYLLABLE_S: Final = 1 / 10
SLOWEST_SYLLABLE_S: Final = 1 / 3
SYLLABLES: Final = {
    "alphabetic": (0.27, 0.5),
    "consonantal": (0.35, 1.0),
    "syllabic": (0.8, 1.3),
    "ideographic": (0.8, 2.5),
    "digit": (0.5, 4.0),
    "spelt": (0.27, 3.0),
}
"""Least and most syllables that a character of a script stands for: English letters near a third, Arabic
ones up to one since vowels are not written, Hangul and kana about one, a Chinese character read in
Japanese up to three; a digit is a syllable, and in a long number several; one that is spelt may be 'W'."""
_LATIN: Final = (
    "af ca cs cy da de en es et eu fi fr ga gl hr hu id is it lt lv ms mt nb nl nn no pl pt ro sk sl sq sv sw"
    " tl tr vi"
)
LATIN: Final = frozenset(_LATIN.split())
"""Languages written in Latin letters alone: an engine for one of them may pass over what others write."""
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
LOOPS: Final = ((2.6, 2.4), (6.0, 3.2))
"""Seconds and dB: for so long, the sound differs in the mean by less than this, band by band, from what it
was a lag earlier. Measured on texts that repeat nothing: 3.2 dB over 2.6 s and 4.0 dB over 6 s at the least,
both in rows of numbers; 3.8 and 4.6 in other texts. Syllables looped with 3 % of jitter in pace and level:
1 to 2.8."""
MOST_REPEATED: Final = 12
"""Words: a longer refrain outlasts the longest lag."""
LEAST_DOUBLE_S: Final = 2.6
DOUBLE_DB: Final = 2.4
DOUBLE_SLACK: Final = 0.05
"""Of the whole length: how far from its middle a second saying of everything may begin."""

FloatArray = NDArray[np.floating[Any]]
_UNIT: Final = re.compile(r"\d|[^\W\d]+")
"""A word or a digit."""
_STUTTER: Final = re.compile(r"([^\W\d]{1,5})\1\1")
_SPELT: Final = re.compile(r"\b[^\W\d_]\b|[A-Z]{2,}")


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
    if repeats(text):
        return None
    spectra, sounding = _spectra(samples, sample_rate)
    return _loop(spectra, sounding) or (None if _says_twice(text) else _double(spectra, sounding))


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
    written = unicodedata.normalize("NFC", text)
    spelt = _spelt(written)
    reads_all = language.partition("-")[0].lower() not in LATIN
    for place, character in enumerate(written):
        script = _script(character, language)
        if script:
            few, many = SYLLABLES["spelt" if place in spelt else script]
            least += few if reads_all or character.isdigit() or _is_latin(character) else 0.0
            most += many
        elif character == "\n" or unicodedata.category(character)[0] in "PS":
            pauses += 1
    shortest = least * FASTEST_SYLLABLE_S - SHORTFALL_S
    longest = most * SLOWEST_SYLLABLE_S + PAUSE_S * pauses + ALLOWANCE_S
    return max(0.0, shortest / speed), longest / speed


def _spelt(text: str) -> set[int]:
    """Places of letters that may be said by their names: those that stand alone, and capitals together."""
    return {place for found in _SPELT.finditer(text) for place in range(*found.span())}


def _is_latin(character: str) -> bool:
    return ord(character) < 0x0250 or 0x1E00 <= ord(character) < 0x1F00


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


def repeats(text: str) -> bool:
    """Whether the text itself says something three times in a row: 'no, no, no', 'haha' and more."""
    folded = text.casefold()
    if _STUTTER.search(folded):
        return True
    units = _UNIT.findall(folded)
    for size in range(1, min(MOST_REPEATED, len(units) // 3) + 1):
        alike = 0  # units in a row that are what stood `size` before
        for place in range(size, len(units)):  # a digit three times is a year or a price
            alike = alike + 1 if units[place] == units[place - size] else 0
            if alike >= (4 if units[place].isdigit() else 2) * size:
                return True
    return False


def _says_twice(text: str) -> bool:
    """Whether most of the text stands in it twice: a refrain."""
    units = _UNIT.findall(text.casefold()) if " " in text.strip() else list(text)
    pairs = list(pairwise(units))
    return 2 * len(set(pairs)) <= 1.5 * len(pairs)


def _loop(spectra: FloatArray, sounding: NDArray[np.bool_]) -> str | None:
    """Look for a stretch that is the same sound over and over, or the same sound all along."""
    frames = len(spectra)
    shortest = round(LOOPS[0][0] / HOP_S)
    for lag in range(round(LAGS_S[0] / HOP_S), round(LAGS_S[1] / HOP_S) + 1):
        if frames < max(shortest, 2 * lag) + lag:
            break
        both = sounding[lag:] | sounding[:-lag]
        apart = np.abs(spectra[lag:] - spectra[:-lag]).mean(axis=1) * both
        total = np.concatenate([[0.0], np.cumsum(apart)])
        count = np.concatenate([[0], np.cumsum(both)])
        for long_s, limit_db in LOOPS:
            window = max(round(long_s / HOP_S), 2 * lag)
            counted = count[window:] - count[:-window]
            same = (counted > window // 2) & (total[window:] - total[:-window] < limit_db * counted)
            if same.any():
                start_s = float(np.argmax(same)) * HOP_S
                return f"the same {lag * HOP_S:.2f} s over and over from {start_s:.1f} s on"
    return None


def _double(spectra: FloatArray, sounding: NDArray[np.bool_]) -> str | None:
    """Look for everything being said again: an engine that gives a segment in parts and then as a whole."""
    frames = len(spectra)
    first, last = round((0.5 - DOUBLE_SLACK) * frames), round((0.5 + DOUBLE_SLACK) * frames)
    if first * HOP_S < LEAST_DOUBLE_S:
        return None
    for lag in range(first, last + 1):
        both = sounding[lag:] | sounding[:-lag]
        apart = np.abs(spectra[lag:] - spectra[:-lag]).mean(axis=1) * both
        if both.any() and float(apart.sum()) < DOUBLE_DB * np.count_nonzero(both):
            return f"the same {lag * HOP_S:.1f} s twice"
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
