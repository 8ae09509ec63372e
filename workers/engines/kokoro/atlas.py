"""How Kokoro's 54 voices sound: their speaker embeddings and pitch; made once, shipped as `atlas.npz`.

Enrolment starts from the voices nearest to the reference. Speaking and measuring them takes minutes, and
depends on nothing but the model, so the result lies beside the code. Made again by
`python -m voicebus.workers.engines.kokoro.atlas MODEL_DIR OUT.npz`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from .model import RATE_HZ, FloatArray

PROBES: Final = (
    "The morning ferry leaves at seven, and most of the people on board are still half asleep.",
    "Could you show me where the old orchard used to be? My father would have liked to see it again.",
)


@dataclass(frozen=True, slots=True)
class Atlas:
    """What was measured of each voice, in the order of the names."""

    names: tuple[str, ...]
    embeddings: FloatArray
    "Unit vectors [voices, 256]."
    log_f0: FloatArray
    "Medians of the logarithm of pitch in Hz [voices]."


def load() -> Atlas:
    """Read the atlas that is shipped."""
    with Path(__file__).with_name("atlas.npz").open("rb") as stream, np.load(stream) as arrays:
        names = tuple(str(name) for name in arrays["names"])
        return Atlas(names, arrays["embeddings"].astype(np.float32), arrays["log_f0"].astype(np.float32))


def make(model_dir: Path) -> Atlas:
    """Speak the probes with every voice and measure them."""
    from . import conversion, world
    from .encoder import SpeakerEncoder
    from .g2p import G2P
    from .model import Network, load_packs

    g2p, encoder = G2P(model_dir / "vocab.json"), SpeakerEncoder(model_dir / "encoder.pt")
    network = Network(model_dir / "model.onnx", threads=2)
    names, packs = load_packs(model_dir / "voices")
    tokens = [g2p.tokens(g2p.phonemes(probe, "en-us")) for probe in PROBES]
    g2p.close()
    embeddings: list[FloatArray] = []
    log_f0: list[float] = []
    for name, pack in zip(names, packs, strict=True):
        spoken = [network.run(t, pack) for t in tokens]
        mean = np.mean([encoder.embed(audio, RATE_HZ) for audio in spoken], axis=0)
        embeddings.append(mean / np.linalg.norm(mean))
        log_f0.append(conversion.profile(world.analyse(np.concatenate(spoken), careful=True)).log_f0)
        print(f"{name}: {np.exp(log_f0[-1]):.0f} Hz", flush=True)
    return Atlas(names, np.stack(embeddings).astype(np.float32), np.array(log_f0, np.float32))


if __name__ == "__main__":
    atlas = make(Path(sys.argv[1]))
    with Path(sys.argv[2]).open("wb") as out:
        np.savez_compressed(
            out,
            names=np.array(atlas.names),
            embeddings=atlas.embeddings.astype(np.float16),
            log_f0=atlas.log_f0.astype(np.float16),
        )
