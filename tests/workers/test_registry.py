from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from voicebus.common.errors import ConfigError
from voicebus.workers import registry
from voicebus.workers.engines.tone import ToneEngine


@pytest.fixture(autouse=True)
def points(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "tone": "voicebus.workers.engines.tone:ToneEngine",
        "absent": "no_such_package.engine:Engine",
        "renamed": "voicebus.workers.engines.tone:NoSuchClass",
        "wrong": "collections:OrderedDict",
    }
    found = EntryPoints(EntryPoint(name, value, registry.GROUP) for name, value in values.items())
    monkeypatch.setattr(registry, "entry_points", lambda group: found.select(group=group))


def test_an_engine_is_found_by_its_entry_point() -> None:
    assert registry.installed() == ["absent", "renamed", "tone", "wrong"]
    assert isinstance(registry.create("tone"), ToneEngine)


def test_an_engine_of_ours_names_its_extra() -> None:
    assert "pip install 'voicebus[kokoro]'" in registry.remedy("kokoro")
    assert "pip install 'voicebus[gpt-sovits]'" in registry.remedy("gpt-sovits")
    assert "voicebus[" not in registry.remedy("somebody-elses")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "installed are absent, renamed, tone, wrong"),
        ("absent", "no_such_package.*documentation"),
        ("renamed", "cannot be imported"),
        ("wrong", "not a subclass of Engine"),
    ],
)
def test_what_is_no_engine_is_a_configuration_error(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        registry.create(name)
