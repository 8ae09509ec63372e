"""Make the shipped reference recordings again: `python voices/make.py`, with pyworld, setuptools<81.

A voice that is shipped must belong to nobody and must not be one that Kokoro already has, or cloning it
would show nothing. Both are therefore spoken by Festival with the free CMU SLT voice (Debian packages
`festival` and `festvox-us-slt-hts`) and then given another speaker's body with WORLD: the spectral envelope
is stretched along the frequency axis, as a shorter or longer vocal tract would, and the pitch is moved and
its movement widened. The result is deterministic for given versions of Festival, WORLD and soxr.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import soundfile as sf
import soxr
import yaml
from numpy.typing import NDArray

Array = NDArray[np.float64]

RATE_HZ = 24_000
LEVEL_DBFS = -23.0
PEAK = 0.9
MARGIN_S = 0.15
CONSENT = (
    "Synthetic: no person speaks here, the recording was made by a program from a freely licensed voice."
)


class _World(Protocol):
    """What is used of pyworld, which has no types."""

    def harvest(self, x: Array, fs: int, f0_floor: float, f0_ceil: float, /) -> tuple[Array, Array]: ...
    def stonemask(self, x: Array, f0: Array, times: Array, fs: int, /) -> Array: ...
    def cheaptrick(self, x: Array, f0: Array, times: Array, fs: int, /) -> Array: ...
    def d4c(self, x: Array, f0: Array, times: Array, fs: int, /) -> Array: ...
    def synthesize(self, f0: Array, envelope: Array, aperiodicity: Array, fs: int, /) -> Array: ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one voice is made: `formants` and `pitch` are factors, `movement` widens the pitch's range."""

    id: str
    name: str
    text: str
    formants: float
    pitch: float
    movement: float


RECIPES = (
    Recipe(
        id="amber",
        name="Amber",
        text=(
            "The lamp by the window stays lit until the last train has gone by. I read a few pages, "
            "drink my tea, and listen to the rain fall softly on the garden wall."
        ),
        formants=1.05,
        pitch=1.08,
        movement=1.2,
    ),
    Recipe(
        id="basil",
        name="Basil",
        text=(
            "Every morning the market opens at seven, and the smell of fresh bread fills the narrow street. "
            "We carry our baskets home before the sun climbs over the old stone bridge."
        ),
        formants=0.82,
        pitch=0.54,
        movement=1.2,
    ),
)


def spoken(text: str) -> Array:
    """Let Festival say `text` with CMU SLT (an HTS voice of 32 kHz); float64 mono at `RATE_HZ`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        command = ["text2wave", "-eval", "(voice_cmu_us_slt_arctic_hts)", "-o", str(path)]
        subprocess.run(command, input=text.encode(), check=True)  # noqa: S603 - a fixed command, no shell
        samples, rate_hz = sf.read(path, dtype="float64")
    return soxr.resample(samples, rate_hz, RATE_HZ)


def another_body(samples: Array, recipe: Recipe) -> Array:
    """Move formants and pitch with WORLD (Morise et al. 2016), keeping the timing."""
    import pyworld

    world = cast("_World", pyworld)
    pitch_hz, times = world.harvest(samples, RATE_HZ, 60, 500)
    pitch_hz = world.stonemask(samples, pitch_hz, times, RATE_HZ)
    envelope = np.log(world.cheaptrick(samples, pitch_hz, times, RATE_HZ))
    noise = world.d4c(samples, pitch_hz, times, RATE_HZ)
    bins = np.arange(len(envelope[0]))
    origin = np.clip(bins / recipe.formants, 0, bins[-1])

    def stretched(frame: Array) -> Array:
        return np.interp(origin, bins, frame)

    moved_envelope = np.exp(np.stack([stretched(frame) for frame in envelope]))
    moved_noise = np.stack([stretched(frame) for frame in noise])
    voiced = pitch_hz > 0
    logs = np.log(pitch_hz[voiced])
    middle = np.median(logs)
    moved_pitch = pitch_hz.copy()
    moved_pitch[voiced] = np.exp(middle + (logs - middle) * recipe.movement) * recipe.pitch
    return world.synthesize(moved_pitch, moved_envelope, moved_noise, RATE_HZ)


def levelled(samples: Array) -> Array:
    """Trim the silence around the speech and bring it to the usual level without clipping."""
    samples = samples - samples.mean()
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    margin = int(MARGIN_S * RATE_HZ)
    samples = samples[max(0, loud[0] - margin) : loud[-1] + margin]
    samples = samples * (10 ** (LEVEL_DBFS / 20) / np.sqrt(np.mean(samples**2)))
    return samples * min(1.0, PEAK / np.abs(samples).max())


def main(folder: Path) -> None:
    """Write every voice below `folder`."""
    for recipe in RECIPES:
        home = folder / recipe.id
        home.mkdir(parents=True, exist_ok=True)
        samples = levelled(another_body(spoken(recipe.text), recipe))
        reference = home / "reference.wav"
        sf.write(reference, np.rint(samples * 32767).astype(np.int16), RATE_HZ, subtype="PCM_16")
        record: dict[str, Any] = {
            "name": recipe.name,
            "language": "en-us",
            "text": recipe.text,
            "consent": CONSENT,
            "licence": "CC0-1.0",
            "sha256": hashlib.sha256(reference.read_bytes()).hexdigest(),
            "created": "2026-11-23T00:00:00Z",
            "seconds": round(samples.size / RATE_HZ, 3),
            "sample_rate": RATE_HZ,
            "shipped": True,  # only these are offered behind every store and cannot be removed
        }
        (home / "voice.yaml").write_text(
            yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=100)
        )
        print(f"{recipe.id} {record['seconds']} s {record['sha256']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
