"""The child's end of the link, over a real PAIR."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import zmq

from voicebus.common import wire
from voicebus.common.errors import Cancelled, ProtocolError
from voicebus.common.wire import pack_envelope
from voicebus.workers import control
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


def test_control_messages_survive_the_link_and_refuse_what_they_are_not() -> None:
    setup = control.Setup(
        "w", "tone", {"a": [1, {"b": None}]}, "voices", "amber", "/cache", {"level": "INFO"}
    )
    envelope, header = control.message(control.SETUP, setup)
    assert envelope[3] == control.SETUP
    assert control.decode(header, control.Setup) == setup
    with pytest.raises(ProtocolError, match="bad Loaded"):
        control.decode(header, control.Loaded)
