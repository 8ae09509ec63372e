"""OpenVoice's tone colour converter, as coqui's TTS package has it, with original checkpoints.

It hears who speaks as 256 numbers, a tone colour, and lays one tone colour in another's place frame by
frame; words, pace, melody and accent stay. Checkpoints are read as plain tensors, strictly; the original's
config.json tells the spectrogram and, in some releases, the sizes of the network, which else are standard.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from ....common.errors import ModelMissing
from ...engine import Samples
from .. import coqui
from .settings import FILES, WHERE

TONE_SIZE: Final = 256
_AUDIO: Final = {
    "fft_size": "filter_length",
    "hop_length": "hop_length",
    "win_length": "win_length",
    "input_sample_rate": "sampling_rate",
    "output_sample_rate": "sampling_rate",
}
_LEAST_FRAMES: Final = 4
"Shorter audio is filled up: the spectrogram mirrors its ends, and there must be something to mirror."

FloatArray = NDArray[np.float32]


class Converter:
    """A loaded converter. Not for several threads."""

    rate_hz: int

    def __init__(self, folder: Path, device: str) -> None:
        """Load from a folder with `config.json` and `checkpoint.pth`.

        Raises `ModelMissing` for files that are damaged or of another model, `ConfigError` for a device that
        is not there, `ModuleNotFoundError` without PyTorch or coqui's TTS.
        """
        # Threads that wait for each other in a busy loop are the worst company: on two shared cores a second
        # of speech took 15 s to convert with two threads, and 1.7 s when they sleep instead. Read once, when
        # PyTorch is first imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        self._torch = coqui.torch()
        self._device: Any = coqui.device(device)
        config = _config(folder / FILES[0])
        checkpoint = folder / FILES[1]
        weights = coqui.load_weights(checkpoint)
        state: Any = cast("dict[str, Any]", weights).get("model") if isinstance(weights, dict) else None
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in cast("Any", state)):
            raise ModelMissing(f"{checkpoint} is no checkpoint of OpenVoice: {WHERE}")
        model_class: Any = coqui.module("TTS.vc.models.openvoice").OpenVoice
        try:
            model: Any = model_class(config)
        except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AssertionError) as error:
            raise ModelMissing(
                f"{folder / FILES[0]} describes no converter that can be built ({error}): {WHERE}"
            ) from error
        try:
            model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            first = str(error).strip().splitlines()[-1].strip()
            raise ModelMissing(
                f"{checkpoint} is not of OpenVoice v2's converter ({first}): {WHERE}"
            ) from error
        # One number that is none spreads to all that is said; a copy that went wrong is told now.
        if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
            raise ModelMissing(f"{checkpoint} is damaged, it holds weights that are no numbers: {WHERE}")
        self._model = model.to(self._device).eval()
        self.rate_hz = int(config.audio.output_sample_rate)
        self._hop = int(config.audio.hop_length)
        self.fingerprint = _fingerprint(checkpoint)
        "The weights' SHA-256, shortened: tone colours of other weights mean nothing to these."

    def figures(self) -> dict[str, int | float]:
        """What is in use on the device."""
        return coqui.device_figures(self._device)

    def tone(self, samples: Samples) -> FloatArray:
        """Hear who speaks: tone colour [1, 256, 1] of at least half a second of audio at `rate_hz`."""
        with self._torch.inference_mode():
            tone, _ = self._model.extract_se(self._tensor(samples))
        return np.asarray(tone.cpu().float().numpy(), np.float32)

    def convert(
        self, samples: Samples, source: FloatArray, target: FloatArray, *, tau: float, seed: int = 0
    ) -> Samples:
        """Say it in another tone colour: float32 at `rate_hz`, as long as what came in, within [-1, 1].

        The model draws numbers; the same seed draws the same, and leaves alone what others draw.
        """
        torch = self._torch
        devices: list[Any] = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seed)
            _, spectrum = self._model.extract_se(self._tensor(self._filled(samples)))
            tones = {"g_src": self._tensor(source), "g_tgt": self._tensor(target)}
            self._model.tau = tau  # its one way in
            made = self._model.inference(spectrum, tones)["model_outputs"][0, 0]
            audio = made.cpu().float().numpy()
        return np.asarray(audio[: len(samples)], np.float32)

    def _filled(self, samples: Samples) -> Samples:
        """Whole frames: the model leaves out the rest of the last one."""
        frames = max(_LEAST_FRAMES, -(-len(samples) // self._hop))
        return np.pad(np.asarray(samples, np.float32), (0, frames * self._hop - len(samples)))

    def _tensor(self, array: FloatArray) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _config(path: Path) -> Any:
    """Coqui's configuration of what the original's file describes."""
    config: Any = coqui.module("TTS.vc.configs.openvoice_config").OpenVoiceConfig()
    known = {size.name for size in fields(config.model_args)}
    try:
        original: Any = json.loads(path.read_text("utf-8"))
        audio = original["data"]
        for name, theirs in _AUDIO.items():
            setattr(config.audio, name, int(audio[theirs]))
        sizes: dict[str, Any] = original.get("model", {})
        for name, value in sizes.items():
            if name in known:
                setattr(config.model_args, name, _like(getattr(config.model_args, name), value))
        found = config.audio
        if not 1 <= found.hop_length <= found.win_length <= found.fft_size or found.output_sample_rate < 1:
            raise ValueError("no such spectrogram")
        # The network makes so many samples of each frame: were it another number, speech would drag or race.
        if math.prod(config.model_args.upsample_rates) != found.hop_length:
            raise ValueError("a frame goes in and less or more comes out")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelMissing(
            f"{path} is no configuration of OpenVoice's converter ({error}): {WHERE}"
        ) from error
    return config


def _like(standard: object, value: object) -> object:
    """The value, where it is of the standard's kind. Raises `TypeError` where it is not."""
    # JSON knows no difference between 0 and 0.0, but one between 1 and true.
    found = float if type(value) is int and isinstance(standard, float) else type(value)
    if found is not type(standard):
        raise TypeError(f"{value!r} is not like {standard!r}")
    return value


def _fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
