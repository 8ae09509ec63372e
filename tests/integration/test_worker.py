"""A real worker, agent and engine process, against a broker that follows a script.

The broker here is a bare ROUTER that packs and unpacks with struct and msgpack alone, so that every message
the worker sends is checked against the protocol by something that shares no code with it.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from voicebus.common import wire
from voicebus.common.urgency import lowest_nice

PATIENCE_S = 30.0
ENVELOPE = struct.Struct("!3sB16sHHII")
STARTED, CHUNK, DONE, FAILED, CANCEL = 3, 4, 5, 6, 7
READY, WELCOME, HEARTBEAT, JOB, RETURN, DRAIN, DRAINED, GOODBYE, REREGISTER = range(0x20, 0x29)
BUNDLE, SPOKEN = 0x0D, 0x0E
HEADED = {STARTED, DONE, FAILED, READY, HEARTBEAT}
SEGMENT_END = 2
INTERVAL_MS = 100


def pack(*items: Any) -> bytes:
    """A header."""
    packed = msgpack.packb(items)
    assert isinstance(packed, bytes)
    return packed


def messages_of(frames: list[bytes]) -> list[list[bytes]]:
    """The messages that came as this one, each behind the routing id."""
    peer, envelope, *rest = frames
    if envelope[3] != BUNDLE:
        return apart(frames)
    found: list[list[bytes]] = []
    left: list[bytes] = msgpack.unpackb(rest[0])
    while left:
        kind = left[0][3]
        count = 3 if kind == SPOKEN else 2 if kind in HEADED or kind == CHUNK else 1
        found += apart([peer, *left[:count]])
        del left[:count]
    return found


def apart(frames: list[bytes]) -> list[list[bytes]]:
    """A message; of SPOKEN the three that it stands for."""
    peer, envelope, *rest = frames
    if envelope[3] != SPOKEN:
        return [frames]
    key, segment = envelope[4:22], envelope[28:32]
    worker, engine, rate, segments, samples, engine_s = msgpack.unpackb(rest[0])
    return [
        [peer, b"VB1\x03" + key + bytes(2) + segment + bytes(4), pack(worker, engine, rate, segments)],
        [peer, b"VB1\x04" + key + b"\0\2" + bytes(4) + segment, rest[1]],
        [peer, b"VB1\x05" + key + bytes(10), pack(1, samples, engine_s)],
    ]


class Message:
    """One message of a worker, as a stranger reads it."""

    def __init__(self, frames: list[bytes]) -> None:
        self.peer, envelope, *rest = frames
        magic, self.kind, self.job, self.attempt, self.flags, self.sequence, self.value = ENVELOPE.unpack(
            envelope
        )
        assert magic == b"VB1"
        assert len(rest) == (self.kind in HEADED or self.kind == CHUNK), frames
        self.payload = rest[0] if self.kind == CHUNK else b""
        self.header: Any = msgpack.unpackb(rest[0]) if self.kind in HEADED else None


class Broker:
    """A ROUTER that welcomes and beats, and otherwise says what the test wants."""

    def __init__(self, port: int | None = None) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.port = port or self.socket.bind_to_random_port("tcp://127.0.0.1")
        if port is not None:
            self.socket.bind(f"tcp://127.0.0.1:{port}")
        self.peer = b""
        self.beats = True
        self.welcomes = True
        self.unread: list[list[bytes]] = []

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def say(
        self,
        kind: int,
        *frames: bytes,
        job: int = 0,
        attempt: int = 0,
        value: int = 0,
        segment: int = 0,
        flags: int = 0,
    ) -> None:
        envelope = ENVELOPE.pack(b"VB1", kind, job.to_bytes(16, "big"), attempt, flags, segment, value)
        self.socket.send_multipart([self.peer, envelope, *frames])

    def give(
        self,
        job: int,
        text: str,
        *,
        attempt: int = 1,
        ms: int = 60_000,
        segment: int = 0,
        flags: int = 0,
        **header: Any,
    ) -> None:
        fields = {"engine": "tone", "voice": "", "language": "", **header}
        self.say(
            JOB, pack(*fields.values()), text.encode(),
            job=job, attempt=attempt, value=ms, segment=segment, flags=flags,
        )  # fmt: skip

    def next(self) -> Message:
        """Wait for a message, answering READY and HEARTBEAT on the way."""
        if not self.unread:
            assert self.socket.poll(int(PATIENCE_S * 1000)), "the worker says nothing"
            self.unread = messages_of(self.socket.recv_multipart())
        message = Message(self.unread.pop(0))
        if message.kind == READY:
            self.peer = message.peer
            if self.welcomes:
                self.welcome()
        elif message.kind == HEARTBEAT and message.peer != self.peer:
            self.socket.send_multipart(
                [message.peer, ENVELOPE.pack(b"VB1", REREGISTER, bytes(16), 0, 0, 0, 0)]
            )
        elif message.kind == HEARTBEAT and self.beats:
            self.say(HEARTBEAT)
        return message

    def welcome(self) -> None:
        self.say(WELCOME, pack("scripted", INTERVAL_MS, 5))

    def until(self, *kinds: int) -> Message:
        """Read on until a message of one of these kinds."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            message = self.next()
            if message.kind in kinds:
                return message
        raise AssertionError(f"none of {kinds} came")

    def all_until(self, *kinds: int) -> list[Message]:
        """All messages but heartbeats, up to the first of these kinds."""
        messages: list[Message] = []
        while not messages or messages[-1].kind not in kinds:
            message = self.next()
            if message.kind != HEARTBEAT:
                messages.append(message)
        return messages

    def close(self) -> None:
        self.context.destroy(linger=0)


