"""A broker core with a clock and peers of its own, driven by method calls: what every test here stands on."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec

from voicebus.broker.core import BrokerCore
from voicebus.common import wire
from voicebus.common.config import Broker
from voicebus.common.messages import Done, Failed, Heartbeat, Ready, Spoken, Started, Submit, decode, encode

STARTED = encode(Started("w", "tone", 24_000))
DONE = encode(Done(1, 100))


@dataclass
class Sent:
    """What the core has sent, by receiver, and the terminal answers each job got."""

    to_client: dict[bytes, list[tuple[bytes, ...]]] = field(default_factory=lambda: defaultdict(list))
    to_worker: dict[bytes, list[tuple[bytes, ...]]] = field(default_factory=lambda: defaultdict(list))
    accepted: Counter[bytes] = field(default_factory=Counter)
    terminal: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)
    "By receiver and job."


class Bus:
    """A core and everything it ever sent. `flush` is called after each step, as the loop does."""

    def __init__(self, strategy: Any = "lru", seed: int = 1, **settings: Any) -> None:
        base = Broker(strategy=strategy, default_engine="tone", journal=None)
        self.settings = msgspec.structs.replace(base, **settings)
        self.now = 1000.0
        self.core = BrokerCore(self.settings, random.Random(seed).randrange, self.now)
        self.sent = Sent()
        self._ids = 0

    def settle(self) -> None:
        self.core.flush(self.now)
        for message in self.core.to_clients:
            self.sent.to_client[message[0]].append(message[1:])
            kind, job = message[1][3], message[1][4:20]
            self.sent.accepted[job] += kind == wire.ACCEPTED and not message[1][23] & wire.ATTACHED
            self.sent.terminal[message[0], job] += kind in (wire.DONE, wire.FAILED, wire.SPOKEN)
        for message in self.core.to_workers:
            self.sent.to_worker[message[0]].append(message[1:])
        self.core.to_clients.clear()
        self.core.to_workers.clear()
        self.core.check_invariants()

    # clients
    def submit(
        self,
        client: bytes = b"c",
        job: bytes | None = None,
        *,
        flags: int = 0,
        ms: int = 0,
        text: bytes = b"hi",
        **fields: Any,
    ) -> bytes:
        if job is None:
            self._ids += 1
            job = self._ids.to_bytes(16, "big")
        envelope = wire.pack_envelope(wire.SUBMIT, job, flags=flags, value=ms)
        self.core.submit(client, envelope, encode(Submit(**fields)), text, self.now)
        self.settle()
        return job

    def cancel(self, job: bytes, client: bytes = b"c") -> None:
        self.core.cancel(client, job, self.now)
        self.settle()

    def ping(self, client: bytes = b"c") -> None:
        self.core.ping(client, wire.pack_envelope(wire.PING), self.now)
        self.settle()

    # workers
    def ready(
        self,
        peer: bytes,
        worker: str | None = None,
        *,
        incarnation: int = 1,
        slots: int = 1,
        engine: str = "tone",
        interval_ms: int = 1000,
        warm: tuple[str, ...] = (),
        learns: bool = False,
    ) -> None:
        header = Ready(
            worker or peer.decode(), incarnation, engine, ["en"], slots, interval_ms, 24_000,
            warm_voices=list(warm), learns=learns,
        )  # fmt: skip
        self.core.ready(peer, encode(header), self.now)
        self.settle()

    def given(self, peer: bytes) -> list[bytes]:
        """Keys (job id + attempt) of all JOBs this connection was ever sent."""
        keys: list[bytes] = []
        for message in self.sent.to_worker[peer]:
            if message[0][3] == wire.JOB:
                keys.append(message[0][4:22])
        return keys

    def open(self, peer: bytes) -> list[bytes]:
        worker = self.core.members.by_peer.get(peer)
        return list(worker.inflight) if worker else []

    def _from(self, kind: int, key: bytes, **fields: int) -> bytes:
        return wire.pack_envelope(kind, key[:16], int.from_bytes(key[16:]), **fields)

    def started(self, peer: bytes, key: bytes) -> None:
        self.core.started(peer, self._from(wire.STARTED, key), STARTED, self.now)
        self.settle()

    def chunk(
        self,
        peer: bytes,
        key: bytes,
        *,
        segment: int = 0,
        end: bool = True,
        audio: bytes = b"\0\0",
        number: int | None = None,
    ) -> None:
        """Send a chunk, by default the one that comes next."""
        job = self.core.ledger.jobs.get(key[:16])
        if number is None:
            number = 0 if job is None else job.next_chunk
        flags = wire.SEGMENT_END if end else 0
        envelope = self._from(wire.CHUNK, key, flags=flags, value=segment, sequence=number)
        self.core.chunk(peer, envelope, audio, self.now)
        self.settle()

    def done(self, peer: bytes, key: bytes) -> None:
        self.core.done(peer, self._from(wire.DONE, key), DONE, self.now)
        self.settle()

    def spoken(self, peer: bytes, key: bytes, *, segment: int = 0, audio: bytes = b"\0\0") -> None:
        """Send a whole attempt in one message."""
        envelope = self._from(wire.SPOKEN, key, flags=wire.SEGMENT_END, value=segment)
        header = encode(Spoken("w", "tone", 24_000, 1, len(audio) // 2, 0.5))
        self.core.spoken(peer, envelope, (header, audio), self.now)
        self.settle()

    def failed(self, peer: bytes, key: bytes, code: str) -> None:
        self.core.failed(peer, self._from(wire.FAILED, key), encode(Failed(code, "why")), self.now)
        self.settle()

    def returned(self, peer: bytes, key: bytes) -> None:
        self.core.returned(peer, self._from(wire.RETURN, key), self.now)
        self.settle()

    def beat(self, peer: bytes, *progressed: bytes, warm: tuple[str, ...] | None = None) -> None:
        worker = self.core.members.by_peer.get(peer)
        voices = worker.warm_voices if warm is None and worker is not None else list(warm or ())
        beat = Heartbeat(progressed=list(progressed), warm_voices=voices)
        self.core.heartbeat(peer, encode(beat), self.now)
        self.settle()

    def finish(self, peer: bytes, key: bytes, *, first_audio_s: float = 0.0) -> None:
        """Speak an attempt from beginning to end."""
        self.started(peer, key)
        self.now += first_audio_s
        self.chunk(peer, key)
        self.done(peer, key)

    # time
    def pass_time(self, seconds: float, *alive: bytes, clients: tuple[bytes, ...] = (b"c",)) -> None:
        """Let time pass in small steps; `alive` workers beat and `clients` ping as they should."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.25)
            for peer in alive:
                if peer in self.core.members.by_peer:
                    self.beat(peer)
            for client in clients:
                self.ping(client)
            self.core.tick(self.now)
            self.settle()

    # answers
    def answer(self, job: bytes, client: bytes = b"c") -> str:
        """`done`, the code of the failure, or `open`; exactly one terminal answer is allowed."""
        answers: list[str] = []
        for message in self.sent.to_client[client]:
            if message[0][4:20] == job and message[0][3] in (wire.DONE, wire.SPOKEN):
                answers.append("done")
            elif message[0][4:20] == job and message[0][3] == wire.FAILED:
                answers.append(decode(message[1], Failed).code)
        assert len(answers) <= 1, answers
        return answers[0] if answers else "open"
