"""What is decided before torch is needed: settings, options, languages, agreement to the licence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from voicebus.common.errors import BadRequest, ConfigError, ModelMissing
from voicebus.workers.engine import Request
from voicebus.workers.engines.xtts import languages, weights
from voicebus.workers.engines.xtts.engine import XttsEngine
from voicebus.workers.engines.xtts.options import Sampling, sampling
from voicebus.workers.engines.xtts.settings import Settings


def test_what_nobody_set_is_as_coqui_has_it() -> None:
    settings = Settings.read({})
    assert (settings.device, settings.precision, settings.batch) == ("auto", "auto", None)
    assert (settings.max_tokens, settings.accept_cpml) == (602, False)
    assert settings.threads >= 1
    assert settings.sampling == Sampling(0.75, 1.0, 10.0, 50, 0.85, True, 0, 20)


def test_settings_are_taken_as_they_come_from_yaml_or_from_a_command_line() -> None:
    typed: dict[str, Any] = {
        "batch": 6,
        "accept_cpml": True,
        "graphs": False,
        "device_memory_mib": 4096,
        "top_k": 30,
        "temperature": 0.5,
        "do_sample": False,
    }
    said = {name: str(value).lower() for name, value in typed.items()}
    assert Settings.read(typed) == Settings.read(said)
    assert Settings.read(said).sampling == Sampling(temperature=0.5, top_k=30, do_sample=False)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"colour": 1}, "colour"),
        ({"batch": 0}, "from 1 to 64"),
        ({"threads": "many"}, "from 1 to 64"),
        ({"device_memory_mib": 63}, "from 64 to 1048576"),
        ({"graphs": "perhaps"}, "true or false"),
        ({"stream_chunk_size": 4}, "from 5 to 200"),
        ({"max_tokens": 603}, "from 10 to 602"),
        ({"max_ref_length": 0}, "from 1 to 600"),
        ({"gpt_cond_len": 601}, "from 1 to 600"),
        ({"gpt_cond_chunk_len": 1.5}, "from 1 to 60"),
        ({"precision": "int8"}, "auto, float32, float16, bfloat16"),
        ({"accept_cpml": "maybe"}, "true or false"),
        ({"temperature": 3}, "from 0.01 to 2"),
        ({"top_k": "few"}, "from 0 to 1000"),
        ({"seed": -1}, "from 0 to 4294967295"),
    ],
)
def test_a_wrong_setting_is_named_with_its_range(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Settings.read(settings)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"warmth": 1}, "it knows temperature"),
        ({"temperature": 0}, "from 0.01 to 2"),
        ({"temperature": float("nan")}, "from 0.01 to 2"),
        ({"temperature": "hot"}, "from 0.01 to 2"),
        ({"length_penalty": 11}, "from -10 to 10"),
        ({"repetition_penalty": 0}, "from 0.1 to 50"),
        ({"top_k": 2.5}, "a whole number from 0 to 1000"),
        ({"top_p": 1.01}, "from 0.01 to 1"),
        ({"top_p": True}, "from 0.01 to 1"),
        ({"do_sample": 1}, "true or false"),
        ({"seed": 2**32}, "from 0 to 4294967295"),
        ({"stream_chunk_size": 201}, "a whole number from 5 to 200"),
        ({"num_beams": 4}, "no option 'num_beams'"),
        ({"enable_text_splitting": True}, "no option 'enable_text_splitting'"),
    ],
)
def test_a_wrong_option_is_named_with_its_range(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        XttsEngine().check(Request("Hello.", "en", options=options))


@pytest.mark.parametrize("speed", [0.2, 4.5, float("nan"), float("inf")])
def test_a_speed_out_of_range_is_refused(speed: float) -> None:
    with pytest.raises(BadRequest, match=r"from 0\.25 to 4"):
        XttsEngine().check(Request("Hello.", "en", speed))


def test_a_requests_options_go_before_those_of_the_settings() -> None:
    defaults = Sampling(temperature=0.3, top_k=7)
    assert sampling({"top_k": 9}, defaults) == Sampling(temperature=0.3, top_k=9)


def test_a_segment_is_as_long_as_its_script_allows() -> None:
    asked = ("en", "en-gb", "zh-cn", "zh", "ja", "pt-br")
    assert [languages.max_chars(tag) for tag in asked] == [250, 250, 82, 82, 71, 203]


def test_a_language_without_its_packages_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "find_spec", lambda name: None if name == "cutlet" else name)
    assert set(languages.MAX_CHARS) - set(languages.available()) == {"ja"}


def test_without_agreement_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOICEBUS_MODELS", str(tmp_path))
    monkeypatch.setenv("COQUI_TOS_AGREED", "1")  # somebody's environment is not the operator's word
    with pytest.raises(ModelMissing, match=r"CPML.*workers\.xtts\.accept_cpml: true"):
        weights.find(Settings())
    assert os.listdir(tmp_path) == []


def test_what_a_folder_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(ModelMissing, match=r"lacks vocab\.json, model\.pth"):
        weights.find(Settings(model_dir=tmp_path))


def test_a_fingerprint_changes_with_the_beginning_the_end_and_the_size(tmp_path: Path) -> None:
    seen: set[str] = set()
    for change in (b"", b"begin", b"end", b"size"):
        data = bytearray(500_000)
        data[:5] = b"begun" if change == b"begin" else data[:5]
        data[-5:] = b"ended" if change == b"end" else data[-5:]
        (tmp_path / "model.pth").write_bytes(bytes(data) + (b"0" if change == b"size" else b""))
        seen.add(weights.fingerprint(tmp_path))
    assert len(seen) == 4
