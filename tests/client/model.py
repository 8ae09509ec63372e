"""A tiny broker for the client's core: it speaks every job's true audio and misbehaves on demand.

The true audio of a job is a few segments of a few chunks, all different, so that a test can tell a chunk
heard twice, left out or of another job. Each message the client sends is checked with msgpack, which knows
nothing of our own types.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgpack

from voicebus.client.brokers import Line, LineState
from voicebus.client.core import ClientCore
from voicebus.client.task import Task
from voicebus.common import wire
from voicebus.common.messages import Accepted, AdminReply, Done, Failed, Started, Submit, encode

RATE_HZ = 24_000
PAGE_CHUNKS = 2
"""Small pages, so that most results have several."""


def true_audio(job: bytes) -> list[list[bytes]]:
    """Segments of chunks; their number follows from the job."""
    shape = random.Random(job)
    return [
        [bytes((segment, chunk)) + job[:2] for chunk in range(shape.randint(1, 3))]
        for segment in range(shape.randint(1, 3))
    ]


@dataclass
class BrokerJob:
    stream: bool
    durable: bool = False
    attempt: int = 0
    segment: int = 0
    chunk: int = 0
    number: int = 0
    running: bool = False
    listened: bool = True
    "Its submitter is on the line: it hears what is spoken."
    watched: bool = False

    @property
    def at_boundary(self) -> bool:
        return self.chunk == 0


@dataclass
class Broker:
    """One scripted broker behind one line. `queue` holds what is on its way to the client."""

    jobs: dict[bytes, BrokerJob] = field(default_factory=dict)
    ended: dict[bytes, str] = field(default_factory=dict)
    "Codes of durable jobs that have ended, and of others until they are forgotten; `done` for good ones."
    durable: set[bytes] = field(default_factory=set)
    busy: int = 0
    "FETCHes that it will refuse."
    queue: list[tuple[bytes, bytes | None, bytes | None]] = field(default_factory=list)
    alive: bool = True
    submits: int = 0
    fetches: int = 0
    cancels: int = 0

    def take(self, frames: tuple[bytes, ...]) -> None:
        kind, job, _attempt, flags, sequence, _value = conforming(frames)
        if not self.alive:
            return
        if kind == wire.PING:
            self.queue.append((wire.pack_envelope(wire.PONG, sequence=sequence), None, None))
        elif kind == wire.CANCEL:
            self.cancels += 1
            self.jobs.pop(job, None)
        elif kind == wire.ADMIN:
            self.answer(job, frames[1])
        elif kind == wire.FETCH:
            self.fetches += 1
            self.fetch(job, sequence)
        elif kind == wire.SUBMIT:
            self.submits += 1
            self.submit(job, flags, durable=msgpack.unpackb(frames[1])[7])

    def submit(self, job: bytes, flags: int, *, durable: bool) -> None:
        if job in self.ended:
            self.tell(job)
            return
        state = self.jobs.get(job)
        attached = 0 if state is None else wire.ATTACHED
        if state is None:
            state = self.jobs[job] = BrokerJob(bool(flags & wire.STREAM), durable)
        self.send(wire.ACCEPTED, job, encode(Accepted("tone")), flags=attached)
        if flags & wire.ANEW or not state.listened:
            # What the old connection was sent is lost to this one: it is spoken anew.
            state.listened = True
            state.running = False
            state.segment = state.chunk = 0

    def fetch(self, job: bytes, first: int) -> None:
        if self.busy:
            self.busy -= 1
            self.send(wire.FAILED, job, encode(Failed("overloaded", "other readers", 0.2)))
        elif job in self.jobs:
            self.jobs[job].watched = True
            self.send(wire.ACCEPTED, job, encode(Accepted("tone")), flags=wire.ATTACHED)
        elif self.ended.get(job, "") != "done":
            code = self.ended.get(job, "unknown_job")
            self.send(wire.FAILED, job, encode(Failed(code, "as told")), attempt=1)
        else:
            self.page(job, first)

    def page(self, job: bytes, first: int) -> None:
        chunks = [
            (segment, at == len(parts) - 1, pcm)
            for segment, parts in enumerate(true_audio(job))
            for at, pcm in enumerate(parts)
        ]
        if first == 0:
            started = encode(Started("w", "tone", RATE_HZ, len(true_audio(job))))
            self.send(wire.STARTED, job, started, attempt=1)
        page = chunks[first : first + PAGE_CHUNKS]
        for number, (segment, last, pcm) in enumerate(page, first):
            end = wire.SEGMENT_END if last else 0
            self.send(wire.CHUNK, job, None, pcm, attempt=1, flags=end, sequence=number, value=segment)
        if first + len(page) >= len(chunks):
            self.send(wire.DONE, job, encode(Done(len(chunks), 1)), attempt=1)

    def tell(self, job: bytes) -> None:
        """Say how a job has ended, to one who asks or watches."""
        if self.ended[job] == "done":
            flags = wire.ATTACHED | wire.STORED
            self.send(wire.ACCEPTED, job, encode(Accepted("tone")), flags=flags)
        else:
            self.send(wire.FAILED, job, encode(Failed(self.ended[job], "as told")), attempt=1)

    def end(self, job: bytes, code: str) -> None:
        state = self.jobs.pop(job)
        if state.durable or code == "done":
            self.ended[job] = code
            if state.durable:
                self.durable.add(job)
            if state.watched:
                self.tell(job)

    def answer(self, request: bytes, header: bytes) -> None:
        command, target, _offset = msgpack.unpackb(header)
        job = bytes.fromhex(target)
        known = job in self.jobs
        if known and command == "cancel":
            if self.jobs[job].listened:
                self.send(wire.FAILED, job, encode(Failed("cancelled", "as told")), attempt=1)
            self.end(job, "cancelled")
            self.cancels += 1
        reply = AdminReply(ok=True) if known else AdminReply(ok=False, code="unknown_job", message="who?")
        self.send(wire.ADMIN, request, encode(reply), b"\x80")

    def send(
        self, kind: int, job: bytes, header: bytes | None = None, pcm: bytes | None = None, **numbers: int
    ) -> None:
        self.queue.append((wire.pack_envelope(kind, job, **numbers), header, pcm))

    def start(self, job: bytes) -> None:
        """Begin an attempt; a running one is lost, as when its worker dies."""
        state = self.jobs[job]
        if state.attempt and state.stream and not state.at_boundary and not state.durable:
            self.fail(job, "worker_lost")
            return
        if not state.stream:
            state.segment = 0 if state.attempt % 2 else state.segment
        state.attempt += 1
        state.chunk = state.number = 0
        state.running = True
        started = encode(Started(f"w{state.attempt}", "tone", RATE_HZ, len(true_audio(job))))
        if state.listened:
            self.send(wire.STARTED, job, started, attempt=state.attempt, sequence=state.segment)

    def speak(self, job: bytes) -> None:
        """Send the next chunk, or DONE after the last."""
        state, audio = self.jobs[job], true_audio(job)
        if state.segment >= len(audio):
            if state.listened:
                self.send(wire.DONE, job, encode(Done(state.number, 1)), attempt=state.attempt)
            self.end(job, "done")
            return
        last = state.chunk == len(audio[state.segment]) - 1
        if state.listened:
            self.send(
                wire.CHUNK,
                job,
                None,
                audio[state.segment][state.chunk],
                attempt=state.attempt,
                flags=wire.SEGMENT_END if last else 0,
                sequence=state.number,
                value=state.segment,
            )
        state.number += 1
        state.chunk, state.segment = (0, state.segment + 1) if last else (state.chunk + 1, state.segment)

    def fail(self, job: bytes, code: str, retry_after_s: float | None = None) -> None:
        state = self.jobs[job]
        if state.listened:
            header = encode(Failed(code, "as told", retry_after_s))
            self.send(wire.FAILED, job, header, attempt=state.attempt)
        self.end(job, code)

    def cut_off(self) -> None:
        """The client was silent for too long: durable jobs go on without it, the others are given up."""
        for job, state in list(self.jobs.items()):
            if state.durable:
                state.listened = False
            else:
                self.send(wire.FAILED, job, encode(Failed("client_lost", "silent")), attempt=state.attempt)
                del self.jobs[job]

    def connection_lost(self) -> None:
        """What was on its way is gone; nobody hears until somebody submits again."""
        self.queue.clear()
        for state in self.jobs.values():
            state.listened = state.watched = False

    def crash(self) -> None:
        """The journal alone is left."""
        for job, state in list(self.jobs.items()):
            if state.durable:
                self.jobs[job] = BrokerJob(False, durable=True, attempt=state.attempt, listened=False)
            else:
                del self.jobs[job]
        self.forget()
        self.queue.clear()
        self.alive = False

    def forget(self) -> None:
        """Results that are not in the journal are kept for a while only."""
        self.ended = {job: code for job, code in self.ended.items() if job in self.durable}


class Desk:
    """A core with its brokers, a clock and the record of what became of each task."""

    def __init__(self, brokers: int = 1, seed: int = 0) -> None:
        self.now = 100.0
        self._ids = count(1)
        dice = random.Random(seed)
        self.core = ClientCore(
            [f"tcp://broker-{number}" for number in range(brokers)], random=dice.random, new_id=self.new_id
        )
        self.core.fetching.page_chunks = PAGE_CHUNKS
        self.brokers = [Broker() for _ in range(brokers)]
        self.tasks: list[Task] = []
        self.heard: dict[int, list[bytes]] = {}
        self.ends: dict[int, int] = {}
        self.core.open(self.now)
        self.flush()

    def new_id(self) -> bytes:
        return random.Random(next(self._ids)).randbytes(16)

    def submit(
        self,
        *,
        listening: bool = False,
        stream: bool = False,
        deadline_s: float = 1e9,
        durable: bool = False,
        job: bytes | None = None,
        seeks: bool = False,
    ) -> Task:
        text = "Words."
        task = Task(
            job or self.new_id(),
            encode(Submit("tone", "amber", characters=len(text), durable=durable)),
            text.encode(),
            deadline=self.now + deadline_s,
            flags=wire.STREAM if stream or listening else wire.PATIENT,
            listening=listening,
            durable=durable,
            seeks=seeks,
        )
        return self.begin(task)

    def fetch(self, job: bytes) -> Task:
        return self.begin(Task(job, b"", None, kind=wire.FETCH, seeks=True))

    def begin(self, task: Task) -> Task:
        self.tasks.append(task)
        self.core.submit(task, self.now)
        self.flush()
        return task

    def flush(self) -> None:
        """Do what the link does after each burst, and look at what the sinks would see."""
        for line in self.core.lines:
            broker = self.brokers[line.number]
            if line.hang_up or line.dial:
                broker.connection_lost()
                line.hang_up = line.dial = False
            if line.state is not LineState.CLOSED:
                for frames in line.out:
                    broker.take(frames)
            line.out.clear()
        for task in self.core.touched:
            key = id(task)
            if task.heard:
                heard = self.heard.setdefault(key, [])
                while task.heard:
                    heard.append(task.heard.popleft())
        for task in self.core.touched:
            if task.ended and not self.ends.get(id(task)):
                self.ends[id(task)] = 1
                assert self.core.tasks.get(task.job) is not task
        self.core.touched.clear()
        self.core.check_invariants()

    def deliver(self, number: int, at: int = 0) -> None:
        line, broker = self.core.lines[number], self.brokers[number]
        if broker.queue and line.state is not LineState.CLOSED:
            self.core.receive(line, *broker.queue.pop(at), self.now)
            self.flush()

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.core.tick(self.now)
        self.flush()

    def settle(self, rounds: int = 4000) -> None:
        """No more mischief: brokers live, speak and answer, until every task has ended."""
        for broker in self.brokers:
            broker.alive = True
        for _ in range(rounds):
            for number, broker in enumerate(self.brokers):
                if self.core.lines[number].state is LineState.CLOSED:
                    broker.connection_lost()
                while broker.queue:
                    self.deliver(number)
                    if self.core.lines[number].state is LineState.CLOSED:
                        break
                for job in list(broker.jobs):
                    if broker.jobs[job].running:
                        broker.speak(job)
                    else:
                        broker.start(job)
            if not self.core.tasks:
                return
            if not any(broker.queue for broker in self.brokers):
                self.tick(0.25)
        raise AssertionError(f"never ended: {[task for task in self.tasks if not task.ended]}")

    def audio_of(self, task: Task) -> list[bytes]:
        return self.heard.get(id(task), []) + task.chunks


def conforming(frames: tuple[bytes, ...]) -> tuple[int, bytes, int, int, int, int]:
    """Check a client's message against docs/protocol.md with struct and msgpack alone."""
    envelope = wire.unpack_envelope(frames[0])
    kind, job, attempt = envelope[:3]
    assert attempt == 0
    shape: dict[int, int] = {wire.SUBMIT: 3, wire.CANCEL: 1, wire.PING: 1, wire.ADMIN: 2, wire.FETCH: 1}
    assert len(frames) == shape[kind]
    if kind == wire.PING:
        assert job == bytes(16)
    else:
        assert any(job)
    if kind == wire.SUBMIT:
        header: list[Any] = msgpack.unpackb(frames[1], strict_map_key=True)
        assert isinstance(header, list)
        engine, voice, language, lane, tenant, characters, speed, durable, options, trace = header
        assert all(isinstance(item, str) for item in (engine, voice, language, tenant, trace))
        assert lane in ("interactive", "batch")
        assert characters == len(frames[2].decode())
        assert 0.25 <= speed <= 4
        assert isinstance(durable, bool)
        assert isinstance(options, dict)
    if kind == wire.ADMIN:
        assert msgpack.unpackb(frames[1])[0] in ("status", "drain", "job", "cancel")
    return envelope


def line_of(desk: Desk, task: Task) -> Line:
    return desk.core.lines[task.line]
