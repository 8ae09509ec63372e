"""The child's end of the link, over a real PAIR."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import pytest
import zmq

from tests.workers.fakes import FakeEngine
from voicebus.common import wire
from voicebus.common.errors import Cancelled, ConfigError, EngineError, ProtocolError
from voicebus.common.wire import pack_envelope
from voicebus.workers import control, engine_host, registry
from voicebus.workers.engine_host import SEND_AHEAD, AgentLink

KEY = b"j" * 16 + b"\0\2"
CANCEL = pack_envelope(wire.CANCEL, b"j" * 16, 2)


@pytest.fixture
def ends() -> Iterator[tuple[AgentLink, zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    agent = context.socket(zmq.PAIR)
    agent.rcvhwm = 1
    agent.bind("inproc://link")
    yield AgentLink(context, "inproc://link"), agent
    context.destroy(linger=0)


def test_only_the_current_jobs_cancel_stops_it(ends: tuple[AgentLink, zmq.Socket[bytes]]) -> None:
    link, agent = ends
    link.begin(KEY)
    agent.send(pack_envelope(wire.CANCEL, b"j" * 16, 1))
    link.check()
    agent.send(CANCEL)
    with pytest.raises(Cancelled):
        link.check()
    link.begin(b"k" * 16 + b"\0\1")
    link.check()


def test_goodbye_stops_the_job_and_everything_after(ends: tuple[AgentLink, zmq.Socket[bytes]]) -> None:
    link, agent = ends
    link.begin(KEY)
    agent.send(pack_envelope(wire.GOODBYE))
    with pytest.raises(Cancelled):
        link.check()
    assert link.leaving


def test_a_job_is_cancelled_while_the_agent_takes_no_audio(
    ends: tuple[AgentLink, zmq.Socket[bytes]],
) -> None:
    """A broker that is slow stops the agent's reading; its client may give up meanwhile."""
    link, agent = ends
    link.begin(KEY)
    chunk = [pack_envelope(wire.CHUNK, b"j" * 16, 2), bytes(wire.MAX_PAYLOAD_BYTES)]
    sent = threading.Event()
    full: list[int] = []

    def fill() -> None:
        try:
            while True:
                link.send(chunk)
                full.append(1)
                if len(full) > SEND_AHEAD // 2:
                    sent.set()
        except Cancelled:
            full.append(-1)

    thread = threading.Thread(target=fill)
    thread.start()
    assert sent.wait(30)
    agent.send(CANCEL)
    thread.join(30)
    assert full[-1] == -1
    assert len(full) <= SEND_AHEAD + 3  # bounded: the other end's one, and the message in hand


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
