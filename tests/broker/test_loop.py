"""The hot loop over real TCP sockets: framing, hostile peers, full and vanished peers, stopping.

Everything that the standard `msgpack` package packs must be understood, and everything the broker says must
be read by it: that is the conformance half.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
import zmq

from voicebus.broker.loop import Loop
from voicebus.client import Client
from voicebus.common import bundles, wire
from voicebus.common.config import Broker, Config, Worker

pack = cast("Callable[[Any], bytes]", msgpack.packb)
TIMEOUT_MS = 10_000


class Peer:
    """A DEALER that speaks VB1 by hand."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, rcvhwm: int = 1000) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvhwm = rcvhwm
        self.socket.connect(endpoint)

    def send(self, kind: int, *frames: bytes, job: bytes = wire.NO_JOB, **fields: int) -> None:
        self.socket.send_multipart([wire.pack_envelope(kind, job, **fields), *frames])

    def recv(self, *wanted: int) -> list[bytes]:
        """The next message, or the next of a kind wanted; heartbeats are passed over."""
        while True:
            assert self.socket.poll(TIMEOUT_MS), "no message came"
            frames = self.socket.recv_multipart()
            kind = frames[0][3]
            if kind in wanted or (not wanted and kind != wire.HEARTBEAT):
                return frames

    def ready(self, worker: str = "w", *, incarnation: int = 1, slots: int = 1) -> None:
        header = [worker, incarnation, "tone", ["en"], slots, 1000, 24_000]
        self.send(wire.READY, pack(header))
        self.recv(wire.WELCOME)

    def submit(self, job: bytes | None = None, text: bytes = b"hello", **fields: int) -> bytes:
        job = job or os.urandom(16)
        self.send(wire.SUBMIT, pack(["tone", "amber", "en"]), text, job=job, **fields)
        return job


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context
        context.destroy(linger=0)


