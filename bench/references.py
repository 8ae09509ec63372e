"""The voices that the cloning benchmark copies: human recordings and synthetic ones, from Debian's packages.

Packages are fetched with `apt-get download` and unpacked with `dpkg-deb`, so no root is needed. Each voice
gives two clips that share no recording: `fit.wav` (at most 10 s, what an engine may hear) and `held.wav`
(at most 12 s, what it is judged by). The human voices are the prompts of Asterisk in four languages, stored
as G.722 of 16 kHz, and a reading from LibriVox; the synthetic ones are spoken by flite.

Run inside the benchmark's own environment: `python bench/references.py SCRATCH`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

RATE_HZ = 16_000
FIT_S = 10.0
HELD_S = 12.0
GAP_S = 0.25
ASTERISK = "usr/share/asterisk/sounds"
LIBRIVOX = "usr/share/pocketsphinx/test/data/librivox"
FLITE_FIT = (
    "The boy was there when the sun rose. A rod is used to catch pink salmon. The source of the huge "
    "river is the clear spring. Kick the ball straight and follow through, then help the woman get back "
    "to her feet."
)
FLITE_HELD = (
    "Smoky fires lack flame and heat. The soft cushion broke the man's fall. The salt breeze came across "
    "from the sea, and the girl at the booth sold fifty bonds before noon. Rice is often served in round "
    "bowls."
)


@dataclass(frozen=True, slots=True)
class Speaker:
    """A voice to copy and where it comes from."""

    name: str
    human: bool
    sex: str
    language: str
    package: str
    source: str


SPEAKERS = (
    Speaker("allison", True, "f", "en", "asterisk-core-sounds-en-g722", f"{ASTERISK}/en_US_f_Allison"),
    Speaker("june", True, "f", "fr", "asterisk-core-sounds-fr-g722", f"{ASTERISK}/fr_CA_f_June"),
    Speaker("carlo", True, "m", "it", "asterisk-core-sounds-it-g722", f"{ASTERISK}/it_IT_m_Carlo"),
    Speaker("ivr-ru", True, "f", "ru", "asterisk-core-sounds-ru-g722", f"{ASTERISK}/ru_RU_f_IvrvoiceRU"),
    Speaker("librivox", True, "m", "en", "pocketsphinx-testdata", LIBRIVOX),
    Speaker("slt", False, "f", "en", "libflite1", "slt"),
    Speaker("rms", False, "m", "en", "libflite1", "rms"),
    Speaker("awb", False, "m", "en", "libflite1", "awb"),
    Speaker("kal", False, "m", "en", "libflite1", "kal16"),
)


def fetch(packages: set[str], scratch: Path) -> Path:
    """Download and unpack Debian packages that are not there yet; return the unpacked root."""
    root = scratch / "debian"
    root.mkdir(parents=True, exist_ok=True)
    for package in sorted(packages):
        done = root / f".{package}"
        if done.exists():
            continue
        subprocess.run(["apt-get", "download", "-qq", package], cwd=root, check=True)
        for archive in root.glob(f"{package}_*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], check=True)
            archive.unlink()
        done.touch()
    return root


def decode(path: Path) -> FloatArray:
    """Read any audio file as mono float32 at 16 kHz."""
    import av

    parts: list[FloatArray] = []
    with av.open(str(path), format="g722" if path.suffix == ".g722" else None) as container:
        resampler = av.AudioResampler("flt", "mono", RATE_HZ)
        for frame in container.decode(audio=0):
            parts.extend(
                np.asarray(f.to_ndarray(), np.float32).reshape(-1) for f in resampler.resample(frame)
            )
        parts.extend(np.asarray(f.to_ndarray(), np.float32).reshape(-1) for f in resampler.resample(None))
    return np.concatenate(parts)


def trim(samples: FloatArray) -> FloatArray:
    """Cut silence at both ends."""
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    return samples[max(0, loud[0] - 800) : loud[-1] + 800] if loud.size else samples[:0]


def joined(paths: list[Path], seconds: float) -> FloatArray:
    """Put clips in a row with short gaps, up to a length."""
    gap = np.zeros(int(GAP_S * RATE_HZ), np.float32)
    parts: list[FloatArray] = []
    length = 0
    for path in paths:
        clip = trim(decode(path))
        parts.extend((clip, gap))
        length += clip.size + gap.size
        if length >= seconds * RATE_HZ:
            break
    return np.concatenate(parts)[: int(seconds * RATE_HZ)]


def clips(speaker: Speaker, root: Path, scratch: Path) -> tuple[FloatArray, FloatArray]:
    """Return what the fit may hear and what it is judged by."""
    if not speaker.human:
        library = next(root.glob("usr/lib/*/libflite.so.1")).parent
        made: list[FloatArray] = []
        for part, text in (("fit", FLITE_FIT), ("held", FLITE_HELD)):
            out = scratch / f"{speaker.name}-{part}.flite.wav"
            command = [str(root / "usr/bin/flite"), "-voice", speaker.source, "-t", text, "-o", str(out)]
            subprocess.run(command, check=True, env={**os.environ, "LD_LIBRARY_PATH": str(library)})
            made.append(trim(decode(out)))
            out.unlink()
        return made[0][: int(FIT_S * RATE_HZ)], made[1][: int(HELD_S * RATE_HZ)]
    folder = root / speaker.source
    if speaker.source == LIBRIVOX:
        found = sorted(folder.glob("*.wav"))
        return joined(found[:2], FIT_S), joined(found[2:], HELD_S)
    # Whole sentences of at least 3 s (G.722 has 8 bytes a millisecond); every other one is held out.
    found = sorted(p for p in folder.glob("*.g722") if p.stat().st_size > 24_000 and "tone" not in p.name)
    return joined(found[0::2], FIT_S), joined(found[1::2], HELD_S)


def make(scratch: Path) -> None:
    """Write `voices/<name>/{fit,held}.wav` and `voices.json` under `scratch`."""
    import soundfile

    root = fetch({s.package for s in SPEAKERS} | {"flite"}, scratch)
    for speaker in SPEAKERS:
        folder = scratch / "voices" / speaker.name
        folder.mkdir(parents=True, exist_ok=True)
        for name, samples in zip(("fit", "held"), clips(speaker, root, scratch), strict=True):
            soundfile.write(folder / f"{name}.wav", samples, RATE_HZ, subtype="PCM_16")
    listing = [asdict(speaker) for speaker in SPEAKERS]
    (scratch / "voices.json").write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
