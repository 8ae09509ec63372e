"""Speech taken apart into pitch, spectral envelope and aperiodicity, and put together again.

This is the WORLD vocoder (Morise et al. 2016, doi:10.1587/transinf.2015EDP7457) at 24 kHz with a frame each
5 ms. The envelope is also kept in WORLD's coded form, 40 numbers a frame on a mel scale; there a speaker's
sound is easy to describe and to move.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ....common.errors import ModelMissing
from .model import RATE_HZ

Array = NDArray[np.float64]

FRAME_MS: Final = 5.0
F0_FLOOR_HZ: Final = 60.0
F0_CEIL_HZ: Final = 500.0
DIM: Final = 40
"Numbers of the coded envelope; the first is the level."
_LOUD_NEPERS: Final = 6.5
"Of power, under the 95th percentile: frames within 28 dB of the loud ones count."
_KNEE: Final = 0.8


@dataclass(frozen=True, slots=True)
class Analysis:
    """Speech taken apart, frame by frame."""

    f0: Array
    "Hz, 0 where unvoiced: [frames]."
    envelope: Array
    "Power spectrum: [frames, bins]."
    coded: Array
    "The same, coded: [frames, DIM]."
    aperiodicity: Array
    "Share of noise: [frames, bins]."

    @property
    def loud(self) -> NDArray[np.bool_]:
        """Which frames are voiced, by pitch and by aperiodicity, and not far below the loudest."""
        level = np.log(np.maximum(self.envelope.sum(axis=1), 1e-12))
        # A pitch tracker finds pitch even in noise; D4C then calls every bin noise.
        voiced = (self.f0 > 0) & (self.aperiodicity[:, 0] < 0.9)
        return voiced & (level > np.percentile(level, 95) - _LOUD_NEPERS)


@cache
def _world() -> Any:
    """The compiled module inside the package pyworld, which has no types.

    Its package imports pkg_resources, only to learn its own version, and setuptools has dropped that since
    version 82; so the package's own first lines are passed over.
    """
    package = find_spec("pyworld")
    for folder in (package.submodule_search_locations or []) if package else []:
        inner = PathFinder.find_spec("pyworld.pyworld", [folder])
        if inner is not None and inner.loader is not None:
            module = module_from_spec(inner)
            inner.loader.exec_module(module)
            return module
    raise ModelMissing("pyworld is not installed; run: pip install 'voicebus[kokoro]'")


def analyse(samples: NDArray[np.float32], *, careful: bool = False) -> Analysis:
    """Take 24 kHz speech apart. `careful` uses the slower pitch tracker that copes with noisy recordings."""
    world = _world()
    x = np.ascontiguousarray(samples, np.float64)
    if careful:
        f0, times = world.harvest(x, RATE_HZ, F0_FLOOR_HZ, F0_CEIL_HZ, FRAME_MS)
    else:
        f0, times = world.dio(x, RATE_HZ, F0_FLOOR_HZ, F0_CEIL_HZ, frame_period=FRAME_MS)
        f0 = world.stonemask(x, f0, times, RATE_HZ)
    envelope = world.cheaptrick(x, f0, times, RATE_HZ)
    coded = world.code_spectral_envelope(envelope, RATE_HZ, DIM)
    return Analysis(f0, envelope, coded, world.d4c(x, f0, times, RATE_HZ))


def gain(change: Array, bins: int) -> Array:
    """Factor on the power spectrum that a change of the coded envelope means: [frames, bins]."""
    world = _world()
    size = (bins - 1) * 2
    # Decoding is linear in the log spectrum up to a constant, which the decoded zero takes away.
    zero = np.asarray(world.decode_spectral_envelope(np.zeros((1, DIM)), RATE_HZ, size), np.float64)
    decoded = np.asarray(
        world.decode_spectral_envelope(np.ascontiguousarray(change), RATE_HZ, size), np.float64
    )
    return np.clip(decoded / zero, 1e-3, 1e3)


def synthesise(f0: Array, envelope: Array, aperiodicity: Array, level: float = 1.0) -> NDArray[np.float32]:
    """Put speech together: float32 in (-1, 1) at 24 kHz, times `level`; peaks above 0.8 are bent, not cut."""
    raw = _world().synthesize(f0, np.ascontiguousarray(envelope), aperiodicity, RATE_HZ, FRAME_MS)
    y = np.asarray(raw, np.float64) * level
    over = np.abs(y) > _KNEE
    bent = _KNEE + (1 - _KNEE) * np.tanh((np.abs(y[over]) - _KNEE) / (1 - _KNEE))
    y[over] = np.sign(y[over]) * np.minimum(bent, 0.999)
    return y.astype(np.float32)
