"""Whoever reaches a broker without keys and means it no good: floods, forged addresses, endless messages.

Each is played on real connections, partly byte by byte, while honest peers go on.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from tests.broker.test_loop import Running
from voicebus.broker import binding, pools
from voicebus.broker.doors import Door
from voicebus.broker.manners import ALLOWANCE
from voicebus.broker.outbox import Outbox
from voicebus.broker.roles import CLIENTS
from voicebus.client import Client
from voicebus.common import wire

from .peers import OldPeer, Peer, RawPeer, is_hung_up, pack

GARBAGE = b"this is no VB1"


@pytest.fixture
def bus() -> Iterator[Running]:
    with zmq.Context() as context:
        running = Running(context)
        yield running
        running.close()
        context.destroy(linger=0)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, bus: Running) -> Iterator[Running]:
    """A broker that waits for introductions for a moment only."""
    monkeypatch.setattr(binding, "HANDSHAKE_MS", 300)
    running = Running(bus.context)
    yield running
    running.close()


def is_served(bus: Running) -> bool:
    """Whether an honest client gets its job to an honest worker, and the answer back."""
    worker, client = bus.worker("honest"), bus.client()
    job = client.submit()
    worker.recv(wire.JOB)
    worker.send(wire.SPOKEN, pack(["honest", "tone", 24_000, 1, 2]), b"abcd", job=job, attempt=1)
    client.recv(wire.DONE)
    worker.send(wire.GOODBYE)
    return True


@pytest.mark.parametrize("door", ["frontend", "backend"])
def test_a_flood_is_answered_for_a_while_and_then_cut_off(bus: Running, door: str) -> None:
    """Caught: each of a million malformed messages had an answer and a line in the log."""
    flood = RawPeer(getattr(bus, door))
    flood.flood(2 * ALLOWANCE, GARBAGE)
    assert flood.is_cut_off()
    totals = bus.status()["totals"]
    assert totals["turned_away"] == 1
    assert ALLOWANCE < totals["protocol_errors"] <= ALLOWANCE + 1
    assert is_served(bus)


def test_a_flood_in_one_message_is_cut_off_too(bus: Running) -> None:
    flood = RawPeer(bus.frontend)
    submit = wire.pack_envelope(wire.SUBMIT, bytes(15) + b"\1")
    bundle = pack([submit, b"\xc1", b"text"] * wire.MAX_BUNDLED)
    flood.flood(ALLOWANCE, wire.pack_envelope(wire.BUNDLE), bundle)
    assert flood.is_cut_off()
    assert bus.status()["totals"]["protocol_errors"] <= ALLOWANCE + 1


def test_a_worker_that_takes_to_garbage_is_no_worker_any_more_and_its_jobs_go_to_others(bus: Running) -> None:
    mad, client = bus.worker("mad"), bus.client()
    job = client.submit()
    mad.recv(wire.JOB)
    for _ in range(ALLOWANCE + 1):
        mad.socket.send_multipart([GARBAGE])
    heir = bus.worker("heir")
    assert heir.recv(wire.JOB)[0][4:20] == job
    assert [worker["id"] for worker in bus.status()["workers"]] == ["heir"]


def test_workers_with_much_to_say_do_not_close_the_status_to_others(bus: Running) -> None:
    """Caught: 30 workers with full headers, or one that had named many engines, and the answer was larger
    than a frame may be: whoever asked lost the connection, for good, with all the jobs on it."""
    babbler = bus.worker("babbler")
    for number in range(300):
        ready = [
            "babbler",
            1,
            f"engine-{number}",
            ["en"],
            1,
            1000,
            24_000,
            "\N{SPEAKING HEAD IN SILHOUETTE}" * 128,
        ]
        babbler.send(wire.READY, pack(ready))
        babbler.recv(wire.WELCOME)
    others = [bus.worker(f"w{number:02}") for number in range(30)]
    for other in others:
        other.send(wire.HEARTBEAT, pack([0, [], [], {f"stat-{number}": "x" * 128 for number in range(110)}]))
        other.send(wire.READY, pack(["w", 2, "tone", ["en"], 1, 1000, 24_000, "", [], 400, False, True]))
        other.recv(wire.REREGISTER)
    with Client(bus.frontend) as client:
        status = client.status()
    assert len(status["engines"]) == 301
    assert len(status["workers"]) == status["workers_total"] == 31
    assert sum(len(worker["stats"]) for worker in status["workers"]) == 30 * 110


def test_a_worker_that_names_engines_without_end_is_refused(
    bus: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caught: each was kept for good, and looked at in each sweep."""
    monkeypatch.setattr(pools, "MOST_ENGINES", 3)
    babbler = bus.worker("babbler")
    for engine in ("one", "two"):
        babbler.send(wire.READY, pack(["babbler", 1, engine, ["en"], 1, 1000, 24_000]))
        babbler.recv(wire.WELCOME)
    babbler.send(wire.READY, pack(["babbler", 1, "three", ["en"], 1, 1000, 24_000]))
    assert msgspec.msgpack.decode(babbler.recv(wire.FAILED)[1])[0] == "overloaded"
    assert [worker["engine"] for worker in bus.status()["workers"]] == ["two"]
    assert is_served(bus)


def test_whoever_brings_a_routing_id_is_told_to_set_none(bus: Running) -> None:
    """With an id of its own a peer could wait for the place of another to come free, and hear what is its."""
    context: zmq.Context[Any] = bus.context
    forger = context.socket(zmq.DEALER)
    forger.linger = 0
    forger.routing_id = b"forged"
    monitor = forger.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    forger.connect(bus.frontend)
    forger.send(wire.pack_envelope(wire.PING))
    assert forger.poll(10_000)
    envelope, header = forger.recv_multipart()
    assert envelope[3] == wire.FAILED
    code, words = msgspec.msgpack.decode(header)[:2]
    assert (code, "set none" in words) == ("protocol_error", True)
    assert monitor.poll(10_000), "and is cut off"
    forger.disable_monitor()
    monitor.close(0)
    forger.close(0)


