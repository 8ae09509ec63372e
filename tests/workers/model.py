"""A world for the worker's core: carries out its actions on tables instead of sockets and processes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import msgpack
from msgspec import structs

from voicebus.common import wire
from voicebus.common.errors import BusError
from voicebus.common.messages import Done, Started, Submit, Welcome, encode, failed
from voicebus.common.wire import ENVELOPE, pack_envelope
from voicebus.workers import control
from voicebus.workers.actions import (
    Actions,
    Beat,
    CloseLink,
    Exit,
    KillChild,
    Log,
    OpenLink,
    StartChild,
    ToBroker,
    ToChild,
)
from voicebus.workers.core import WorkerCore
from voicebus.workers.links import Timing

FACTS = control.Loaded("tone", "1", 24_000, ["en", "de"], 400)
TIMING = Timing(interval_s=1.0, liveness=3, cancel_grace_s=5.0, stop_grace_s=3.0)
Key = tuple[bytes, int]


@dataclass
class Message:
    """One message, unpacked with nothing but struct and msgpack: what a stranger would see."""

    kind: int
    job: bytes
    attempt: int
    flags: int
    sequence: int
    value: int
    header: Any = None
    payload: Any = None

    @property
    def name(self) -> str:
        return wire.KIND_NAMES[self.kind]


def read(frames: list[Any]) -> Message:
    magic, *rest = ENVELOPE.unpack(frames[0])
    assert magic == b"VB1"
    message = Message(*rest)
    with_header, with_payload = wire.SHAPES[message.kind]
    assert len(frames) == 1 + with_header + with_payload, message
    if with_header:
        message.header = msgpack.unpackb(bytes(frames[1]))
    if with_payload:
        message.payload = bytes(frames[-1])
    return message


@dataclass
class Slot:
    running: bool = False
    jobs: list[Key] = field(default_factory=list[Key])
    cancelled: bool = False
    told_to_go: bool = False
    killed: bool = False
    inbox: list[Message] = field(default_factory=list[Message])

    @property
    def job(self) -> Key | None:
        """The job it has had for longest."""
        return self.jobs[0] if self.jobs else None


class World:
    """Brokers that record, engine processes that do as they are told by the test."""

    def __init__(
        self, brokers: int = 1, slots: int = 1, *, random: float = 0.5, batch: int = 1, idle_s: float = inf
    ) -> None:
        self.now = 100.0
        self.batch = batch
        self.core = WorkerCore(
            "w", 7, "tone", [f"tcp://broker{i}" for i in range(brokers)], slots=slots,
            timing=replace(TIMING, idle_unload_s=idle_s), random=lambda: random, strict=True,
        )  # fmt: skip
        self.sockets = [False] * brokers
        self.sent: list[list[Message]] = [[] for _ in range(brokers)]
        self.slots = [Slot() for _ in range(slots)]
        self.log: list[str] = []
        self.exit: Exit | None = None
        self.do(self.core.start)

    @property
    def error(self) -> BusError | None:
        """What the worker ended with; it must have ended."""
        assert self.exit is not None, "the worker goes on"
        return self.exit.error

    def do(self, call: Any, *arguments: Any) -> None:
        out: Actions = []
        call(*arguments, out)
        for action in out:
            self.carry_out(action)
        self.core.check_invariants()

    def carry_out(self, action: Any) -> None:
        assert self.exit is None, "an action after the end"
        match action:
            case ToBroker(link, frames) | Beat(link, frames):
                assert self.sockets[link], "sent without a socket"
                self.sent[link].append(read(frames))
            case OpenLink(link):
                assert not self.sockets[link], "opened twice"
                self.sockets[link] = True
            case CloseLink(link, _):
                assert self.sockets[link], "closed twice"
                self.sockets[link] = False
            case StartChild(slot):
                assert not self.slots[slot].running, "started twice"
                self.slots[slot] = Slot(running=True)
            case KillChild(slot):
                assert self.slots[slot].running, "killed what is dead"
                self.slots[slot].killed = True
            case ToChild(slot, frames):
                self.to_child(self.slots[slot], read(frames))
            case Log(_, line):
                self.log.append(line)
            case Exit():
                assert all(slot.killed for slot in self.slots if slot.running)
                assert not any(self.sockets)
                self.exit = action
            case _:
                raise AssertionError(action)

    def to_child(self, slot: Slot, message: Message) -> None:
        assert slot.running, "a message for a dead process"
        slot.inbox.append(message)
        if message.kind == wire.JOB:
            assert not slot.told_to_go, "a job for an engine that was told to go"
            slot.jobs.append((message.job, message.attempt))
            assert len(slot.jobs) <= self.batch, "more jobs than an engine takes"
            assert len(slot.jobs) == 1 or all(attempt == 1 for _, attempt in slot.jobs), "company for a retry"
        elif message.kind == wire.CANCEL:
            slot.cancelled = (message.job, message.attempt) in slot.jobs
        elif message.kind == wire.GOODBYE:
            slot.told_to_go = True

    # The brokers' side.

    def broker(self, kind: int, *frames: Any, link: int = 0, **envelope: Any) -> None:
        """A broker says something."""
        message = [pack_envelope(kind, **envelope), *frames]
        self.do(self.core.broker_message, link, message, self.now)

    def welcome(self, link: int = 0, interval_ms: int = 1000, liveness: int = 3) -> None:
        self.broker(wire.WELCOME, encode(Welcome("b", interval_ms, liveness)), link=link)

    def give(self, job: int, attempt: int = 1, *, link: int = 0, ms: int = 60_000, segment: int = 0) -> None:
        """A broker dispatches a job."""
        self.broker(
            wire.JOB, encode(Submit("tone")), b"hello", link=link,
            job=key(job), attempt=attempt, sequence=segment, value=ms,
        )  # fmt: skip

    def cancel(self, job: int, attempt: int = 1, *, link: int = 0) -> None:
        self.broker(wire.CANCEL, link=link, job=key(job), attempt=attempt)

    def heard(self, *, link: int = 0, beats: bool = False) -> list[str]:
        """Names of what a broker got since the last time it was asked."""
        messages, self.sent[link] = self.sent[link], []
        return [message.name for message in messages if beats or message.name != "HEARTBEAT"]

    def last(self, link: int = 0) -> Message:
        return self.sent[link][-1]

    # The engines' side.

    def child(self, slot: int, frames: list[Any]) -> None:
        assert self.slots[slot].running
        self.do(self.core.child_message, slot, frames, self.now)

    def loaded(self, slot: int = 0) -> None:
        facts = structs.replace(FACTS, batch=self.batch)
        self.child(slot, control.message(control.LOADED, facts))

    def speak(self, slot: int, kind: int, *frames: Any, **envelope: Any) -> None:
        job, attempt = self.slots[slot].job or (bytes(16), 0)
        self.child(slot, [pack_envelope(kind, job, attempt, **envelope), *frames])

    def begin(self, slot: int = 0) -> None:
        self.speak(slot, wire.STARTED, encode(Started("w", "tone", 24_000, 1)))

    def chunk(self, slot: int = 0) -> None:
        self.speak(slot, wire.CHUNK, b"\1\0" * 100)

    def finish(self, slot: int = 0) -> None:
        self.end(slot, wire.DONE, encode(Done(1, 24_000, 0.5)))

    def fail(self, slot: int, error: BusError) -> None:
        self.end(slot, wire.FAILED, encode(failed(error)))

    def end(self, slot: int, kind: int, header: bytes) -> None:
        job, attempt = self.slots[slot].job or (bytes(16), 0)
        del self.slots[slot].jobs[:1]  # the core may answer with the next job
        self.child(slot, [pack_envelope(kind, job, attempt), header])

    def die(self, slot: int = 0, how: str = "signal 9, SIGKILL") -> None:
        self.slots[slot] = Slot()
        self.do(self.core.child_died, slot, how, self.now)

    # Time.

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass as the loop would: never beyond a deadline."""
        end = self.now + seconds
        at_once = 0
        while True:
            deadline = self.core.next_deadline()
            at_once = at_once + 1 if deadline <= self.now else 0
            assert at_once < 5, "a deadline that tick does not settle: the loop would spin"
            self.now = max(self.now, min(end, deadline))
            self.do(self.core.tick, self.now)
            if self.exit is not None or self.core.next_deadline() > end:
                break
        self.now = end


def key(job: int) -> bytes:
    return job.to_bytes(16, "big")


def ready_world(brokers: int = 1, slots: int = 1, **core: Any) -> World:
    """A world with every engine loaded and every broker registered."""
    world = World(brokers, slots, **core)
    for slot in range(slots):
        world.loaded(slot)
    for link in range(brokers):
        world.welcome(link)
        assert world.heard(link=link)[0] == "READY"
    for link in range(brokers):
        world.heard(link=link)
    return world
