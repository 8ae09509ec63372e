"""The engine on a converter with random weights, over Kokoro and over the tone engine, and on the bus."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from tests.workers.engines.openvoice.checkpoint import ORIGINAL
from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.common.errors import BadRequest, ConfigError, ModelMissing
from voicebus.common.voices import VoiceStore
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.openvoice.engine import OpenVoiceEngine
from voicebus.workers.engines.tone import ToneEngine

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]

RATE_HZ = 22_050


def amber() -> Reference:
    recording = VoiceStore().reference("amber")
    return Reference("amber", recording.samples, recording.rate_hz, recording.sha256)


def loaded(checkpoint: Path, **settings: Any) -> OpenVoiceEngine:
    engine = OpenVoiceEngine()
    engine.load({"converter_dir": str(checkpoint), "threads": 1, **settings})
    return engine


def joined(parts: Iterator[Any]) -> np.ndarray:
    return np.concatenate(list(parts))


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Iterator[OpenVoiceEngine]:
    engine = loaded(checkpoint)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def over_tone(checkpoint: Path) -> Iterator[OpenVoiceEngine]:
    engine = loaded(checkpoint, base="tone", **{"base.sample_rate": 16_000})
    yield engine
    engine.close()


@pytest.mark.model
def test_kokoro_speaks_and_coquis_own_class_gives_the_same(engine: OpenVoiceEngine, checkpoint: Path) -> None:
    from voicebus.workers.engines import coqui

    assert engine.sample_rate == RATE_HZ
    assert engine.languages == engine.base.languages
    request = Request("Good morning, everyone.", "en-us")
    voice = engine.voice(amber())
    spoken = joined(engine.speak(request, voice))
    said, pause = engine.base.speak(request, engine.base.stock_voice("af_heart"))
    length = round((len(said) + len(pause)) * RATE_HZ / 24_000)
    assert spoken.shape == (length,)
    assert not spoken[-round(len(pause) * RATE_HZ / 24_000) + 1 :].any(), "silence stays silent"

    # Coqui's own loader and its own steps, on the same sound.
    torch = coqui.torch()
    config = coqui.module("TTS.vc.configs.openvoice_config").OpenVoiceConfig()
    model = coqui.module("TTS.vc.models.openvoice").OpenVoice(config)
    model.load_checkpoint(config, checkpoint / "checkpoint.pth", eval=True)
    source = torch.from_numpy(engine._source("en-us")[1])
    sound = soxr.resample(said, 24_000, RATE_HZ).astype(np.float32)
    padded = np.pad(sound, (0, -len(sound) % 256))
    target, _ = model.extract_se(torch.from_numpy(soxr.resample(amber().samples, 24_000, RATE_HZ)))
    np.testing.assert_allclose(voice, target.numpy(), atol=1e-6)
    _, spectrum = model.extract_se(torch.from_numpy(padded))
    torch.manual_seed(0)
    with torch.inference_mode():
        made = model.inference(spectrum, {"g_src": source, "g_tgt": target})["model_outputs"][0, 0].numpy()
    count = round(len(said) * RATE_HZ / 24_000)
    np.testing.assert_allclose(spoken[:count], made[:count], atol=1e-5)
    assert np.abs(made).max() > 1e-3, "or it shows nothing"


@pytest.mark.model
def test_each_language_has_its_own_voice_heard_once(
    engine: OpenVoiceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, tone = engine._source("fr")
    assert not np.array_equal(tone, engine._source("en-us")[1])
    assert not np.array_equal(state.weights, engine._source("en-us")[0].weights)
    with monkeypatch.context() as patched:
        patched.setattr(engine._converter, "tone", None)
        assert engine._source("fr")[1] is tone


@pytest.mark.model
def test_a_voice_for_two_languages_is_heard_in_each(checkpoint: Path) -> None:
    """Whichever comes first: another worker, where the other came first, must sound the same."""
    engine = loaded(checkpoint, base_voice={"fr": "if_sara", "it": "if_sara"})
    try:
        french, italian = engine._source("fr"), engine._source("it")
        assert not np.array_equal(french[1], italian[1])
    finally:
        engine.close()


def test_the_voice_is_heard(over_tone: OpenVoiceEngine) -> None:
    voice, request = over_tone.voice(amber()), Request("hello", "en")
    mine, other = joined(over_tone.speak(request, voice)), joined(over_tone.speak(request, -voice))
    assert np.abs(mine - other).max() > 1e-3


def test_takes_differ_and_repeat(over_tone: OpenVoiceEngine) -> None:
    voice = over_tone.voice(amber())
    said = [joined(over_tone.speak(Request("hello hello", "en", take=take), voice)) for take in (0, 1, 0)]
    assert len(said[0]) == round(11 * 0.06 * RATE_HZ)
    np.testing.assert_array_equal(said[0], said[2])
    assert not np.array_equal(said[0], said[1])
    assert not over_tone.speech, "what the base makes of itself holds for the whole"


def test_tau_is_the_requests_or_the_settings(over_tone: OpenVoiceEngine, checkpoint: Path) -> None:
    voice = over_tone.voice(amber())

    def said(engine: OpenVoiceEngine, **options: Any) -> np.ndarray:
        return joined(engine.speak(Request("hello", "en", options=options), voice))

    usual, calm = said(over_tone), said(over_tone, tau=0)
    assert not np.array_equal(usual, calm)
    np.testing.assert_array_equal(said(over_tone), usual, "one request's is not the next one's")
    set_calm = loaded(checkpoint, base="tone", tau=0.0, **{"base.sample_rate": 16_000})
    np.testing.assert_array_equal(said(set_calm), calm)
    set_calm.close()
    for wrong in (1.5, -1, "0.3", True, float("nan")):
        with pytest.raises(BadRequest, match="tau must be a number from 0 to 1"):
            over_tone.check(Request("a", "en", options={"tau": wrong}))
    over_tone.check(Request("a", "en", options={"tau": 1}))


def test_long_speech_comes_in_pieces_as_long_as_the_base(over_tone: OpenVoiceEngine) -> None:
    parts = list(over_tone.speak(Request("many words " * 16, "en"), over_tone.voice(amber())))
    assert len(parts) == 2
    assert sum(map(len, parts)) == round(16 * 11 * 0.06 * RATE_HZ)


def test_a_voice_comes_back_from_its_arrays(over_tone: OpenVoiceEngine) -> None:
    voice = over_tone.voice(amber())
    assert voice.shape == (1, 256, 1)
    np.testing.assert_array_equal(over_tone.unpack(over_tone.pack(voice)), voice)
    for wrong in (voice[0], np.full_like(voice, np.nan)):
        with pytest.raises(ValueError, match="no tone colour"):
            over_tone.unpack({"tone": wrong})


def test_unusable_references_and_requests_are_refused(over_tone: OpenVoiceEngine) -> None:
    silent = np.zeros(3 * RATE_HZ, np.float32)
    for samples, said in ((silent, "silent"), (silent[:1000], "shorter"), (silent * np.nan, "silent")):
        with pytest.raises(BadRequest, match=said):
            over_tone.voice(Reference("x", samples, RATE_HZ, ""))
    with pytest.raises(BadRequest, match="no option"):
        over_tone.check(Request("a", "en", options={"mood": 1}))
    assert over_tone.segments("One. Two.", "en") == ["One.", "Two."]
    assert over_tone.max_chars("en") == 400


def test_wrong_bases_are_refused(checkpoint: Path) -> None:
    for settings, said in (
        ({"base": "nobody"}, "no engine is called 'nobody'"),
        ({"base": "tone", "base.colour": 1}, "no setting 'colour'"),
        ({"base": "tone", "base_voice": "bell"}, "no voice 'bell'"),
        ({"base": "tone", "base_voice": {"xx": ""}}, "for 'xx', which tone does not speak"),
        ({"base": "tone", "device": "cuda:9"}, "there is no device"),
    ):
        with pytest.raises(ConfigError, match=said):
            loaded(checkpoint, **settings)


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_cannot_run_code_and_must_be_the_converters(checkpoint: Path, tmp_path: Path) -> None:
    from voicebus.workers.engines import coqui

    torch = coqui.torch()
    folder = tmp_path / "converter"
    folder.mkdir()
    shutil.copy(checkpoint / "config.json", folder)

    def refused(words: str) -> None:
        with pytest.raises(ModelMissing, match=words):
            loaded(folder, base="tone")

    torch.save({"model": Bomb(tmp_path / "boom")}, folder / "checkpoint.pth")
    refused("could run code")
    assert not (tmp_path / "boom").exists()
    torch.save({"model": {"a": torch.zeros(1)}}, folder / "checkpoint.pth")
    refused("not of OpenVoice v2's converter")
    for wrong in ([1], {"model": [1]}, {"model": {1: torch.zeros(1)}}):
        torch.save(wrong, folder / "checkpoint.pth")
        refused("no checkpoint of OpenVoice")
    saved = torch.load(checkpoint / "checkpoint.pth", weights_only=True)
    saved["model"]["dec.conv_pre.bias"][3] = float("nan")
    torch.save(saved, folder / "checkpoint.pth")
    refused("no numbers")


@pytest.mark.parametrize(
    ("data", "model", "said"),
    [
        ({"sampling_rate": None}, {}, "no configuration"),
        ({"sampling_rate": 0}, {}, "no such spectrogram"),
        ({"win_length": 2048}, {}, "no such spectrogram"),
        ({"hop_length": 128}, {}, "less or more comes out"),
        ({}, {"upsample_rates": [8, 8, 2]}, "less or more comes out"),
        ({}, {"zero_g": "no"}, "not like True"),
        ({}, {"inter_channels": "x"}, "not like 192"),
        ({}, [1], "no configuration"),
        ({}, {"gin_channels": -3}, "can be built"),
        ({}, {"gin_channels": 128}, "not of OpenVoice v2's converter"),
    ],
)
def test_a_configuration_must_fit(
    checkpoint: Path, tmp_path: Path, data: dict[str, Any], model: Any, said: str
) -> None:
    (tmp_path / "checkpoint.pth").symlink_to(checkpoint / "checkpoint.pth")
    written = {"data": ORIGINAL["data"] | data, "model": model}
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(ModelMissing, match=said):
        loaded(tmp_path, base="tone")


def test_a_configuration_may_tell_all_sizes(checkpoint: Path, tmp_path: Path) -> None:
    """As that of the second version does."""
    (tmp_path / "checkpoint.pth").symlink_to(checkpoint / "checkpoint.pth")
    sizes = {"zero_g": True, "inter_channels": 192, "p_dropout": 0, "resblock": "1", "more": 1}
    (tmp_path / "config.json").write_text(json.dumps({**ORIGINAL, "model": sizes}))
    loaded(tmp_path, base="tone").close()


def test_a_base_is_closed_where_loading_fails(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(ToneEngine, "close", lambda self: closed.append(self.name))
    with pytest.raises(ConfigError):
        loaded(checkpoint, base="tone", base_voice="bell")
    assert closed == ["tone"]


def test_over_the_bus(checkpoint: Path) -> None:
    settings = {"converter_dir": str(checkpoint), "base": "tone", "base.seconds_per_char": 0.02, "threads": 1}
    with Bus({"openvoice": 1}, settings=settings, ready_timeout_s=300) as bus, Client(bus.frontend) as client:
        amber_, basil = (client.say("A word.", engine="openvoice", voice=v) for v in ("amber", "basil"))
        status = client.status()["engines"]["openvoice"]
    assert amber_.sample_rate_hz == RATE_HZ
    assert amber_.samples.size == round(7 * 0.02 * RATE_HZ)
    assert not np.array_equal(amber_.samples, basil.samples)
    assert status["version"].startswith("1-")


@pytest.mark.model
def test_over_the_bus_with_what_is_usual(checkpoint: Path) -> None:
    settings = {"converter_dir": str(checkpoint), "threads": 1}
    with Bus({"openvoice": 1}, settings=settings, ready_timeout_s=300) as bus, Client(bus.frontend) as client:
        speech = client.say("Good morning.", engine="openvoice", voice="basil")
    assert 0.5 * RATE_HZ < speech.samples.size < 4 * RATE_HZ
    assert speech.samples.any()


def test_over_a_model_that_streams(checkpoint: Path, tmp_path: Path) -> None:
    """XTTS gives audio in parts of its own size, draws numbers of its own, and names its voices."""
    from tests.workers.engines.checkpoints import make_xtts

    settings = {"base.model_dir": str(make_xtts(tmp_path)), "base.accept_cpml": True, "device": "cpu"}
    engine = loaded(checkpoint, base="xtts", base_voice="Tester Two", **settings)
    try:
        said = joined(engine.speak(Request("Hello there, my friends.", "en"), engine.voice(amber())))
        assert said.size > RATE_HZ / 2
        assert "zh-cn" in engine.languages
        assert engine.figures() == engine.base.figures() != {}
    finally:
        engine.close()