class Worker:
    """A vc-worker process."""

    def __init__(self, folder: Path, brokers: list[str], *settings: str, slots: int = 1) -> None:
        command = [sys.executable, "-m", "voicebus.workers.cli", "tone", "--id", "w1", "--slots", str(slots)]
        command += [f"--broker={broker}" for broker in brokers]
        command += [f"--set={setting}" for setting in settings]
        environment = os.environ | {
            "VOICEBUS_LOGGING__FILE": "null",
            "VOICEBUS_VOICES__CACHE_DIR": str(folder),
            "VOICEBUS_WORKERS__TONE__HEARTBEAT_INTERVAL_S": str(INTERVAL_MS / 1000),
        }
        self.errors = open(folder / "stderr", "w+")  # noqa: SIM115 - closed with the worker
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )

    def wait_ready(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    @property
    def engines(self) -> list[int]:
        """Process ids of the engines."""
        return children(self.process.pid)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def log(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    def close(self) -> None:
        for pid in self.engines if self.process.poll() is None else []:
            os.kill(pid, signal.SIGCONT)
        self.process.kill()
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.close()


def children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(child) for child, parent, state in rows if int(parent) == pid and "Z" not in state]


def is_running(pid: int) -> bool:
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(listed.stdout.strip()) and "Z" not in listed.stdout


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.close()


@pytest.fixture
def start(broker: Broker, tmp_path: Path) -> Iterator[Any]:
    workers: list[Worker] = []

    def start(*settings: str, brokers: list[str] | None = None, slots: int = 1, wait: bool = True) -> Worker:
        worker = Worker(tmp_path, brokers or [broker.address], *settings, slots=slots)
        workers.append(worker)
        if wait:
            broker.until(READY)
            assert worker.wait_ready() == "vc-worker ready engine=tone id=w1"
        return worker

    yield start
    for worker in workers:
        worker.close()


SLOW = ("realtime_factor=1", "seconds_per_char=0.5")
"""A sentence of ten characters takes five seconds: always long enough to be interrupted."""


def urgency_of(pid: int) -> set[tuple[int, int]]:
    """Policy and niceness of each thread of a process."""
    threads = [int(thread) for thread in os.listdir(f"/proc/{pid}/task")]
    return {(os.sched_getscheduler(n), os.getpriority(os.PRIO_PROCESS, n)) for n in threads}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no SCHED_BATCH")
def test_a_worker_gives_way_while_it_speaks_for_nobody_who_waits(broker: Broker, start: Any) -> None:
    """A listener's sentence took 12 ms beside batch jobs and 3 without, waiting for processors."""
    worker = start(*SLOW)
    agent = worker.process.pid
    (engine,) = children(agent)
    ((_, started),) = urgency_of(os.getpid())
    allowed = lowest_nice()

    def seen(job: int, flags: int) -> list[set[tuple[int, int]]]:
        broker.give(job, "A sentence", flags=flags)
        # The second chunk: the agent looks at what it has after each round.
        broker.all_until(CHUNK)
        broker.all_until(CHUNK)
        found = [urgency_of(agent), urgency_of(engine)]
        broker.say(CANCEL, job=job, attempt=1)
        assert broker.all_until(FAILED)[-1].header[0] == "cancelled"
        return found

    def nice(wanted: int) -> int:
        return wanted if wanted >= started else min(started, max(wanted, allowed))

    urgent = [nice(started - 5), min(19, started if allowed <= started else started + 5)]
    patient = [min(19, n + 15) if allowed <= n else n for n in urgent]
    assert seen(1, 0) == [{(os.SCHED_OTHER, n)} for n in urgent]
    assert seen(2, wire.PATIENT) == [{(os.SCHED_BATCH, n)} for n in patient]
    assert seen(3, 0) == [{(os.SCHED_OTHER, n)} for n in urgent]


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_an_engine_process_is_started_with_what_its_libraries_read(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    (engine,) = children(start().process.pid)
    environment = Path(f"/proc/{engine}/environ").read_text()
    # As text: glibc cuts its tunables apart where they lie.
    assert "GLIBC_TUNABLES=glibc.malloc.arena_max=2" in environment
    assert "glibc.malloc.hugetlb=1" in environment
    assert "\0OMP_WAIT_POLICY=passive\0" in environment


def test_a_job_is_spoken_as_the_protocol_says(broker: Broker, start: Any) -> None:
    start("seconds_per_char=0.05")
    broker.give(1, "One sentence. And a second one!", attempt=3)
    started, *chunks, done = broker.all_until(DONE, FAILED)
    assert (started.kind, started.header[:4]) == (STARTED, ["w1", "tone", 24_000, 2])
    assert {message.kind for message in chunks} == {CHUNK}
    assert {(message.job[-1], message.attempt) for message in [started, *chunks, done]} == {(1, 3)}
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.value for chunk in chunks] == sorted(chunk.value for chunk in chunks)
    assert [chunk.value for chunk in chunks if chunk.flags & SEGMENT_END] == [0, 1]
    assert chunks[-1].flags & SEGMENT_END
    samples = sum(len(chunk.payload) // 2 for chunk in chunks)
    assert samples == (len("One sentence.") + len("And a second one!")) * 1200
    assert done.header[:2] == [len(chunks), samples]
    assert 0 < done.header[2] < PATIENCE_S


def test_a_resumed_job_begins_at_its_segment(broker: Broker, start: Any) -> None:
    start("seconds_per_char=0.01")
    broker.give(1, "One. Two. Three.", segment=2)
    started, *chunks, _ = broker.all_until(DONE)
    assert started.sequence == 2
    assert {chunk.value for chunk in chunks} == {2}
    assert chunks[0].sequence == 0
    broker.give(2, "One.", segment=1)
    assert [message.kind for message in broker.all_until(DONE)] == [STARTED, DONE]


def test_a_killed_engine_fails_its_job_at_once_and_the_next_job_works(broker: Broker, start: Any) -> None:
    worker = start(*SLOW)
    broker.give(1, "A long one")
    broker.until(CHUNK)
    broker.give(2, "A")
    [engine] = worker.engines
    os.kill(engine, signal.SIGKILL)
    failed = broker.until(FAILED)
    assert failed.header[0] == "worker_lost"
    assert "SIGKILL" in failed.header[1]
    done = broker.until(DONE)
    assert done.job[-1] == 2
    [again] = worker.engines
    assert again != engine


def test_a_crash_inside_the_engine_names_its_exit_code(broker: Broker, start: Any) -> None:
    start("crash_on=boom")
    broker.give(1, "now boom")
    failed = broker.until(FAILED)
    assert failed.header[0] == "worker_lost"
    assert "exit code 86" in failed.header[1]
    broker.give(2, "fine")
    assert broker.until(DONE, FAILED).kind == DONE


def test_the_agent_beats_while_its_engine_is_stopped(broker: Broker, start: Any) -> None:
    """The engine's process may hold the interpreter, swap or hang: the agent lives in another."""
    worker = start()
    [engine] = worker.engines
    os.kill(engine, signal.SIGSTOP)
    broker.give(1, "Hello.")
    beats = [broker.until(HEARTBEAT, STARTED) for _ in range(5)]
    assert {beat.kind for beat in beats} == {HEARTBEAT}
    beat = beats[-1]
    assert beat.header[0] == 0  # no free slot
    assert beat.header[3]["rss_bytes"] > 10_000_000
    os.kill(engine, signal.SIGCONT)
    assert broker.until(DONE).job[-1] == 1


def test_cancel_in_the_middle_of_speech(broker: Broker, start: Any) -> None:
    start(*SLOW)
    broker.give(1, "A long sentence that would take many seconds")
    broker.until(CHUNK)
    broker.give(2, "B")
    broker.say(CANCEL, job=1, attempt=1)
    failed = broker.until(FAILED, DONE)
    assert (failed.job[-1], failed.header[0]) == (1, "cancelled")
    assert broker.until(DONE).job[-1] == 2


def test_a_deadline_ends_speech(broker: Broker, start: Any) -> None:
    start(*SLOW)
    broker.give(1, "A long sentence that would take many seconds", ms=700)
    failed = broker.until(FAILED, DONE)
    assert failed.header[0] == "deadline_exceeded"


def test_sigterm_finishes_what_runs_returns_what_waits_and_exits(broker: Broker, start: Any) -> None:
    worker = start("realtime_factor=1", "seconds_per_char=0.1")
    broker.give(1, "Ten chars.")
    broker.give(2, "Waits.")
    broker.until(CHUNK)
    worker.process.send_signal(signal.SIGTERM)
    said = [(message.kind, message.job[-1]) for message in broker.all_until(DRAINED) if message.kind != CHUNK]
    assert said == [(DRAIN, 0), (RETURN, 2), (DONE, 1), (DRAINED, 0)]
    assert worker.process.wait(PATIENCE_S) == 0


def test_a_drain_by_the_broker_ends_the_worker_too(broker: Broker, start: Any) -> None:
    worker = start()
    broker.say(DRAIN)
    assert broker.all_until(DRAINED)[-1].kind == DRAINED
    assert worker.process.wait(PATIENCE_S) == 0


def test_a_second_signal_ends_even_a_hanging_engine(broker: Broker, start: Any) -> None:
    worker = start("hang_on=stuck")
    [engine] = worker.engines
    broker.give(1, "stuck")
    broker.until(STARTED)
    worker.process.send_signal(signal.SIGTERM)
    broker.until(DRAIN)
    worker.process.send_signal(signal.SIGTERM)
    broker.until(GOODBYE)
    assert worker.process.wait(PATIENCE_S) == 0
    assert not is_running(engine)


def test_sigterm_does_not_wait_for_an_engine_that_loads(tmp_path: Path) -> None:
    worker = Worker(tmp_path, ["tcp://127.0.0.1:1"], "load_s=600")
    try:
        while not worker.engines:
            assert worker.process.poll() is None, worker.log()
        [engine] = worker.engines
        assert worker.stop() == 0
        assert not is_running(engine)
    finally:
        worker.close()


def test_the_engine_dies_with_its_agent(broker: Broker, start: Any) -> None:
    worker = start("hang_on=stuck")
    [engine] = worker.engines
    broker.give(1, "stuck")
    broker.until(STARTED)
    worker.process.kill()
    worker.process.wait(PATIENCE_S)
    end = time.monotonic() + PATIENCE_S
    while is_running(engine):
        assert time.monotonic() < end, "the engine outlived its agent"


def test_a_broker_that_comes_back_gets_the_worker_back(broker: Broker, start: Any) -> None:
    worker = start()
    broker.close()
    second = Broker(broker.port)
    try:
        # Its transport reconnects before the silence is noticed, or a new socket registers: both are well.
        second.until(READY)
        second.give(1, "Hello again.")
        assert second.until(DONE).job[-1] == 1
        assert "registered with broker" in worker.log()
    finally:
        second.close()


def test_a_silent_broker_gets_a_new_connection(broker: Broker, start: Any) -> None:
    """Half-open connections are only found by silence."""
    worker = start(*SLOW)
    first = broker.peer
    broker.give(1, "A long one")
    broker.until(CHUNK)
    broker.beats = broker.welcomes = False
    assert broker.until(READY).peer != first
    broker.beats = broker.welcomes = True
    broker.welcome()
    broker.give(2, "B")
    assert broker.until(DONE).job[-1] == 2
    assert worker.log().count("does not answer") == 1


def test_a_worker_may_start_before_its_broker(tmp_path: Path) -> None:
    probe = Broker()
    probe.close()
    worker = Worker(tmp_path, [probe.address])
    try:
        while not worker.engines:
            assert worker.process.poll() is None
        late = Broker(probe.port)
        late.until(READY)
        assert worker.wait_ready() == "vc-worker ready engine=tone id=w1"
        late.close()
    finally:
        worker.close()


def test_two_brokers_are_served_and_share_the_slots(broker: Broker, start: Any) -> None:
    other = Broker()
    try:
        worker = start("seconds_per_char=0.01", brokers=[broker.address, other.address], slots=3)
        ready = other.until(READY)
        assert ready.header[4] == 1
        assert len(worker.engines) == 3
        for each, job in ((broker, 1), (other, 2)):
            each.give(job, "Hello.")
            assert each.until(DONE).job[-1] == job
    finally:
        other.close()


def test_slots_speak_side_by_side(broker: Broker, start: Any) -> None:
    start("realtime_factor=1", "seconds_per_char=0.1", slots=2)
    broker.give(1, "Ten chars.")
    broker.give(2, "Ten chars.")
    kinds: dict[int, list[int]] = {1: [], 2: []}
    while not (DONE in kinds[1] and DONE in kinds[2]):
        message = broker.until(STARTED, CHUNK, DONE)
        kinds[message.job[-1]].append(message.kind)
        if message.kind == DONE:
            assert kinds[1], "the second job waited for the first"
            assert kinds[2], "the second job waited for the first"


def test_a_broker_that_talks_nonsense_is_told_so(broker: Broker, start: Any) -> None:
    start()
    broker.socket.send_multipart([broker.peer, b"nonsense"])
    broker.socket.send_multipart([broker.peer, *[b"VB1" + bytes(29)] * 9])
    broker.say(JOB, job=5, attempt=1)
    for job in (0, 0, 5):
        failed = broker.until(FAILED)
        assert (failed.header[0], failed.job[-1]) == ("protocol_error", job)
    broker.give(1, "Still here.")
    assert broker.until(DONE).job[-1] == 1


@pytest.mark.parametrize(
    ("text", "header", "code", "words"),
    [
        ("Hi.", {"voice": "nobody"}, "unknown_voice", "nobody"),
        ("Hi.", {"language": "xx"}, "bad_request", "de, en"),
        (" \n ", {}, "bad_request", "empty"),
        ("Hi.", {"language": "not a tag"}, "protocol_error", "Submit"),
    ],
)
def test_what_cannot_be_spoken_is_refused_with_its_code(
    broker: Broker, start: Any, text: str, header: dict[str, Any], code: str, words: str
) -> None:
    start()
    broker.give(1, text, **header)
    failed = broker.until(FAILED, DONE)
    assert failed.header[0] == code
    assert words in failed.header[1]
    broker.give(2, "Fine.")
    assert broker.until(DONE).job[-1] == 2


def test_a_broker_that_reads_nothing_for_a_while_gets_everything_in_order(broker: Broker, start: Any) -> None:
    """Backpressure: the engine waits, the agent goes on beating, no audio is lost."""
    start("seconds_per_char=0.5", "sample_rate=48000")
    text = " ".join(f"Sentence number {number:03}." for number in range(100))
    broker.give(1, text)
    for _ in range(10):  # a second in which the broker beats and does not listen
        assert broker.socket.poll(int(PATIENCE_S * 1000))
        broker.say(HEARTBEAT)
        zmq.select([], [], [], INTERVAL_MS / 1000)
    _, *chunks, done = broker.all_until(DONE, FAILED)
    assert done.kind == DONE
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    samples = sum(len(chunk.payload) for chunk in chunks) // 2
    assert samples == done.header[1] == 100 * len("Sentence number 000.") * 24_000