class Running:
    """A loop in a thread, and peers for it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], journal: str | None = None) -> None:
        broker = Broker(
            journal=journal,
            frontend="tcp://127.0.0.1:*",
            backend="tcp://127.0.0.1:*",
            default_engine="tone",
            drain_timeout_s=5.0,
        )
        self.loop = Loop(Config(broker=broker, workers={"tone": Worker()}))
        self.frontend, self.backend = self.loop.endpoints
        self.context = context
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def client(self, rcvhwm: int = 1000) -> Peer:
        return Peer(self.context, self.frontend, rcvhwm)

    def worker(self, name: str = "w", **fields: int) -> Peer:
        peer = Peer(self.context, self.backend)
        peer.ready(name, **fields)
        return peer

    def close(self) -> None:
        self.loop.stop()
        self.loop.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def status(self) -> dict[str, Any]:
        client = self.client()
        client.send(wire.ADMIN, pack(["status"]), sequence=7)
        envelope, header, payload = client.recv(wire.ADMIN)
        assert int.from_bytes(envelope[24:28]) == 7
        assert msgpack.unpackb(header)[0] is True
        return msgpack.unpackb(payload)


@pytest.fixture
def bus(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Running]:
    running = Running(context)
    yield running
    running.close()


def test_a_conversation_written_and_read_with_plain_msgpack(bus: Running) -> None:
    worker, client = bus.worker(), bus.client()
    job = client.submit(value=5000)
    envelope, header = client.recv()
    assert (envelope[3], envelope[4:20], msgpack.unpackb(header)[0]) == (wire.ACCEPTED, job, "tone")
    envelope, header, text = worker.recv(wire.JOB)
    assert wire.unpack_envelope(envelope)[1:3] == (job, 1)
    assert 4000 < wire.unpack_envelope(envelope)[5] <= 5000
    assert (msgpack.unpackb(header), text) == (["tone", "amber", "en"], b"hello")
    audio = os.urandom(200_000)
    worker.send(wire.STARTED, pack(["w", "tone", 24_000, 1]), job=job, attempt=1)
    worker.send(wire.CHUNK, audio, job=job, attempt=1, flags=wire.SEGMENT_END)
    worker.send(wire.DONE, pack([1, 100_000, 0.5]), job=job, attempt=1)
    assert client.recv()[0][3] == wire.STARTED
    envelope, payload = client.recv()
    assert (envelope[3], payload) == (wire.CHUNK, audio)
    assert client.recv()[0][3] == wire.DONE


def hostile_messages() -> list[list[bytes]]:
    ok = wire.pack_envelope(wire.SUBMIT, b"j" * 16)
    header = pack(["tone"])
    return [
        [b""],
        [b"VB1"],
        [b"VB2" + ok[3:]],
        [ok],
        [ok, header],
        [ok, header, b"hi", b"more"],
        [ok, *[b"x"] * 500],
        [ok, b"\x81" * 16_385, b"hi"],
        [ok, b"\x81" * 10_000, b"hi"],
        [ok, b"\x91" * 16_000, b"hi"],
        [ok, pack([msgpack.ExtType(5, b"boom")]), b"hi"],
        [ok, pack({"engine": "tone"}), b"hi"],
        [ok, pack(["tone", "../../etc/passwd"]), b"hi"],
        [ok, pack(["x" * 129]), b"hi"],
        [wire.pack_envelope(wire.DONE, b"j" * 16), header],
        [wire.pack_envelope(wire.READY), header],
        [wire.pack_envelope(0xFF), header],
        [wire.pack_envelope(wire.ADMIN), b"\xc1"],
    ]


def test_hostile_messages_get_one_answer_each_and_harm_nobody(bus: Running) -> None:
    """Reading a fixed number of frames let one peer forge a message from another."""
    worker, client, bad = bus.worker(), bus.client(), bus.client()
    for frames in hostile_messages():
        bad.socket.send_multipart(frames)
        envelope, header = bad.recv()
        assert envelope[3] == wire.FAILED
        assert msgpack.unpackb(header)[0] == "protocol_error", frames
    job = client.submit()
    assert client.recv()[0][4:20] == job
    assert worker.recv(wire.JOB)[0][4:20] == job
    assert bus.status()["totals"]["protocol_errors"] == len(hostile_messages())


def test_hostile_workers_are_refused_likewise(bus: Running) -> None:
    bad = Peer(bus.context, bus.backend)
    for frames in (
        [b"x"],
        [wire.pack_envelope(wire.SUBMIT), b"a", b"b"],
        [wire.pack_envelope(wire.READY), b"\xc0"],
    ):
        bad.socket.send_multipart(frames)
        assert bad.recv()[0][3] == wire.FAILED
    bad.send(wire.DONE, pack([1, 1]), job=b"j" * 16, attempt=1)
    assert bad.recv()[0][3] == wire.REREGISTER
    assert bus.status()["workers"] == []


def test_one_results_forged_by_another_worker_is_dropped(bus: Running) -> None:
    honest, client = bus.worker("honest"), bus.client()
    job = client.submit()
    honest.recv(wire.JOB)
    liar = bus.worker("liar")
    liar.send(wire.CHUNK, b"\0\0", job=job, attempt=1)
    assert liar.recv()[0][3] == wire.CANCEL
    liar.send(wire.DONE, pack([1, 1]), job=job, attempt=1)
    honest.send(wire.DONE, pack([0, 0]), job=job, attempt=1)
    assert [client.recv()[0][3] for _ in range(2)] == [wire.ACCEPTED, wire.DONE]
    assert bus.status()["totals"]["stale"] == 2


def test_whoever_sends_bundles_is_sent_bundles_and_nobody_else(bus: Running) -> None:
    """Sixteen jobs in one message, their JOBs in one, all sixteen answers in one: the wake-ups are shared."""
    header = pack(["tone", "amber", "en"])
    plain, client, worker = bus.client(), bus.client(), bus.worker()
    ready = [wire.pack_envelope(wire.READY), pack(["w", 1, "tone", ["en"], 64, 60_000, 24_000])]
    worker.socket.send_multipart([*next(bundles.pack([ready]))])
    worker.recv(wire.WELCOME)  # alone in its burst, so not bundled
    jobs = [os.urandom(16) for _ in range(16)]
    submits = [[wire.pack_envelope(wire.SUBMIT, job), header, b"text %d" % at] for at, job in enumerate(jobs)]
    client.socket.send_multipart([*next(bundles.pack(submits))])
    accepted = list(bundles.unpack(client.recv(wire.BUNDLE)[1]))
    assert [(envelope[3], envelope[4:20]) for envelope, _, _ in accepted] == [
        (wire.ACCEPTED, job) for job in jobs
    ]
    given = list(bundles.unpack(worker.recv(wire.BUNDLE)[1]))
    assert [payload for _, _, payload in given] == [b"text %d" % at for at in range(16)]
    answers: list[list[bytes]] = []
    for envelope, _, _ in given:
        job, attempt = envelope[4:20], int.from_bytes(envelope[20:22])
        answers += [
            [wire.pack_envelope(wire.STARTED, job, attempt), pack(["w", "tone", 24_000, 1])],
            [wire.pack_envelope(wire.CHUNK, job, attempt, wire.SEGMENT_END), job],
            [wire.pack_envelope(wire.DONE, job, attempt), pack([1, 8, 0.0])],
        ]
    worker.socket.send_multipart([*next(bundles.pack(answers))])
    spoken: list[tuple[bytes, bytes | None, bytes | None]] = []
    while len(spoken) < len(answers):
        # What the first ones led to is on its way while the last ones are handled.
        spoken += bundles.unpack(client.recv(wire.BUNDLE)[1])
    assert [envelope[3] for envelope, _, _ in spoken] == [wire.STARTED, wire.CHUNK, wire.DONE] * 16
    assert [payload for envelope, _, payload in spoken if envelope[3] == wire.CHUNK] == jobs

    for _ in range(2):
        plain.submit()
    assert plain.recv()[0][3] == plain.recv()[0][3] == wire.ACCEPTED
    kinds: list[int] = []
    while len(kinds) < 2:
        frames = worker.recv(wire.BUNDLE, wire.JOB)
        alone = frames[0][3] == wire.JOB
        kinds += [wire.JOB] if alone else [envelope[3] for envelope, _, _ in bundles.unpack(frames[1])]
    assert kinds == [wire.JOB] * 2


def test_a_bundle_that_breaks_off_counts_up_to_there(bus: Running) -> None:
    client = bus.client()
    pings = [[wire.pack_envelope(wire.PING, sequence=number)] for number in range(3)]
    frames = [frame for ping in pings[:2] for frame in ping]
    envelope = wire.pack_envelope(wire.BUNDLE, value=3)
    client.socket.send_multipart([envelope, pack([*frames, wire.pack_envelope(wire.SUBMIT)])])
    came = list(bundles.unpack(client.recv(wire.BUNDLE)[1]))
    assert [(message[0][3], message[0][24:28]) for message in came[:2]] == [
        (wire.PONG, bytes((0, 0, 0, number))) for number in range(2)
    ]
    assert came[2][0][3] == wire.FAILED
    assert b"protocol_error" in (came[2][1] or b"")
    # An inner message with a broken header spoils no other.
    broken = [wire.pack_envelope(wire.SUBMIT, b"j" * 16), b"\xc1", b"text"]
    client.socket.send_multipart([*next(bundles.pack([broken, pings[2]]))])
    failed, pong = bundles.unpack(client.recv(wire.BUNDLE)[1])
    assert (failed[0][3], failed[0][4:20], pong[0][3]) == (wire.FAILED, b"j" * 16, wire.PONG)


def test_a_frame_over_the_limit_never_reaches_us(bus: Running) -> None:
    client = bus.client()
    client.submit(text=b"x" * (wire.MAX_FRAME_BYTES + 1))
    survivor = bus.client()
    job = survivor.submit()
    assert survivor.recv()[0][4:20] == job


def test_a_worker_that_closes_before_its_job_arrives_loses_nothing(bus: Running) -> None:
    """Without MANDATORY the JOB to a vanished peer was dropped without a word."""
    gone, client = bus.worker("gone"), bus.client()
    gone.socket.close(0)
    job = client.submit()
    stays = bus.worker("stays")
    envelope = stays.recv(wire.JOB)[0]
    assert envelope[4:20] == job


def test_a_reader_that_stands_still_stalls_nobody_and_gets_all_in_order(bus: Running) -> None:
    """A full peer must look neither like "drained" nor like "gone": its messages wait in order."""
    worker, slow, quick = bus.worker(slots=2), bus.client(rcvhwm=1), bus.client()
    jobs = {slow.submit(): slow, quick.submit(): quick}
    for _ in jobs:
        worker.recv(wire.JOB)
    slow_job, quick_job = jobs
    chunk = os.urandom(60_000)
    for number in range(500):
        worker.send(wire.CHUNK, chunk, job=slow_job, attempt=1, sequence=number)
    worker.send(wire.DONE, pack([500, 0]), job=slow_job, attempt=1)
    worker.send(wire.DONE, pack([0, 0]), job=quick_job, attempt=1)
    assert [quick.recv()[0][3] for _ in range(2)] == [wire.ACCEPTED, wire.DONE]
    assert bus.loop._client_out.waiting, "the test must fill the pipe, or it shows nothing"
    assert slow.recv()[0][3] == wire.ACCEPTED
    for number in range(500):
        envelope, payload = slow.recv()
        assert int.from_bytes(envelope[24:28]) == number
        assert payload == chunk
    assert slow.recv()[0][3] == wire.DONE


def test_a_reader_past_its_budget_is_cut_off_until_it_connects_anew(bus: Running) -> None:
    """200 MB for somebody who does not read must cost neither memory nor the others."""
    worker, slow, quick = bus.worker(slots=2), bus.client(rcvhwm=1), bus.client()
    job = slow.submit()
    worker.recv(wire.JOB)
    chunk = bytes(wire.MAX_PAYLOAD_BYTES)
    for number in range(800):
        worker.send(wire.CHUNK, chunk, job=job, attempt=1, sequence=number)
    assert worker.recv(wire.CANCEL)[0][4:20] == job
    quick_job = quick.submit()
    worker.recv(wire.JOB)
    worker.send(wire.DONE, pack([0, 0]), job=quick_job, attempt=1)
    assert [quick.recv()[0][3] for _ in range(2)] == [wire.ACCEPTED, wire.DONE]
    slow.send(wire.PING)
    slow.send(wire.SUBMIT, pack(["tone"]), b"ignored", job=os.urandom(16))
    anew = bus.client()
    assert anew.submit(job) == job
    assert anew.recv()[0][3] == wire.ACCEPTED
    status = bus.status()
    assert status["totals"]["slow_consumers"] == 1
    assert status["jobs"]["open"] == 1, "nothing of the one that was cut off"


def test_a_durable_job_outlives_its_client_and_its_broker(context: zmq.Context[Any], tmp_path: Path) -> None:
    """Promised only when written down; spoken after the restart; fetched from another connection."""
    first = Running(context, journal=str(tmp_path / "state"))
    submitter = first.client()
    job = os.urandom(16)
    submitter.send(wire.SUBMIT, pack(["tone", "amber", "en", "batch", "", 5, 1.0, True]), b"hello", job=job)
    assert submitter.recv()[0][3] == wire.ACCEPTED
    submitter.socket.close(0)
    first.close()

    second = Running(context, journal=str(tmp_path / "state"))
    worker, reader = second.worker(), second.client()
    envelope, _, text = worker.recv(wire.JOB)
    assert (envelope[4:20], text) == (job, b"hello")
    reader.send(wire.FETCH, job=job)
    watching = reader.recv()[0]
    assert (watching[3], watching[23]) == (wire.ACCEPTED, wire.ATTACHED)
    attempt = int.from_bytes(envelope[20:22])
    worker.send(wire.STARTED, pack(["w", "tone", 24_000, 1]), job=job, attempt=attempt)
    audio = [os.urandom(10_000) for _ in range(100)]
    for number, chunk in enumerate(audio):
        worker.send(wire.CHUNK, chunk, job=job, attempt=attempt, sequence=number, value=0)
    worker.send(wire.DONE, pack([100, 500_000]), job=job, attempt=attempt)
    stored = reader.recv()[0]
    assert (stored[3], stored[23]) == (wire.ACCEPTED, wire.ATTACHED | wire.STORED)
    second.close()

    third = Running(context, journal=str(tmp_path / "state"))
    reader = third.client()
    reader.send(wire.FETCH, job=job)
    assert reader.recv()[0][3] == wire.STARTED
    page = [reader.recv() for _ in range(wire.FETCH_CHUNKS)]
    reader.send(wire.FETCH, job=job, sequence=wire.FETCH_CHUNKS)
    page += [reader.recv() for _ in range(100 - wire.FETCH_CHUNKS)]
    assert [frames[1] for frames in page] == audio
    assert [int.from_bytes(frames[0][24:28]) for frames in page] == list(range(100))
    assert reader.recv()[0][3] == wire.DONE
    third.close()


def test_status_pages_through_many_workers(bus: Running) -> None:
    peers = [bus.worker(f"w{number:03d}") for number in range(250)]
    client = bus.client()
    names: list[str] = []
    offset = 0
    while True:
        client.send(wire.ADMIN, pack(["status", "", offset]))
        _, header, payload = client.recv(wire.ADMIN)
        names += [worker["id"] for worker in msgpack.unpackb(payload)["workers"]]
        offset = msgpack.unpackb(header)[1]
        if not offset:
            break
    assert names == [f"w{number:03d}" for number in range(len(peers))]


def test_stopping_finishes_what_runs_and_answers_the_rest(bus: Running) -> None:
    worker, client = bus.worker(), bus.client()
    running, waiting = client.submit(), client.submit()
    assert worker.recv(wire.JOB)[0][4:20] == running
    assert [client.recv()[0][3] for _ in range(2)] == [wire.ACCEPTED] * 2
    bus.loop.stop()
    envelope, header = client.recv()
    assert (envelope[4:20], msgpack.unpackb(header)[0]) == (waiting, "overloaded")
    worker.send(wire.DONE, pack([0, 0]), job=running, attempt=1)
    envelope, _ = client.recv()
    assert (envelope[3], envelope[4:20]) == (wire.DONE, running)
    assert worker.recv(wire.GOODBYE)
    bus.thread.join(10)
    assert not bus.thread.is_alive()


def test_a_broker_listens_on_ipv6_too(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Caught: the address was refused, and the sentence asked whether another broker was running."""
    broker = Broker(journal=None, frontend="tcp://[::1]:*", backend="tcp://[::1]:*")
    try:
        loop = Loop(Config(broker=broker))
    except zmq.ZMQError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        with Client(loop.endpoints[0]) as client:
            assert client.status()["broker"] == "broker"
    finally:
        loop.stop()
        loop.stop()
        thread.join(10)
