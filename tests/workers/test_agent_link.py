"""The child's end of the link, over a real PAIR."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import zmq

from voicebus.common import wire
from voicebus.common.errors import Cancelled, ProtocolError
from voicebus.common.wire import pack_envelope
from voicebus.workers.agent_link import SEND_AHEAD, AgentLink

OTHER = b"k" * 16 + b"\0\1"
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


Ends = tuple[AgentLink, zmq.Socket[bytes]]


def taken(link: AgentLink, agent: zmq.Socket[bytes]) -> None:
    agent.send_multipart([pack_envelope(wire.JOB, b"j" * 16, 2), b"", b""])
    frames = link.take(None)
    assert frames is not None
    assert frames[0][4:22] == KEY


def test_only_the_current_jobs_cancel_stops_it(ends: Ends) -> None:
    link, agent = ends
    taken(link, agent)
    agent.send(pack_envelope(wire.CANCEL, b"j" * 16, 1))
    link.check(KEY)
    agent.send(CANCEL)
    with pytest.raises(Cancelled):
        link.check(KEY)
    link.check(OTHER)


def test_all_jobs_are_looked_at_together(ends: Ends) -> None:
    link, agent = ends
    taken(link, agent)
    assert link.stopped((KEY, OTHER)) == set()
    agent.send(CANCEL)
    assert link.stopped((OTHER, KEY)) == {KEY}
    assert link.stopped((OTHER,)) == set()
    agent.send(pack_envelope(wire.GOODBYE))
    assert link.stopped((KEY, OTHER)) == {KEY, OTHER}


def test_goodbye_stops_the_job_and_everything_after(ends: Ends) -> None:
    link, agent = ends
    taken(link, agent)
    agent.send(pack_envelope(wire.GOODBYE))
    with pytest.raises(Cancelled):
        link.check(KEY)
    assert link.leaving
    assert link.take(None) is None


def test_a_job_that_comes_while_another_is_spoken_waits_and_may_be_cancelled_there(ends: Ends) -> None:
    link, agent = ends
    taken(link, agent)
    agent.send_multipart([pack_envelope(wire.JOB, b"k" * 16, 1), b"", b""])
    agent.send(pack_envelope(wire.CANCEL, b"k" * 16, 1))
    link.check(KEY)
    frames = link.take(0)
    assert frames is not None
    assert frames[0][4:22] == OTHER
    with pytest.raises(Cancelled):
        link.check(OTHER)
    assert link.take(0) is None


def test_a_cancel_that_crossed_the_jobs_end_is_forgotten(ends: Ends) -> None:
    """An id and attempt come back only by a broker that was started again; its CANCEL would lie in wait."""
    link, agent = ends
    taken(link, agent)
    link.send([pack_envelope(wire.DONE, b"j" * 16, 2), b""])
    agent.send(CANCEL)
    assert link.take(0) is None
    link.check(KEY)


def test_what_no_agent_says_is_an_error(ends: Ends) -> None:
    link, agent = ends
    agent.send(pack_envelope(wire.READY))
    with pytest.raises(ProtocolError):
        link.take(None)


def test_a_job_is_cancelled_while_the_agent_takes_no_audio(
    ends: Ends,
) -> None:
    """A broker that is slow stops the agent's reading; its client may give up meanwhile."""
    link, agent = ends
    taken(link, agent)
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
