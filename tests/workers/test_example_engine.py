"""The example engine is found as an installed package's would be, and does what docs/engines.md says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.workers.fakes import FakeLink
from voicebus.common import wire
from voicebus.common.errors import ConfigError
from voicebus.common.messages import Submit, encode
from voicebus.common.voices import VoiceStore
from voicebus.common.wire import pack_envelope
from voicebus.workers import registry
from voicebus.workers.attempt import Host
from voicebus.workers.catalogue import StoreCatalogue
from voicebus.workers.checking import Checker
from voicebus.workers.engine import Reference
from voicebus.workers.speaking import Speaker
from voicebus.workers.voicecache import VoiceCache

EXAMPLE = Path(__file__).parents[2] / "examples" / "engine"


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay out what pip would: the module, and the metadata of its project file."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    metadata = tmp_path / f"voicebus_morse-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLE)


def test_it_speaks_with_a_shipped_voice_and_keeps_what_it_learnt(tmp_path: Path) -> None:
    assert "morse" in registry.installed()
    engine = registry.create("morse")
    engine.load({"words_per_minute": 30})
    catalogue = StoreCatalogue(VoiceStore(tmp_path / "voices", cache_dir=tmp_path))
    link = FakeLink()
    voices = VoiceCache(engine, catalogue, "amber", tmp_path)
    speaker = Speaker(Host("morse", "w", engine, voices, link, Checker()))
    speaker.run([pack_envelope(wire.JOB, b"j" * 16, 1), encode(Submit(language="en-gb")), b"sos"])
    messages = link.messages
    assert [messages[0].name, messages[-1].name] == ["STARTED", "DONE"]
    units = (3 * (1 + 1) + 2) + (3 * (3 + 1) + 2) + (3 * (1 + 1) + 2)
    assert messages[-1].header[1] == units * 640  # 1.2 s / 30 at 16 kHz
    assert len(list(tmp_path.rglob("*.npz"))) == 1


def test_the_tone_is_two_octaves_above_the_recordings_pitch() -> None:
    engine = registry.create("morse")
    engine.load({})
    times = np.arange(24_000) / 24_000
    hum = np.sin(2 * np.pi * 120 * times) + 0.5 * np.sin(2 * np.pi * 240 * times)
    tone_hz = engine.voice(Reference("x", hum.astype(np.float32), 24_000, "00" * 32))
    assert tone_hz == pytest.approx(480, rel=0.01)
    packed = engine.pack(tone_hz)
    assert packed is not None
    assert engine.unpack(packed) == tone_hz


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="5 to 60"):
        registry.create("morse").load({"words_per_minute": 500})
