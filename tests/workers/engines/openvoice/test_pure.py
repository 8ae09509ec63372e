"""What needs no model: settings, and where speech is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.common.errors import ConfigError, ModelMissing
from voicebus.workers.engines.openvoice.phrases import most_natural, phrase
from voicebus.workers.engines.openvoice.pieces import CONTEXT_S, MOST_S, Piece, Pieces
from voicebus.workers.engines.openvoice.settings import KNOWN, Settings

RATE_HZ = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "converter").mkdir()
    for name in ("config.json", "checkpoint.pth"):
        (tmp_path / "converter" / name).write_bytes(b"x")
    return tmp_path


def test_settings_travel_to_the_base_in_two_ways(folder: Path) -> None:
    settings = Settings.read(
        {
            "converter_dir": str(folder),
            "base": "xtts",
            "base_settings": {"model_dir": "/a", "batch": 4},
            "base.model_dir": "/b",
            "threads": 2,
            "device": "cuda:0",
        }
    )
    assert settings.converter == folder / "converter", "either folder will do"
    assert settings.base_settings == {"threads": 2, "model_dir": "/b", "batch": 4}
    assert Settings.read({"converter_dir": str(folder / "converter")}).base_settings == {}
    on_cpu = Settings.read({"converter_dir": str(folder), "device": "cpu", "base.threads": 1, "threads": "3"})
    assert on_cpu.base_settings == {"device": "cpu", "threads": 1}
    assert on_cpu.threads == 3


def test_the_base_speaks_each_language_in_a_voice_of_its_own(folder: Path) -> None:
    def voices(**settings: Any) -> tuple[str, str]:
        read = Settings.read({"converter_dir": str(folder)} | settings)
        return read.base_voice("fr"), read.base_voice("en-us")

    assert voices() == ("ff_siwis", "af_heart")
    assert voices(base_voice="am_adam") == ("am_adam", "am_adam")
    assert voices(base_voice={"FR": "ff_siwis"}) == ("ff_siwis", "")
    assert voices(base_voice={"en": "am_adam", "": "if_sara"}) == ("if_sara", "am_adam"), "en is en-us too"
    assert voices(base="xtts") == ("", "")


def test_a_voice_for_a_language_that_is_not_spoken_is_told(folder: Path) -> None:
    settings = Settings.read({"converter_dir": str(folder), "base_voice": {"en": "a", "FR": "b", "": "c"}})
    settings.check_languages(("en-us", "fr"))
    with pytest.raises(ConfigError, match="a voice for 'fr', which kokoro does not speak; it speaks en-us"):
        settings.check_languages(("en-us",))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"colour": 1}, "'colour'; it knows converter_dir"),
        ({"base": "openvoice"}, "its own base"),
        ({"base": 3}, "name of an engine"),
        ({"base_settings": "model_dir"}, "must be a mapping"),
        ({"base_voice": 3}, "base_voice"),
        ({"base_voice": {"en": 3}}, "base_voice"),
        ({"tau": 1.5}, "tau must be"),
        ({"tau": True}, "tau must be"),
        ({"threads": 0}, "threads must be"),
        ({"threads": "many"}, "threads must be"),
    ],
)
def test_wrong_settings_are_refused(folder: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Settings.read({"converter_dir": str(folder)} | wrong)
    assert set(wrong) - {"colour"} <= set(KNOWN)


def test_missing_files_are_told_with_where_they_are_to_be_had(folder: Path) -> None:
    for given_dir in ({}, {"converter_dir": ""}, {"converter_dir": str(folder / "nowhere")}):
        with pytest.raises(ModelMissing, match="OpenVoice v2 checkpoints"):
            Settings.read(given_dir)
    (folder / "converter" / "checkpoint.pth").unlink()
    with pytest.raises(ModelMissing, match=r"holds no checkpoint\.pth"):
        Settings.read({"converter_dir": str(folder)})


def test_there_is_something_to_say_in_any_language() -> None:
    assert most_natural(("ar", "de", "en-gb")) == "en-gb"
    assert most_natural(("ar", "de")) == "ar"
    assert most_natural(("xx", "pt-br")) == "pt-br"
    assert most_natural(("xx",)) == "xx"
    assert phrase("pt-br").startswith("Hoje")
    assert any(map(str.isdigit, phrase("xx")))


def wanted(pieces: list[Piece]) -> np.ndarray:
    return np.concatenate(
        [np.zeros(0, np.float32), *(piece.samples[piece.start : piece.stop] for piece in pieces)]
    )


@given(
    st.lists(st.tuples(st.integers(0, 9000), st.booleans()), max_size=8), st.integers(0, 99), st.booleans()
)
def test_pieces_are_all_of_the_speech_in_order(
    parts: list[tuple[int, bool]], seed: int, streamed: bool
) -> None:
    chance = np.random.default_rng(seed)
    fed = [(chance.standard_normal(size) * loud).astype(np.float32) for size, loud in parts]
    cutter = Pieces(RATE_HZ, streamed=streamed)
    found = [piece for part in fed for piece in cutter.feed(part)] + cutter.end()
    np.testing.assert_array_equal(wanted(found), np.concatenate([np.zeros(0, np.float32), *fed]))
    assert cutter.end() == []
    context = round(CONTEXT_S * RATE_HZ)
    for piece in found:
        assert piece.is_silent or piece.stop - piece.start <= MOST_S * RATE_HZ + context
        assert piece.start <= context
        assert len(piece.samples) - piece.stop <= context


def test_long_speech_is_cut_where_it_is_quiet_and_with_its_surroundings() -> None:
    speech = np.random.default_rng(3).standard_normal(14 * RATE_HZ).astype(np.float32)
    speech[6000:6200] *= 0.001
    cutter = Pieces(RATE_HZ)
    (first,) = [piece for part in np.array_split(speech, 30) for piece in cutter.feed(part)]
    (rest,) = cutter.end()
    assert 6000 <= first.stop <= 6200
    np.testing.assert_array_equal(first.samples, speech[: first.stop + 500])
    np.testing.assert_array_equal(rest.samples, speech[first.stop - 500 :])
    assert rest.start == 500


def test_a_listener_gets_a_short_piece_first_and_then_longer_ones() -> None:
    cutter = Pieces(RATE_HZ, streamed=True)
    noise = np.random.default_rng(3).standard_normal(3 * RATE_HZ).astype(np.float32)
    lengths = [piece.stop - piece.start for _ in range(9) for piece in cutter.feed(noise)]
    assert 1000 <= lengths[0] <= 2500
    assert 2000 <= lengths[1] <= 5000
    assert all(3200 <= length <= 8000 for length in lengths[2:])


def test_pure_silence_is_passed_over_and_parts_what_is_spoken() -> None:
    cutter = Pieces(RATE_HZ)
    speech, silence = np.ones(700, np.float32), np.zeros(300, np.float32)
    assert cutter.feed(speech) == []
    spoken, quiet = cutter.feed(silence)
    assert (spoken.is_silent, quiet.is_silent) == (False, True)
    cutter.feed(speech)
    (again,) = cutter.end()
    assert (again.start, again.stop) == (0, 700), "what came before the silence is no context"
