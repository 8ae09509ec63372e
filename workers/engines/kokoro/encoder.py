"""The speaker encoder that tells how alike two voices sound, in numpy alone.

It is the GE2E network of Wan et al. (2018, arXiv:1710.10467) with the weights that Resemblyzer 0.1.4
ships: 40 mel bands every 10 ms, three LSTM layers of 256, one linear layer; windows of 1.6 s are embedded
one by one and averaged. The network is so small that numpy runs it faster than PyTorch loads, and the
enrolment calls it some dozens of times, always with a batch of windows.

One thing differs from Resemblyzer: it cuts long silences with WebRTC's voice detector, a C extension; we
cut them by energy. Given the same cut audio, the embeddings agree to about 1e-6.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .weights import read_tensors

FloatArray = NDArray[np.float32]

RATE_HZ: Final = 16_000
HOP: Final = 160
WINDOW: Final = 400
MEL_BANDS: Final = 40
PARTIAL_FRAMES: Final = 160
PARTIALS_PER_S: Final = 1.3
LEVEL_DBFS: Final = -30.0
LAYERS: Final = 3


def _hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    step = float(np.log(6.4)) / 27.0
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, 15.0 + np.log(np.maximum(hz, 1e-9) / 1000.0) / step)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    step = float(np.log(6.4)) / 27.0
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp(step * (mel - 15.0)))


@lru_cache(maxsize=1)
def mel_filters() -> FloatArray:
    """Triangles of equal area on Slaney's scale from 0 to 8 kHz: [bands, bins]."""
    bins_hz = np.linspace(0.0, RATE_HZ / 2, WINDOW // 2 + 1)
    top = float(_hz_to_mel(np.array([RATE_HZ / 2]))[0])
    edges_hz = _mel_to_hz(np.linspace(0.0, top, MEL_BANDS + 2))
    rising = (bins_hz[None, :] - edges_hz[:-2, None]) / np.diff(edges_hz)[:-1, None]
    falling = (edges_hz[2:, None] - bins_hz[None, :]) / np.diff(edges_hz)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]).astype(np.float32)


def mel_spectrogram(samples: FloatArray) -> FloatArray:
    """Power in 40 mel bands of 16 kHz audio, a frame each 10 ms: [frames, bands]."""
    padded = np.pad(samples, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    spectrum = np.fft.rfft(frames * hann, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return power @ mel_filters().T


def normalise_level(samples: FloatArray) -> FloatArray:
    """Raise quiet audio to -30 dBFS RMS; loud audio stays as it is, as the network was trained."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0
    if rms <= 0.0:
        return samples
    gain = 10.0 ** (LEVEL_DBFS / 20.0) / rms
    return samples * np.float32(gain) if gain > 1.0 else samples


def cut_silence(samples: FloatArray, *, below_db: float = 35.0, hold_ms: int = 120) -> FloatArray:
    """Drop stretches more than `below_db` under the loud parts, keeping `hold_ms` around speech."""
    block = RATE_HZ * 30 // 1000
    count = samples.size // block
    if count == 0:
        return samples
    level = np.sqrt(np.mean(samples[: count * block].reshape(count, block) ** 2, axis=1))
    keep = level > max(float(np.percentile(level, 95)) * 10 ** (-below_db / 20), 1e-5)
    reach = max(1, hold_ms // 30)
    keep = np.convolve(keep, np.ones(2 * reach + 1), mode="same") > 0
    return samples[: count * block][np.repeat(keep, block)]


def _partial_starts(samples: int) -> list[int]:
    """First frames of the windows; the last one is dropped where audio covers less than 3/4 of it."""
    frames = -(-(samples + 1) // HOP)
    step = round(RATE_HZ / PARTIALS_PER_S / HOP)
    starts = list(range(0, max(1, frames - PARTIAL_FRAMES + step + 1), step))
    covered = (samples - starts[-1] * HOP) / (PARTIAL_FRAMES * HOP)
    return starts[:-1] if covered < 0.75 and len(starts) > 1 else starts


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1.0))


class SpeakerEncoder:
    """Maps speech to a unit vector of 256; the cosine of two tells how alike the speakers are."""

    def __init__(self, weights: Path) -> None:
        state = read_tensors(weights, "model_state")
        self._layers = [
            (
                np.ascontiguousarray(state[f"lstm.weight_ih_l{i}"].T),
                np.ascontiguousarray(state[f"lstm.weight_hh_l{i}"].T),
                state[f"lstm.bias_ih_l{i}"] + state[f"lstm.bias_hh_l{i}"],
            )
            for i in range(LAYERS)
        ]
        self._linear = np.ascontiguousarray(state["linear.weight"].T), state["linear.bias"]

    def forward(self, mels: FloatArray) -> FloatArray:
        """Embed windows: [windows, frames, bands] to unit vectors [windows, 256]."""
        sequence = np.ascontiguousarray(mels.transpose(1, 0, 2))
        frames, batch, _ = sequence.shape
        for input_weights, hidden_weights, bias in self._layers:
            width = hidden_weights.shape[0]
            driven = sequence.reshape(frames * batch, -1) @ input_weights + bias
            driven = driven.reshape(frames, batch, 4 * width)
            hidden = np.zeros((batch, width), np.float32)
            cell = np.zeros((batch, width), np.float32)
            sequence = np.empty((frames, batch, width), np.float32)
            for t in range(frames):
                gates = driven[t] + hidden @ hidden_weights
                entry, forget = _sigmoid(gates[:, :width]), _sigmoid(gates[:, width : 2 * width])
                cell = forget * cell + entry * np.tanh(gates[:, 2 * width : 3 * width])
                hidden = _sigmoid(gates[:, 3 * width :]) * np.tanh(cell)
                sequence[t] = hidden
        weights, bias = self._linear
        raw = np.maximum(sequence[-1] @ weights + bias, 0.0)
        return raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-9)

    def embed_prepared(self, samples: FloatArray) -> FloatArray:
        """Embed 16 kHz audio as it stands, without levelling or cutting."""
        starts = _partial_starts(samples.size)
        needed = (starts[-1] + PARTIAL_FRAMES) * HOP
        mel = mel_spectrogram(np.pad(samples, (0, max(0, needed - samples.size))))
        mean = self.forward(np.stack([mel[s : s + PARTIAL_FRAMES] for s in starts])).mean(axis=0)
        return mean / np.linalg.norm(mean)

    def embed(self, samples: FloatArray, rate_hz: int) -> FloatArray:
        """Embed mono speech of any rate: a unit vector [256]."""
        if rate_hz != RATE_HZ:
            import soxr

            samples = soxr.resample(samples, rate_hz, RATE_HZ)
        return self.embed_prepared(cut_silence(normalise_level(np.asarray(samples, np.float32))))
