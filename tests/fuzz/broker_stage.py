"""A broker's core among strangers who say anything, with an honest client and an honest worker beside them.

The strangers have connections and an engine of their own. Whatever they say, the broker's tables must agree
after every message, what it sends must be VB1 and go to those who asked, and the honest client must get the
very audio that the honest worker spoke for it, once, and in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from random import Random
from typing import Any, Final

from tests.fuzz.steps import Step
from tests.fuzz.target import require
from voicebus.broker import admin
from voicebus.broker.core import BrokerCore
from voicebus.broker.entries import Audio, Dropped, Ended, Entered, Page, Read, Rewound
from voicebus.common import bundles, messages, wire
from voicebus.common.config import Broker
from voicebus.common.errors import BusError, ProtocolError, UnknownJob
from voicebus.common.messages import decode, encode

CLIENT, WORKER = b"honest client", b"honest worker"
ENGINE: Final = "honest"
RATE_HZ: Final = 8000
BEAT_S: Final = 1.0
PATIENCE_S: Final = 30.0
"""What an honest answer may take, in virtual seconds, leases, deadlines and retries of others included."""
SETTINGS: Final = Broker(
    journal="state", default_engine="tone", no_worker_grace_s=3.0, progress_lease_s=5.0,
    client_timeout_s=10.0,
    default_deadline_s=20.0, result_cache_bytes=1 << 20, max_jobs=200, max_jobs_per_client=50, ageing_s=5.0,
)  # fmt: skip
HEADERS: Final[dict[int, type[messages.Header]]] = {
    wire.ACCEPTED: messages.Accepted, wire.STARTED: messages.Started, wire.DONE: messages.Done,
    wire.FAILED: messages.Failed, wire.SPOKEN: messages.Spoken, wire.ADMIN: messages.AdminReply,
    wire.WELCOME: messages.Welcome, wire.JOB: messages.Submit,
}  # fmt: skip
TO_CLIENTS: Final = frozenset((
    wire.ACCEPTED, wire.STARTED, wire.CHUNK, wire.DONE, wire.FAILED, wire.PONG, wire.ADMIN, wire.SPOKEN,
))  # fmt: skip
TO_WORKERS: Final = frozenset((
    wire.WELCOME, wire.FAILED, wire.JOB, wire.CANCEL, wire.HEARTBEAT, wire.DRAIN, wire.GOODBYE,
    wire.REREGISTER,
))  # fmt: skip
CLIENTS_SAY: Final = (wire.SUBMIT, wire.PING, wire.CANCEL, wire.FETCH, wire.ADMIN)
WORKERS_SAY: Final = (
    wire.READY, wire.HEARTBEAT, wire.STARTED, wire.CHUNK, wire.DONE, wire.SPOKEN, wire.FAILED, wire.RETURN,
    wire.DRAIN, wire.DRAINED, wire.GOODBYE,
)  # fmt: skip


def truth(job: bytes) -> list[bytes]:
    """The audio of a job, chunk by chunk: every worker that is honest speaks it alike."""
    seed = blake2b(job, digest_size=32).digest()
    return [seed * (2 + seed[0] % 3), seed[::-1] * 2]


class Shelf:
    """A journal that never fails, in memory."""

    def __init__(self) -> None:
        self._audio: dict[bytes, list[tuple[int, int, bytes]]] = {}
        self._ended: dict[bytes, Ended] = {}

    def take(self, entry: Any) -> Page | BusError | None:
        """Its word on one entry."""
        if isinstance(entry, Entered):
            self._audio[entry.job] = []
        elif isinstance(entry, Audio):
            self._audio.setdefault(entry.job, []).append((entry.segment, entry.flags, bytes(entry.pcm)))
        elif isinstance(entry, Rewound):
            del self._audio.setdefault(entry.job, [])[entry.chunks :]
        elif isinstance(entry, Ended):
            self._ended[entry.job] = entry
        elif isinstance(entry, Dropped):
            self._audio.pop(entry.job, None)
            self._ended.pop(entry.job, None)
        elif isinstance(entry, Read):
            ended = self._ended.get(entry.job)
            if ended is None or ended.state != "done":
                return UnknownJob("the result of this job is kept no longer")
            chunks = self._audio[entry.job]
            page = chunks[entry.first : entry.first + entry.count]
            return Page(ended.started, page, ended.answer if entry.first + len(page) >= len(chunks) else None)
        return None


class BrokerStage:
    """One history."""

    def __init__(self) -> None:
        self.now = 100.0
        self.core = BrokerCore(SETTINGS, Random(7).randrange, self.now)
        self._shelf = Shelf()
        self._asked: dict[bytes, set[bytes]] = {}
        self._answers: dict[bytes, list[tuple[int, bytes, bytes]]] = {}
        "What the honest client was sent for each job that it waits for."
        self._asked_at: dict[bytes, float] = {}
        self._count = 0
        self._beat_at = self.now
        self.ended = 0
        self.worker_says(WORKER, wire.pack_envelope(wire.READY), encode(_ready()), None)
        self.submit()

    # ---- strangers

    def play(self, step: Step) -> None:
        """Let a stranger say something, and see what comes of it."""
        self.wait(step.wait_ms / 1000)
        peer = (b"client-", b"worker-")[step.side] + bytes((48 + step.peer,))
        try:
            for envelope, header, payload in _messages(step):
                try:
                    if step.side == 0:
                        self._asked.setdefault(peer, set()).add(envelope[4:20])
                        self._client_says(peer, envelope, header, payload)
                    else:
                        self.worker_says(peer, envelope, header, payload)
                except ProtocolError:
                    pass  # answered and counted by the loop
        except ProtocolError:
            pass
        self.settle()

    def _client_says(self, peer: bytes, envelope: bytes, header: Any, payload: Any) -> None:
        core, now, kind = self.core, self.now, envelope[3]
        if kind == wire.SUBMIT:
            core.submit(peer, envelope, header, payload, now)
        elif kind == wire.PING:
            core.ping(peer, envelope, now)
        elif kind == wire.CANCEL:
            core.cancel(peer, envelope[4:20], now)
        elif kind == wire.FETCH:
            core.fetch(peer, envelope, now)
        elif kind == wire.ADMIN:
            self._asked[peer].add(wire.NO_JOB)
            admin.answer(core, peer, envelope, header, now)
        else:
            raise ProtocolError("no client says that")

    def worker_says(self, peer: bytes, envelope: bytes, header: Any, payload: Any) -> None:
        """A message from the workers' side, as the loop hands it on."""
        core, now, kind = self.core, self.now, envelope[3]
        if kind == wire.CHUNK:
            core.chunk(peer, envelope, payload, now)
        elif kind == wire.SPOKEN:
            core.spoken(peer, envelope, (header, payload), now)
        elif kind == wire.HEARTBEAT:
            core.heartbeat(peer, header, now)
        elif kind == wire.READY:
            core.ready(peer, header, now)
        elif kind == wire.STARTED:
            core.started(peer, envelope, header, now)
        elif kind == wire.DONE:
            core.done(peer, envelope, header, now)
        elif kind == wire.FAILED:
            core.failed(peer, envelope, header, now)
        elif kind == wire.RETURN:
            core.returned(peer, envelope, now)
        elif kind == wire.DRAIN:
            core.worker_drains(peer, now)
        elif kind in (wire.DRAINED, wire.GOODBYE):
            core.worker_leaves(peer, "left", now)
        else:
            raise ProtocolError("no worker says that")

    # ---- the honest ones

    def submit(self) -> None:
        """The honest client asks for one more."""
        self._count += 1
        job = b"honest" + self._count.to_bytes(10)
        self._answers[job] = []
        self._asked_at[job] = self.now
        self._asked.setdefault(CLIENT, set()).add(job)
        header = encode(messages.Submit(ENGINE, lane="interactive", durable=self._count % 4 == 0))
        self.core.submit(CLIENT, wire.pack_envelope(wire.SUBMIT, job), header, b"some words", self.now)
        self.settle()

    def _speak(self, envelope: bytes) -> None:
        """What the honest worker does with a JOB: speak it, in three messages or one."""
        job, attempt = envelope[4:20], int.from_bytes(envelope[20:22])
        said = truth(job)
        started = encode(messages.Started("honest-worker", ENGINE, RATE_HZ, 1))
        self.core.started(WORKER, wire.pack_envelope(wire.STARTED, job, attempt), started, self.now)
        for number, pcm in enumerate(said):
            flags = wire.SEGMENT_END if number == len(said) - 1 else 0
            self.core.chunk(
                WORKER, wire.pack_envelope(wire.CHUNK, job, attempt, flags, number), pcm, self.now
            )
        done = encode(messages.Done(len(said), sum(map(len, said)) // 2))
        self.core.done(WORKER, wire.pack_envelope(wire.DONE, job, attempt), done, self.now)

    def _hear(self, envelope: bytes, last: bytes) -> None:
        job, kind = envelope[4:20], envelope[3]
        if kind == wire.PONG:
            return
        require(job in self._answers, "an answer comes once, and to a question")
        heard = self._answers[job]
        heard.append((kind, envelope, last))
        if kind == wire.FAILED:
            raise AssertionError(f"the honest job failed: {decode(last, messages.Failed)}")
        if kind == wire.DONE:
            audio = [frame for of, _, frame in heard if of == wire.CHUNK]
            require(audio == truth(job), "the honest client gets the very audio of its own job")
            require(
                [of for of, _, _ in heard][:2] == [wire.ACCEPTED, wire.STARTED], "in the protocol's order"
            )
            del self._answers[job], self._asked_at[job]
            self.ended += 1

    # ---- the world

    def wait(self, seconds: float) -> None:
        """Let time pass; the honest ones beat meanwhile."""
        until = self.now + seconds
        while True:
            self.now = max(self.now, min(until, self._beat_at + BEAT_S, self.core.next_deadline()))
            if self.now >= self._beat_at + BEAT_S:
                self._beat_at = self.now
                self.core.heartbeat(WORKER, encode(messages.Heartbeat(2)), self.now)
                self.core.ping(CLIENT, wire.pack_envelope(wire.PING), self.now)
            if self.now >= self.core.next_deadline():
                self.core.tick(self.now)
            self.settle()
            for job, at in self._asked_at.items():
                require(self.now - at <= PATIENCE_S, f"the honest job {job!r} is answered in time")
            if self.now >= until:
                return

    def settle(self) -> None:
        """Send what is to be sent, as a burst, until nobody has more to say."""
        core = self.core
        for _ in range(100):
            core.flush(self.now)
            to_workers, to_clients, entries = (
                list(core.to_workers),
                list(core.to_clients),
                list(core.to_journal),
            )
            if not (to_workers or to_clients or entries):
                break
            core.to_workers.clear()
            core.to_clients.clear()
            core.to_journal.clear()
            for message in to_clients:
                self._check_client(*message)
            for entry in entries:
                core.journalled(entry, self._shelf.take(entry), self.now)
            for message in to_workers:
                self._check_worker(*message)
        else:
            raise AssertionError("broker and honest peers never come to rest")
        core.check_invariants()

    def _check_client(self, peer: bytes, envelope: bytes, *rest: Any) -> None:
        kind = _check_message(envelope, rest, TO_CLIENTS)
        if kind in (wire.PONG, wire.ADMIN):
            require(peer in self._asked or peer == CLIENT, "only who asks is answered")
        else:
            require(
                envelope[4:20] in self._asked.get(peer, ()), "nobody hears of a job that is none of theirs"
            )
        if peer == CLIENT:
            self._hear(envelope, rest[0] if rest else b"")

    def _check_worker(self, peer: bytes, envelope: bytes, *rest: Any) -> None:
        kind = _check_message(envelope, rest, TO_WORKERS)
        if peer == WORKER:
            require(kind in (wire.WELCOME, wire.JOB, wire.HEARTBEAT), f"the honest worker is told {kind:#x}")
            if kind == wire.JOB:
                require(decode(rest[0], messages.Submit).engine == ENGINE, "a worker gets jobs of its engine")
                self._speak(envelope)


def _ready() -> messages.Ready:
    return messages.Ready("honest-worker", 1, ENGINE, ["en"], 2, 1000, RATE_HZ)


def _messages(step: Step) -> Iterator[tuple[bytes, Any, Any]]:
    """What the loop makes of a message's frames. Raises `ProtocolError`, maybe after some messages."""
    envelope, *rest = step.frames
    wire.unpack_envelope(envelope)
    kind = envelope[3]
    shape = wire.SHAPES.get(kind)
    if shape is None or len(rest) != sum(shape) or len(step.frames) > wire.MAX_FRAMES:
        raise ProtocolError("these frames have no business here")
    if kind == wire.BUNDLE:
        for message in bundles.unpack(rest[0]):
            wire.unpack_envelope(message[0])
            yield message
    else:
        yield envelope, rest[0] if shape[0] else None, rest[-1] if shape[1] else None


def _check_message(envelope: bytes, rest: tuple[Any, ...], allowed: frozenset[int]) -> int:
    kind = wire.unpack_envelope(envelope)[0]
    require(kind in allowed, f"{wire.KIND_NAMES.get(kind, kind)} goes that way")
    has_header, has_payload = wire.SHAPES[kind]
    if kind == wire.ADMIN:
        has_payload = True
    elif kind == wire.HEARTBEAT:
        has_header = False
    require(len(rest) == has_header + has_payload, "it has the frames of its kind")
    if has_header:
        decode(rest[0], HEADERS[kind])
    if has_payload:
        require(len(rest[-1]) <= wire.MAX_PAYLOAD_BYTES, "a payload is bounded")
        require(kind not in (wire.CHUNK, wire.SPOKEN) or not len(rest[-1]) & 1, "audio is whole samples")
    return kind
