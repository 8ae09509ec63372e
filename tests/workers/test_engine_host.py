"""The child's end of the link, over a real PAIR."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytest

from tests.workers.fakes import FakeEngine
from voicebus.common.errors import ConfigError, EngineError, ProtocolError
from voicebus.workers import control, engine_host, registry


@pytest.mark.parametrize(
    "wrong",
    [{"sample_rate": 100}, {"languages": ()}, {"languages": ("english (us)",)}, {"version": "v" * 200}],
)
def test_an_engine_that_describes_itself_wrongly_is_refused_when_it_is_loaded(
    wrong: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker would refuse its READY over and over, and the worker would never say why."""
    engine = FakeEngine()
    for name, value in wrong.items():
        monkeypatch.setattr(engine, name, value)
    monkeypatch.setattr(registry, "create", lambda name: engine)
    setup = control.Setup("w", "fake", {}, "voices", "amber", "/cache", {})
    with pytest.raises(EngineError, match="describes itself wrongly"):
        engine_host._load(setup)


def test_an_engine_that_lacks_a_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, `vc-worker kokoro` showed a traceback for onnxruntime."""

    class Lacking(FakeEngine):
        def load(self, settings: Mapping[str, Any]) -> None:
            import_module("no_such_package")

    monkeypatch.setattr(registry, "create", lambda name: Lacking())
    setup = control.Setup("w", "kokoro", {}, "voices", "amber", "/cache", {})
    with pytest.raises(ConfigError, match=r"no_such_package.*voicebus\[kokoro\]"):
        engine_host._load(setup)


def test_an_engine_that_asks_a_question_reads_an_end_of_file() -> None:
    """Its standard input is the agent's lifeline: reading from that would wait for ever."""
    code = (
        "from voicebus.workers.engine_host import _take_standard_input\n"
        "import os\n"
        "lifeline = _take_standard_input()\n"
        "print(repr(os.read(0, 9)), repr(os.read(lifeline, 9)), os.get_inheritable(lifeline))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], input="alive", capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "b'' b'alive' False"


def test_control_messages_survive_the_link_and_refuse_what_they_are_not() -> None:
    setup = control.Setup(
        "w", "tone", {"a": [1, {"b": None}]}, "voices", "amber", "/cache", {"level": "INFO"}
    )
    envelope, header = control.message(control.SETUP, setup)
    assert envelope[3] == control.SETUP
    assert control.decode(header, control.Setup) == setup
    with pytest.raises(ProtocolError, match="bad Loaded"):
        control.decode(header, control.Loaded)
