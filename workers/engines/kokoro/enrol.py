"""Learn a voice: find the blend of Kokoro's voices nearest to it, then how to convert that blend.

The speaker encoder judges. First the atlas names the nearest voices; a few softmax-weighted blends of
their packs are spoken and the most alike is kept. Then its speech and the reference are described as WORLD
profiles, and the strength of the conversion, the warp of the frequency axis and the mapping of pitch are
chosen by the similarity of the converted probe. Done once per voice; speaking needs only the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from . import world
from .model import RATE_HZ, FloatArray
from .world import Conversion, Profile

BLENDS: Final = ((2, 0.03), (3, 0.05), (5, 0.06))
"Nearest voices taken, and the temperature of their weights."
STRENGTHS: Final = (0.6, 1.0, 1.3)
WARPS: Final = (0.93, 0.965, 1.0, 1.035, 1.07)
REFERENCE_MAX_S: Final = 15.0

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


def enrol(
    reference: FloatArray, packs: FloatArray, atlas: FloatArray, synthesise: Synthesise, embed: Embed
) -> Voice:
    """Fit a voice to a reference at 24 kHz. Raises `ValueError` for one with too little voiced speech."""
    heard = reference[: int(REFERENCE_MAX_S * RATE_HZ)]
    target_profile = world.profile(world.analyse(heard, careful=True))
    target = embed(heard)
    closeness = atlas @ target
    tried: list[tuple[float, FloatArray, FloatArray, FloatArray]] = []
    for count, temperature in BLENDS:
        weights = softmax_weights(closeness, count, temperature)
        pack = blend(packs, weights)
        audio = synthesise(pack)
        tried.append((float(embed(audio) @ target), weights, pack, audio))
    similarity, weights, pack, audio = max(tried, key=lambda t: t[0])
    analysis = world.analyse(audio)
    best = Conversion(
        world.profile(analysis), target_profile, strength=0.0, move_pitch=False, scale_pitch=False
    )

    def score(conversion: Conversion) -> float:
        return float(embed(world.convert(analysis, conversion)) @ target)

    def better(options: list[Conversion]) -> None:
        nonlocal best, similarity
        for option in options:
            if (reached := score(option)) > similarity:
                best, similarity = option, reached

    better(
        [
            replace(best, strength=1.0, move_pitch=m, scale_pitch=s)
            for m, s in ((True, True), (True, False), (False, False))
        ]
    )
    better([replace(best, strength=s, warp=w) for s, w in product(STRENGTHS, WARPS)])
    return Voice(weights, pack, best, similarity)


def to_arrays(voice: Voice) -> dict[str, NDArray[Any]]:
    """What must be kept of a voice: everything but the pack, which the weights rebuild."""
    c = voice.conversion
    return {
        "weights": voice.weights,
        "source": _profile_array(c.source),
        "target": _profile_array(c.target),
        "settings": np.array([c.strength, c.warp, c.move_pitch, c.scale_pitch, voice.similarity], np.float64),
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]], packs: FloatArray) -> Voice:
    """Rebuild a voice. Raises `KeyError` or `ValueError` where the arrays are not those of `to_arrays`."""
    weights = np.asarray(arrays["weights"], np.float32)
    if weights.shape != (packs.shape[0],):
        raise ValueError("the weights belong to another set of voices")
    strength, warp, move, scale, similarity = (float(x) for x in arrays["settings"])
    conversion = Conversion(
        _profile(arrays["source"]), _profile(arrays["target"]), strength, warp, bool(move), bool(scale)
    )
    return Voice(weights, blend(packs, weights), conversion, similarity)


def _profile_array(p: Profile) -> NDArray[np.float64]:
    return np.concatenate([[p.log_f0, p.log_f0_std], p.mean, p.std])


def _profile(array: NDArray[Any]) -> Profile:
    flat = np.asarray(array, np.float64)
    if flat.shape != (2 + 2 * world.DIM,):
        raise ValueError("a profile has another size")
    return Profile(float(flat[0]), float(flat[1]), flat[2 : 2 + world.DIM], flat[2 + world.DIM :])
