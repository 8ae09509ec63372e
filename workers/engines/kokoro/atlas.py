"""Where Kokoro's 54 voices lie in the space of the speaker encoder; made once, shipped as `atlas.npz`.

Enrolment starts from the voices nearest to the reference. Embedding them takes minutes, and depends on
nothing but the model, so the result lies beside the code. Made again by
`python -m voicebus.workers.engines.kokoro.atlas MODEL_DIR OUT.npz`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.resources import files
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
    """Names of the voices and their embeddings [voices, 256], unit vectors."""

    names: tuple[str, ...]
    embeddings: FloatArray


def load() -> Atlas:
    """Read the atlas that is shipped."""
    with files(__package__).joinpath("atlas.npz").open("rb") as stream, np.load(stream) as arrays:
        return Atlas(tuple(str(name) for name in arrays["names"]), arrays["embeddings"].astype(np.float32))


def make(model_dir: Path) -> Atlas:
    """Speak the probes with every voice and embed them."""
    from .encoder import SpeakerEncoder
    from .g2p import G2P
    from .model import Network, load_packs

    g2p, encoder = G2P(model_dir / "vocab.json"), SpeakerEncoder(model_dir / "encoder.pt")
    network = Network(model_dir / "model.onnx", threads=2)
    names, packs = load_packs(model_dir / "voices")
    tokens = [g2p.tokens(g2p.phonemes(probe, "en-us")) for probe in PROBES]
    g2p.close()
    embeddings: list[FloatArray] = []
    for name, pack in zip(names, packs, strict=True):
        mean = np.mean([encoder.embed(network.run(t, pack), RATE_HZ) for t in tokens], axis=0)
        embeddings.append(mean / np.linalg.norm(mean))
        print(name, flush=True)
    return Atlas(names, np.stack(embeddings).astype(np.float32))


if __name__ == "__main__":
    atlas = make(Path(sys.argv[1]))
    with Path(sys.argv[2]).open("wb") as out:
        np.savez_compressed(out, names=np.array(atlas.names), embeddings=atlas.embeddings.astype(np.float16))
