"""The loop itself, with a core that follows a script and real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import zmq

from voicebus.common.errors import BusError, EngineError
from voicebus.workers import agent as agent_module
from voicebus.workers import control
from voicebus.workers.actions import Actions, CloseLink, Exit, OpenLink, StartChild, ToBroker
from voicebus.workers.agent import Agent
from voicebus.workers.core import WorkerCore


class Script:
    """Stands in for the core: records what it is told, answers with what the test wants."""

    def __init__(self, addresses: list[str], at_start: Actions) -> None:
        self.links = [type("Link", (), {"address": address}) for address in addresses]
        self.crew = self
        self.at_start = at_start
        self.tally = self
        self.gauges: dict[str, int] = {}
        self.is_ready = False
        self.heard: list[tuple[int, list[Any]]] = []
        self.on_message: Callable[[int, Actions], None] = lambda index, out: None
        self.on_death: Callable[[str, Actions], None] = lambda how, out: None

    def start(self, out: Actions) -> None:
        out.extend(self.at_start)

    def next_deadline(self) -> float:
        return float("inf")

    def links_of(self, slot: int) -> set[int]:
        return set()

    def tick(self, now: float, out: Actions) -> None:
        pass

    def broker_message(self, index: int, frames: list[Any], now: float, out: Actions) -> None:
        self.heard.append((index, frames))
        self.on_message(index, out)

    def child_died(self, slot: int, how: str, now: float, out: Actions) -> None:
        self.on_death(how, out)


def make(script: Script) -> Agent:
    setup = control.Setup("w", "tone", {}, "voices", "amber", "/cache", {})
    return Agent(cast("WorkerCore", script), setup)


@pytest.fixture
def routers() -> Iterator[list[tuple[zmq.Socket[bytes], str]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made: list[tuple[zmq.Socket[bytes], str]] = []
    for _ in range(2):
        socket = context.socket(zmq.ROUTER)
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        made.append((socket, f"tcp://127.0.0.1:{port}"))
    yield made
    context.destroy(linger=0)


def test_a_socket_that_another_brokers_message_closed_is_not_read(
    routers: list[tuple[zmq.Socket[bytes], str]],
) -> None:
    """Both have something to say, and the first one's ends the worker: reading the second raised."""
    start: Actions = [OpenLink(0), OpenLink(1), ToBroker(0, [b"hello"]), ToBroker(1, [b"hello"])]
    script = Script([address for _, address in routers], start)

    def leave(index: int, out: Actions) -> None:
        out += [CloseLink(0, flush=False), CloseLink(1, flush=False), Exit(None)]

    script.on_message = leave
    agent = make(script)
    script.start(agent._actions)
    agent._flush()
    agent._push(0.0)
    for router, _ in routers:
        peer, *_ = router.recv_multipart()
        router.send_multipart([peer, b"news"])
    for broker in agent._brokers.values():
        assert broker.socket.poll(10_000)
    agent._turn()
    assert script.heard == [(0, [b"news"])]
    agent._close()


def test_a_process_that_cannot_be_started_is_told_to_the_core_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the core made of it once lay unread until something else happened."""

    def refuse(*arguments: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(agent_module, "Child", refuse)
    script = Script([], [StartChild(0)])
    error: BusError = EngineError("cannot start")
    deaths: list[str] = []

    def end(how: str, out: Actions) -> None:
        deaths.append(how)
        out.append(Exit(error))

    script.on_death = end
    assert make(script).run() is error
    assert deaths == ["it could not be started: no more processes"]


def test_a_stop_request_wakes_the_loop() -> None:
    script = Script([], [])
    stops: list[str] = []
    vars(script).update(
        stop=lambda now, out: stops.append("drain"),
        stop_now=lambda now, out: (stops.append("now"), out.append(Exit(None))),
    )
    agent = make(script)
    agent.request_stop()
    agent.request_stop()
    assert agent.run() is None
    assert stops == ["drain", "now"]