@pytest.mark.parametrize("routing_id", [b"\xff\xfe", b"\0forged", b"\0", b"x" * 200])
def test_a_routing_id_may_be_any_bytes_and_is_turned_away_all_the_same(
    bus: Running, routing_id: bytes
) -> None:
    """Caught: one that is no UTF-8 ended the broker's process, since the id was read out of what the peer
    says of itself; one that begins with a zero was not noticed."""
    forger = RawPeer(bus.frontend, routing_id)
    forger.flood(1, wire.pack_envelope(wire.PING))
    assert forger.is_cut_off()
    assert is_served(bus)
    assert bus.status()["totals"]["turned_away"] == 1


@pytest.mark.parametrize("routing_id", [b"", b"chosen"])
def test_a_peer_of_an_old_zeromq_is_cut_off_at_once(bus: Running, routing_id: bytes) -> None:
    """Caught: it was let in with any routing id, and a flood of it could be ignored and not ended: libzmq
    tells no file descriptor of such a connection."""
    old = OldPeer(bus.frontend, routing_id)
    old.flood(2 * ALLOWANCE, GARBAGE)
    assert old.is_cut_off()
    assert bus.status()["totals"]["protocol_errors"] == 0


def test_the_routing_ids_that_are_given_cannot_be_foreseen() -> None:
    """Caught: all brokers counted up from the same number, and a peer that had set the next id as its own
    ended the broker's process by an assertion of libzmq's as soon as that id was given to somebody."""
    first: list[bytes] = []
    for _ in range(2):
        ctypes.CDLL(None).srand(1)
        with zmq.Context() as context:
            running = Running(context)
            peer = Peer(context, running.frontend)
            peer.send(wire.PING)
            peer.recv(wire.PONG)
            first += running.loop.core.ledger.clients
            peer.close()
            running.close()
            context.destroy(linger=0)
    assert len(set(first)) == 2


def test_a_message_of_a_million_frames_costs_its_sender_the_connection_and_others_nothing(
    bus: Running,
) -> None:
    flood = RawPeer(bus.frontend)
    worker = bus.worker("honest")
    tiny = b"\x01\x00" * 10_000
    for _ in range(100):
        flood.line.sendall(tiny)
    flood.line.sendall(b"\x00\x00")
    assert flood.is_cut_off()
    worker.recv(wire.HEARTBEAT)
    assert is_served(bus)
    assert bus.status()["totals"]["turned_away"] == 1


@pytest.mark.parametrize("door", ["frontend", "backend"])
def test_a_frame_above_the_limit_is_not_even_read(bus: Running, door: str) -> None:
    flood = RawPeer(getattr(bus, door))
    flood.flood(1, bytes(wire.MAX_FRAME_BYTES + 1))
    assert flood.is_cut_off()
    assert bus.status()["totals"]["protocol_errors"] == 0


def test_whoever_is_turned_away_has_a_moment_to_read_why() -> None:
    """Caught: where a look round was due in the turn in which a peer was turned away, its connection was
    broken before the answer had been sent."""
    here, there = socket.socketpair()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, here, there:

        class Frame:
            def get(self, _: int) -> int:
                return here.fileno()

        door = Door(CLIENTS, router, Outbox(router), lambda _: {}, None, with_payload=True)
        door.note_line(b"peer", Frame())
        door.shut(b"peer")
        door.break_off()
        here.send(b"why")
        door.break_off()
        assert there.recv(8) == b"why"
        assert there.recv(8) == b""


def test_a_file_that_has_the_number_of_a_connection_that_is_gone_is_left_alone(tmp_path: Path) -> None:
    """Caught: it was copied and found to be no socket, and the copy stayed open."""
    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as router,
        open(tmp_path / "journal", "w+b") as file,
    ):

        class Frame:
            def get(self, _: int) -> int:
                return file.fileno()

        door = Door(CLIENTS, router, Outbox(router), lambda _: {}, None, with_payload=True)
        before = os.listdir("/dev/fd")
        door.note_line(b"gone", Frame())
        door.shut(b"gone")
        door.break_now(b"gone")
        assert os.listdir("/dev/fd") == before
        file.write(b"still here")


@pytest.mark.parametrize("words", [b"", bytes(200), b"\xff" * 200, b"\xff" + bytes(8) + b"\x7f"])
def test_a_connection_that_does_not_say_who_it_is_is_closed(hasty: Running, words: bytes) -> None:
    host, _, port = hasty.frontend.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), 10) as other:
        other.sendall(words)
        assert is_hung_up(other)
    assert is_served(hasty)


def test_a_browser_that_comes_by_is_shown_out(bus: Running) -> None:
    """Caught: libzmq took it for a peer of its first version, which may be silent as long as it likes."""
    host, _, port = bus.frontend.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), 10) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        assert is_hung_up(browser)
    assert is_served(bus)


def test_a_bug_that_a_message_finds_costs_its_sender_the_connection_and_not_the_broker(
    bus: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three such were found by review: each was an exception of another kind, and each ended the broker."""

    def broken(*_: object) -> None:
        raise OverflowError("a bug")

    monkeypatch.setattr(bus.loop.core.intake, "submit", broken)
    flood = RawPeer(bus.frontend)
    flood.flood(1, wire.pack_envelope(wire.SUBMIT, bytes(15) + b"\1"), pack(["tone"]), b"text")
    assert flood.is_cut_off()
    monkeypatch.undo()
    assert bus.status()["totals"]["illegal_moves"] == 1
    assert is_served(bus)
