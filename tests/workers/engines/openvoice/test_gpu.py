"""OpenVoice's converter on an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from voicebus.common.config import load_config
from voicebus.common.voices import VoiceStore
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.openvoice.converter import Converter
from voicebus.workers.engines.openvoice.engine import OpenVoiceEngine

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


def test_a_gpu_converts_as_the_cpu_does(checkpoint: Path) -> None:
    """Without the noise, which each device draws for itself; with it, a seed repeats."""
    here, there = Converter(checkpoint, "cpu"), Converter(checkpoint, "cuda:0")
    times = np.arange(2 * here.rate_hz) / here.rate_hz
    buzz = np.sum([np.sin(2 * np.pi * 140 * order * times) / order for order in range(1, 12)], axis=0)
    samples = np.asarray(0.2 * buzz, np.float32)
    source, target = here.tone(samples), here.tone(samples[::-1].copy())
    assert np.allclose(there.tone(samples), source, atol=1e-2)
    one, other = (converter.convert(samples, source, target, tau=0.0) for converter in (here, there))
    assert np.corrcoef(one, other)[0, 1] > 0.999
    noisy = [there.convert(samples, source, target, tau=0.3, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])


def test_the_engine_tells_what_it_holds_of_the_gpu(checkpoint: Path) -> None:
    engine = OpenVoiceEngine()
    engine.load({"converter_dir": str(checkpoint), "base": "tone", "device": "cuda:0"})
    recording = VoiceStore(load_config(None).voices.path).reference("amber")
    voice = engine.voice(Reference("amber", recording.samples, recording.rate_hz, recording.sha256))
    spoken = np.concatenate(list(engine.speak(Request("Hello there, everybody.", "en"), voice)))
    assert np.isfinite(spoken).all()
    assert spoken.size > engine.sample_rate // 2
    assert engine.figures()["device_bytes"] > 2**20
    engine.close()
