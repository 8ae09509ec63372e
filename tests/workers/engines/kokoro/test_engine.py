"""The engine with its real model: learning the shipped voice, speaking, refusing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import voicebus.voices
from voicebus.common.errors import BadRequest, ConfigError, ModelMissing
from voicebus.common.models import model_dir
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.kokoro.atlas import load as load_atlas
from voicebus.workers.engines.kokoro.encoder import SpeakerEncoder
from voicebus.workers.engines.kokoro.engine import KokoroEngine
from voicebus.workers.engines.kokoro.enrol import Voice
from voicebus.workers.engines.kokoro.manifest import MANIFEST
from voicebus.workers.engines.kokoro.settings import Settings

TEXT = "The ferry was late, so we sat by the harbour and counted the boats."
RATE_HZ = 24_000
GOLDEN_AT = [13, 18, 83, 125, 149, 158, 212, 227]
GOLDEN = [0.1675127, 0.2916362, 0.1503547, 0.2402198, 0.1782706, 0.1531674, 0.1735844, 0.1777578]


def amber() -> Reference:
    folder = Path(next(iter(voicebus.voices.__path__))) / "amber"
    samples, rate_hz = sf.read(folder / "reference.wav", dtype="float32")
    return Reference("amber", np.asarray(samples, np.float32), rate_hz, sha256="")


@pytest.fixture(scope="module")
def engine() -> Iterator[KokoroEngine]:
    """Loaded from the pulled files; where there are none, every test fails with the command to run."""
    loaded = KokoroEngine()
    loaded.load({"threads": 2})
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def voice(engine: KokoroEngine) -> Voice:
    return engine.voice(amber())


def spoken(engine: KokoroEngine, voice: Voice, text: str, language: str = "en-us") -> np.ndarray:
    parts = [
        part
        for segment in engine.segments(text, language)
        for part in engine.speak(Request(segment, language), voice)
    ]
    assert all(part.dtype == np.float32 and part.ndim == 1 and part.size for part in parts)
    return np.concatenate(parts)


@pytest.mark.model
def test_the_clone_is_nearer_to_the_reference_than_the_default_voice(
    engine: KokoroEngine, voice: Voice
) -> None:
    encoder = engine.encoder
    reference = amber()
    target = encoder.embed(reference.samples, reference.sample_rate)
    default = np.concatenate(list(engine.speak_stock(Request(TEXT, "en-us"), "af_heart")))
    clone = spoken(engine, voice, TEXT)
    reached = float(encoder.embed(clone, RATE_HZ) @ target)
    assert reached > 0.74
    assert reached > float(encoder.embed(default, RATE_HZ) @ target) + 0.1


@pytest.mark.model
def test_speech_is_finite_bounded_and_without_clicks(engine: KokoroEngine, voice: Voice) -> None:
    assert len(engine.segments(TEXT, "en-us")) > 1
    edges: list[float] = []
    for segment in engine.segments(TEXT, "en-us"):
        audio = np.concatenate(list(engine.speak(Request(segment, "en-us"), voice)))
        assert np.isfinite(audio).all()
        assert 0.05 < np.abs(audio).max() < 1.0
        edges += [float(abs(audio[0])), float(abs(audio[-1]))]
    assert max(edges) < 1e-3


@pytest.mark.model
def test_a_voice_from_the_cache_sounds_the_same_to_the_bit(engine: KokoroEngine, voice: Voice) -> None:
    arrays = engine.pack(voice)
    assert arrays is not None
    assert sum(array.nbytes for array in arrays.values()) < 512 * 1024
    back = engine.unpack(arrays)
    np.testing.assert_array_equal(
        spoken(engine, voice, "Good morning."), spoken(engine, back, "Good morning.")
    )


@pytest.mark.model
def test_a_stock_voice_is_kokoros_own_sound_with_pauses(engine: KokoroEngine) -> None:
    request = Request("Good morning, everyone.", "en-us")
    (stock,) = engine.speak_stock(request, "am_adam")
    adam = engine.stock_voice("am_adam")
    said, pause = engine.speak(request, adam)
    np.testing.assert_array_equal(said, stock)
    assert not pause.any()
    arrays = engine.pack(adam)
    np.testing.assert_array_equal(next(engine.speak(request, engine.unpack(arrays))), stock)
    usual = next(engine.speak(request, engine.stock_voice()))
    np.testing.assert_array_equal(usual, next(engine.speak_stock(request, "af_heart")))
    with pytest.raises(ConfigError, match="no voice 'nobody' of its own; it has af_alloy, "):
        engine.stock_voice("nobody")


@pytest.mark.model
def test_speed_changes_the_length(engine: KokoroEngine, voice: Voice) -> None:
    def seconds(speed: float) -> float:
        return (
            sum(p.size for p in engine.speak(Request("One, two, three, four.", "en-us", speed), voice))
            / RATE_HZ
        )

    assert seconds(2.0) < 0.75 * seconds(1.0) < seconds(0.6)


@pytest.mark.model
@pytest.mark.parametrize(
    ("language", "text"),
    [("en-gb", "Good afternoon."), ("fr", "Bonjour à tous."), ("es", "Buenos días."), ("it", "Buongiorno."),
     ("pt-br", "Bom dia."), ("hi", "नमस्ते।"), ("en", "Bare tags work.")],
)  # fmt: skip
def test_every_language_speaks(engine: KokoroEngine, voice: Voice, language: str, text: str) -> None:
    assert 0.4 * RATE_HZ < spoken(engine, voice, text, language).size < 6 * RATE_HZ


@pytest.mark.model
@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request("…", "en-us"), "nothing that can be spoken"),
        (Request("🙂🙂", "en-us"), "nothing that can be spoken"),
        (Request("Guten Tag", "de"), "does not speak 'de'"),
        (Request("Hi", "en-us", speed=3.0), "speed must be"),
        (Request("Hi", "en-us", options={"mood": 1}), "no option 'mood'"),
    ],
)
def test_wrong_requests_are_refused(engine: KokoroEngine, voice: Voice, request_: Request, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        list(engine.speak(request_, voice))


@pytest.mark.model
def test_unusable_references_are_refused(engine: KokoroEngine) -> None:
    silent = np.zeros(4 * RATE_HZ, np.float32)
    noise = (0.1 * np.random.default_rng(0).standard_normal(4 * RATE_HZ)).astype(np.float32)
    for samples, said in ((silent, "silent"), (silent[:1000], "shorter"), (noise, "no usable speech")):
        with pytest.raises(BadRequest, match=said):
            engine.voice(Reference("x", samples, RATE_HZ, sha256=""))


@pytest.mark.model
def test_the_encoder_agrees_with_the_original(engine: KokoroEngine) -> None:
    # The largest numbers of Resemblyzer 0.1.4's own embedding of this chirp, made with PyTorch 2.13.
    t = np.arange(40_000) / 16_000
    chirp = (0.3 * np.sin(2 * np.pi * (150 * t + 300 * t**2))).astype(np.float32)
    found = engine.encoder.embed_prepared(chirp)
    assert isinstance(engine.encoder, SpeakerEncoder)
    np.testing.assert_allclose(found[GOLDEN_AT], GOLDEN, atol=2e-6)
    assert float(np.linalg.norm(found)) == pytest.approx(1.0, abs=1e-5)


def test_settings_are_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    assert Settings.read({"threads": "3"}).threads == 3
    assert Settings.read({}).threads >= 1
    for wrong in ({"threads": 0}, {"threads": "many"}, {"colour": 1}, {"device": "cuda:0"}):
        with pytest.raises(ConfigError):
            KokoroEngine().load(wrong)
    with pytest.raises(ModelMissing, match="vc models pull kokoro"):
        KokoroEngine().load({"model_dir": str(tmp_path)})
    for name in ("model.onnx", "vocab.json", "encoder.pt"):
        (tmp_path / name).write_bytes(b"no model")
    (tmp_path / "voices").mkdir()
    with pytest.raises(ModelMissing, match=r"damaged \(\S+model\.onnx cannot be loaded"):
        KokoroEngine().load({"model_dir": str(tmp_path)})
    (tmp_path / "encoder.pt").unlink()
    os.mkfifo(tmp_path / "encoder.pt")
    with pytest.raises(ModelMissing, match=r"holds no encoder\.pt"):
        KokoroEngine().load({"model_dir": str(tmp_path)})


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (
            "encoder.pt",
            b"cposix\nmkdir\n(Vsprung\ntR.",
            r"encoder\.pt is refused: the file asks for posix\.mkdir",
        ),
        ("vocab.json", b"[" * 100_000, r"vocab\.json is no vocabulary"),
        ("vocab.json", b'{"vocab": {"a": "b"}}', r"vocab\.json is no vocabulary"),
        ("vocab.json", b'{"vocab": [1]}', r"vocab\.json is no vocabulary"),
        ("voices/af_heart.bin", b"short", r"af_heart\.bin is no voice"),
    ],
)
def test_a_model_folder_of_somebody_elses_is_refused_and_the_file_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, said: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_dir(MANIFEST), folder, copy_function=os.symlink)
    (folder / name).unlink()
    (folder / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelMissing, match=said):
        KokoroEngine().load({"model_dir": str(folder), "threads": 1})
    assert not (tmp_path / "sprung").exists()


def test_the_atlas_that_is_shipped_is_sound() -> None:
    atlas = load_atlas()
    assert len(atlas.names) == 54 == len(set(atlas.names))
    assert atlas.names == tuple(sorted(atlas.names))
    np.testing.assert_allclose(np.linalg.norm(atlas.embeddings, axis=1), 1.0, atol=2e-3)
    men, women = (np.array([name[1] == sex for name in atlas.names]) for sex in "mf")
    assert np.exp(atlas.log_f0[men]).mean() < 150 < 175 < np.exp(atlas.log_f0[women]).mean()
