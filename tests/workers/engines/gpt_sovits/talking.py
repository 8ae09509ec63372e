"""What the tests of the engine against a scripted server share: one tone, and how it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.workers.engines.gpt_sovits.scripted import CHUNKED, LAST_CHUNK, chunk, http, open_header, wav
from tests.workers.engines.gpt_sovits.tones import spoken
from voicebus.common.audio import to_s16
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.gpt_sovits.engine import GptSovitsEngine
from voicebus.workers.engines.gpt_sovits.reference import Voice

TONES = spoken("Hello.")
PCM = TONES.tobytes()
WHOLE = http(wav(TONES))
STREAM = [CHUNKED, chunk(open_header()), chunk(PCM), LAST_CHUNK]
Start = Callable[..., GptSovitsEngine]


@contextmanager
def starting(folder: Path) -> Generator[Start]:
    """Loads engines for the server at a URL, which place references in `folder`; closes them at the end."""
    engines: list[GptSovitsEngine] = []

    def load(url: str, **settings: Any) -> GptSovitsEngine:
        engine = GptSovitsEngine()
        engine.load({"api_url": url, "reference_dir": str(folder)} | settings)
        engines.append(engine)
        return engine

    yield load
    for engine in engines:
        engine.close()


def voice(engine: GptSovitsEngine, text: str | None = "Said.", language: str = "en-us") -> Voice:
    samples = (np.sin(np.arange(4 * 16_000) / 20) / 4).astype(np.float32)
    return engine.voice(Reference("v", samples, 16_000, "0" * 64, language, text))


def say(engine: GptSovitsEngine, text: str = "Hello.", **request: Any) -> np.ndarray[Any, Any]:
    parts = list(engine.speak(Request(text, "en", **request), voice(engine)))
    return to_s16(np.concatenate([np.zeros(0, np.float32), *parts]))
