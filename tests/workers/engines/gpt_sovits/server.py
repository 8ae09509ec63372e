"""Runs the real api_v2 application of gpt-sovits-cpufast with its models stood in for.

    .cache/gpt-sovits/bin/python tests/workers/engines/gpt_sovits/server.py PORT FOLDER

Everything that speaks HTTP is the package's own; only its pipeline's class, which needs weights that are not
in any package index, is replaced by one that makes tones and misbehaves as the real one does when a text
asks for it:

    RAISE    fails before it begins (in a whole answer: 400 "tts failed")
    SILENCE  fails while it infers (a second of silence at 16 kHz, then the exception)
    BREAK    the same after a first fragment
    HOLD     waits after the first fragment, until there is a file FOLDER/go

On standard output it says what it is asked, one JSON a line.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PORT, FOLDER = sys.argv[1], Path(sys.argv[2]).absolute()
sys.path.insert(0, str(Path(__file__).parent))
os.environ["GPT_SOVITS_DATA_DIR"] = str(FOLDER)

from gpt_sovits_cpufast.runtime import configure_runtime  # noqa: E402  # pyright: ignore

configure_runtime()

from tones import RATE_HZ, fragments, spoken  # noqa: E402  # pyright: ignore
from tools.audio_utils import load_audio_mono  # noqa: E402  # pyright: ignore
from tools.i18n.i18n import I18nAuto  # noqa: E402  # pyright: ignore

SPEAKS = ("auto", "auto_yue", "en", "zh", "ja", "yue", "ko", "all_zh", "all_ja", "all_yue", "all_ko")


class Config:
    version = os.environ.get("STAND_IN_VERSION", "v2ProPlus")
    languages = SPEAKS

    def __init__(self, path: str) -> None:
        pass


class Pipeline:
    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, inputs: dict[str, Any]) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        print(json.dumps(inputs), file=sys.__stdout__, flush=True)
        text, path = inputs["text"], inputs["ref_audio_path"]
        if not inputs["prompt_text"] and self.config.version in ("v3", "v4"):
            raise RuntimeError("prompt_text cannot be empty when using SoVITS_V3")
        if not os.path.exists(path):
            raise ValueError(f"{path} not exists")
        if not 48_000 <= load_audio_mono(path, sample_rate=16_000).shape[0] <= 160_000:
            raise OSError(I18nAuto(language="zh_CN")("参考音频在3~10秒范围外，请更换！"))
        if "RAISE" in text:
            raise RuntimeError("the stand-in was asked to fail")
        try:
            yield from self._speak(text, inputs)
        except RuntimeError:
            yield 16000, np.zeros(16000, dtype=np.int16)
            raise

    def _speak(self, text: str, inputs: dict[str, Any]) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        if "SILENCE" in text:
            raise RuntimeError("the stand-in was asked to fail inside")
        parts = fragments(text, inputs["speed_factor"])
        if not (inputs["streaming_mode"] or inputs["return_fragment"]):
            self._hold(text)
            yield RATE_HZ, spoken(text, inputs["speed_factor"])
            return
        yield RATE_HZ, parts[0]
        if "BREAK" in text:
            raise RuntimeError("the stand-in was asked to fail in the middle")
        self._hold(text)
        for part in parts[1:]:
            yield RATE_HZ, part

    def _hold(self, text: str) -> None:
        while "HOLD" in text and not (FOLDER / "go").exists():
            time.sleep(0.01)


module = types.ModuleType("GPT_SoVITS.TTS_infer_pack.TTS")
module.TTS, module.TTS_Config = Pipeline, Config  # pyright: ignore
sys.modules[module.__name__] = module
# The real one prints as it goes; ours keeps standard output for the test.
sys.stdout = sys.stderr
sys.argv = ["api_v2", "-a", "127.0.0.1", "-p", PORT]
runpy.run_module("gpt_sovits_cpufast.api_v2", run_name="__main__")
