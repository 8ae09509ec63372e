"""Learn a voice: find the blend of Kokoro's voices that converts best into it, and the conversion.

The atlas names the voices nearest to the reference in the speaker encoder's space and in pitch. A few of
them and their blends speak a probe; each probe is converted towards the reference, and the encoder judges
the result, for what matters is not how near a voice is but how near it can be brought. For the best, the
treatment of pitch is chosen the same way, and the level is matched. All this is done once per voice;
speaking needs only the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from . import conversion, world
from .atlas import Atlas
from .conversion import Conversion
from .model import RATE_HZ, FloatArray

REFERENCE_MAX_S: Final = 15.0
PITCH_WEIGHT: Final = 0.2
"What a voice loses in closeness for each unit of log pitch it is away: a fifth of an octave costs 0.03."
_QUIET: Final = 0.05
LEVEL_DBFS: Final = (-26.0, -17.0)
"Active speech is brought to the reference's level within these bounds."

Synthesise = Callable[[FloatArray], FloatArray]
"Speaks the probe in the style of a pack."
Embed = Callable[[FloatArray], FloatArray]
"Embeds 24 kHz speech."


@dataclass(frozen=True, slots=True)
class Voice:
    """A learnt voice: the blend's weights and its pack, and the conversion."""

    weights: FloatArray
    pack: FloatArray
    conversion: Conversion
    similarity: float
    "Cosine to the reference that the fit reached on its probe."


def blend(packs: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted mean of voice packs: [510, 256]."""
    used = np.flatnonzero(weights)
    return np.tensordot(weights[used], packs[used], 1).astype(np.float32)


def softmax_weights(closeness: FloatArray, count: int, temperature: float) -> FloatArray:
    """Weights over all voices, nonzero for the `count` nearest."""
    top = np.argsort(closeness)[::-1][:count]
    raised = np.exp((closeness[top] - closeness[top[0]]) / temperature)
    weights = np.zeros(closeness.size, np.float32)
    weights[top] = raised / raised.sum()
    return weights


def candidates(atlas: Atlas, embedding: FloatArray, log_f0: float) -> list[FloatArray]:
    """Weights of the blends worth speaking, the most promising first."""
    closeness = atlas.embeddings @ embedding - PITCH_WEIGHT * np.abs(atlas.log_f0 - np.float32(log_f0))
    closeness = closeness.astype(np.float32)
    first, second = np.argsort(closeness)[::-1][:2]
    single = np.zeros((2, closeness.size), np.float32)
    single[0, first] = single[1, second] = 1.0
    return [single[0], softmax_weights(closeness, 4, 0.06), single[1]]


def level_dbfs(samples: FloatArray) -> float:
    """RMS of active speech: of the 30 ms blocks within 30 dB of the loudest."""
    block = RATE_HZ * 30 // 1000
    count = max(1, samples.size // block)
    power = np.mean(np.square(samples[: count * block].reshape(count, -1), dtype=np.float64), axis=1)
    active = power[power > power.max() * 1e-3]
    return float(10 * np.log10(active.mean() + 1e-12)) if active.size else -120.0


def enrol(
    reference: FloatArray, packs: FloatArray, atlas: Atlas, synthesise: Synthesise, embed: Embed
) -> Voice:
    """Fit a voice to a reference at 24 kHz. Raises `ValueError` for one with too little voiced speech."""
    heard = reference[: int(REFERENCE_MAX_S * RATE_HZ)]
    target = conversion.profile(world.analyse(heard, careful=True))
    embedding = embed(heard)
    level = float(np.clip(level_dbfs(heard), *LEVEL_DBFS))

    def levelled(analysis: world.Analysis, found: Conversion) -> tuple[float, Conversion]:
        # Quietly first: peaks that are bent would hide how loud the conversion is.
        audio = conversion.convert(analysis, replace(found, level=_QUIET))
        factor = 10 ** ((level - level_dbfs(audio)) / 20)
        return float(embed(audio * np.float32(factor)) @ embedding), replace(found, level=_QUIET * factor)

    tried: list[tuple[float, FloatArray, world.Analysis, Conversion]] = []
    for weights in candidates(atlas, embedding, target.log_f0):
        analysis = world.analyse(synthesise(blend(packs, weights)))
        score, found = levelled(analysis, conversion.between(conversion.profile(analysis), target))
        tried.append((score, weights, analysis, found))
    best_score, weights, analysis, best = max(tried, key=lambda t: t[0])
    scaled = best.pitch
    for mode in conversion.PITCH_MODES[:2]:
        score, found = levelled(analysis, replace(best, pitch=conversion.with_pitch(scaled, mode)))
        if score > best_score:
            best_score, best = score, found
    return Voice(weights, blend(packs, weights), conversion.rounded(best), best_score)


def to_arrays(voice: Voice) -> dict[str, NDArray[Any]]:
    """What must be kept of a voice: everything but the pack, which the weights rebuild."""
    kept = {"weights": voice.weights, "similarity": np.array(voice.similarity, np.float64)}
    return kept | conversion.to_arrays(voice.conversion)


def from_arrays(arrays: Mapping[str, NDArray[Any]], packs: FloatArray) -> Voice:
    """Rebuild a voice. Raises `KeyError` or `ValueError` where the arrays are not those of `to_arrays`."""
    weights = np.asarray(arrays["weights"], np.float32)
    if weights.shape != (packs.shape[0],):
        raise ValueError("the weights belong to another set of voices")
    return Voice(weights, blend(packs, weights), conversion.from_arrays(arrays), float(arrays["similarity"]))
