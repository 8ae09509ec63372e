"""Sockets and outboxes over real TCP on the loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from voicebus.common import bundles, wire
from voicebus.common.messages import Done, Started, encode
from voicebus.common.wire import pack_envelope
from voicebus.workers.actions import Frames
from voicebus.workers.sockets import MAX_OUTBOX, PATIENCE_S, BrokerSocket, receiver, sender


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


def router(context: zmq.Context[zmq.Socket[bytes]], hwm: int = 1000) -> tuple[zmq.Socket[bytes], str]:
    socket = context.socket(zmq.ROUTER)
    socket.rcvhwm = hwm
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    return socket, f"tcp://127.0.0.1:{port}"


def test_whole_messages_in_bytes_and_unopened_frames(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    left, right = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    left.bind("inproc://x")
    right.connect("inproc://x")
    receive, send = receiver(right), sender(left)
    send([b"envelope", b"small", b"x" * 100_000])
    envelope, small, large = receive()
    assert (envelope, small) == (b"envelope", b"small")
    assert isinstance(large, zmq.Frame)
    sender(right)([envelope, large])  # passed on as it is
    assert left.recv_multipart() == [b"envelope", b"x" * 100_000]
    left.send_multipart([b"%d" % number for number in range(50)])
    left.send_multipart([b"next"])
    assert len(receive()) == 4  # one more than any message has
    assert receive() == [b"next"]
    with pytest.raises(zmq.Again):
        receive()


def test_a_broker_that_does_not_read_blocks_nobody_and_loses_nothing(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    slow, address = router(context, hwm=1)
    broker = BrokerSocket(context, address)
    payload = bytes(200_000)
    sent = 0
    while not broker.is_stuck:
        broker.send([b"%032d" % sent, payload])
        broker.push()
        sent += 1
    broker.beat([b"old beat"])
    broker.beat([b"beat"])  # takes the place of the one before
    assert sent > MAX_OUTBOX
    assert broker.is_blocked
    got: list[bytes] = []
    while b"%032d" % (sent - 1) not in got[-1:]:
        broker.pump()
        if slow.poll(10):
            got.append(slow.recv_multipart()[1])
    assert not broker.is_blocked
    # The one before may have found room at once; the last one overtakes all that waited in the outbox.
    ahead = got.index(b"beat")
    assert ahead <= sent - MAX_OUTBOX + 1
    got = [message for message in got if not message.endswith(b"beat")]
    assert got == [b"%032d" % number for number in range(sent)]


def test_closing_with_flush_still_delivers(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    slow, address = router(context)
    broker = BrokerSocket(context, address)
    broker.send([b"the last word".ljust(32)])
    broker.close(flush=True)
    assert slow.poll(10_000)
    assert b"the last word " in slow.recv_multipart()[2]


def test_small_messages_of_a_burst_leave_as_one_and_bundles_are_taken_apart(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    broker_side, address = router(context)
    worker = BrokerSocket(context, address)
    started = [pack_envelope(wire.STARTED, b"j" * 16, 1), encode(Started("w", "tone", 24_000, 1))]
    chunk = [pack_envelope(wire.CHUNK, b"j" * 16, 1), b"\0" * 20_000]
    end = [pack_envelope(wire.CHUNK, b"j" * 16, 1, wire.SEGMENT_END, 1), b""]
    done = [pack_envelope(wire.DONE, b"j" * 16, 1), b"end"]
    for message in (started, chunk, end, done):
        worker.send(message)
    worker.push()
    came = [broker_side.recv_multipart() for _ in range(3)]
    assert [frames[1][3] for frames in came] == [wire.BUNDLE, wire.CHUNK, wire.BUNDLE]
    assert list(bundles.unpack(came[0][2])) == [(started[0], started[1], None)]
    assert came[1][1:] == chunk
    assert list(bundles.unpack(came[2][2])) == [(end[0], None, b""), (done[0], b"end", None)]
    # And back: what follows a bundle comes after all that was in it.
    peer = came[0][0]
    for bundle in bundles.pack([started, done]):
        broker_side.send_multipart([peer, *bundle])
    broker_side.send_multipart([peer, *chunk])
    envelope, payload = next(bundles.pack([started, done]))
    broker_side.send_multipart([peer, envelope, payload[:-1]])
    heard: list[Frames] = []
    while len(heard) < 4:
        try:
            heard.append(worker.receive())
        except zmq.Again:
            assert worker.socket.poll(10_000)
    assert heard[:2] == [started, done]
    assert heard[2][0] == chunk[0]
    assert heard[3][0][3] == wire.BUNDLE  # what breaks off is no message
    with pytest.raises(zmq.Again):
        worker.receive()


def test_an_attempt_that_is_over_at_once_leaves_as_one_message(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    broker_side, address = router(context)
    worker = BrokerSocket(context, address)
    worker.send([pack_envelope(wire.PONG)])
    worker.push(0.0)
    assert broker_side.recv_multipart()[1][3] == wire.BUNDLE
    for number in range(2):
        job = bytes([number]) * 16
        worker.send([pack_envelope(wire.STARTED, job, 1), encode(Started("w", "tone", 24_000, 1))])
        worker.push(1.0)
        assert worker.patient_until == 1.0 + PATIENCE_S
    assert not broker_side.poll(50)
    for number in range(2):
        job = bytes([number]) * 16
        worker.send([pack_envelope(wire.CHUNK, job, 1, wire.SEGMENT_END), bytes(10_000)])
        worker.send([pack_envelope(wire.DONE, job, 1), encode(Done(1, 5000))])
    unfinished = [pack_envelope(wire.STARTED, b"u" * 16, 1), encode(Started("w", "tone", 24_000, 1))]
    worker.send(unfinished)
    worker.push(1.0)
    came = [broker_side.recv_multipart()[1:] for _ in range(3)]
    assert [frames[0][3] for frames in came] == [wire.SPOKEN, wire.SPOKEN, wire.STARTED]
    assert [frames[0][4:20] for frames in came] == [bytes(16), b"\x01" * 16, b"u" * 16]
    assert [len(frames[2]) for frames in came[:2]] == [10_000, 10_000]
    assert worker.patient_until > 1e9


def test_that_an_attempt_began_is_told_when_it_goes_on_for_longer(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    broker_side, address = router(context)
    worker = BrokerSocket(context, address)
    worker.send([pack_envelope(wire.STARTED, b"j" * 16, 1), encode(Started("w", "tone", 24_000, 1))])
    worker.push(1.0)
    assert not broker_side.poll(50)
    worker.push(1.0 + PATIENCE_S)
    (_, started) = next(bundles.unpack(broker_side.recv_multipart()[2]))[:2]
    assert started == encode(Started("w", "tone", 24_000, 1))
