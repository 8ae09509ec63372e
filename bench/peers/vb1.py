"""VB1 spoken by thin Python ends: an echo worker and a client with a window, nothing around them.

The other systems are measured with ends of a few dozen lines; these are the same for voicebus, so that the
rows compare what stands between the ends. Both read what has come, then answer in one burst: bundled, or with
`bundled` false message by message. They keep every rule of docs/protocol.md that such an end meets: credit,
attempts, numbered chunks, heartbeats, pings, drain.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Final

from voicebus.common import bundles, wire
from voicebus.common.messages import (
    Done,
    Failed,
    Heartbeat,
    Ready,
    Spoken,
    Started,
    Submit,
    Welcome,
    decode,
    encode,
)

from .dealer import Dealer
from .load import ANSWER_S
from .plan import TEXT_BYTES, answer_of

ENGINE: Final = "echo"
INTERVAL_S: Final = 1.0
LIVENESS: Final = 3
"""Silent intervals that mean death, until the broker's WELCOME says how many."""
MAX_CHARS: Final = 1000
SLOTS: Final = 64
"""With the one job above its slots that a worker may hold, a window of 64 never waits for credit."""
RATE_HZ: Final = 24_000
SAMPLE_BYTES: Final = 2

Message = tuple[bytes, bytes | None, bytes | None]
"""Envelope, header, payload."""


@cache
def _done(audio_bytes: int) -> bytes:
    """DONE's header. There are few sizes, so it is packed once for each."""
    return encode(Done(1, audio_bytes // SAMPLE_BYTES))


@cache
def _spoken(name: str, audio_bytes: int) -> bytes:
    """SPOKEN's header, likewise."""
    return encode(Spoken(name, ENGINE, RATE_HZ, 1, audio_bytes // SAMPLE_BYTES))


_SHAPES: Final = {**wire.SHAPES, wire.HEARTBEAT: (False, False)}
"""Which of header and payload a message from a broker has. Its beats have neither, where a worker's do."""


class Peer:
    """A DEALER that speaks VB1 with a broker."""

    def __init__(self, address: str, bundled: bool) -> None:
        self._dealer = Dealer(address, lambda envelope: sum(_SHAPES[envelope[3]]), INTERVAL_S)
        self._bundled = bundled
        self.sent_at = time.monotonic()

    def messages(self) -> Iterator[Message]:
        """What has come, at least one message; nothing if there is silence for an interval."""
        for frames in self._dealer.burst():
            envelope = frames[0]
            if envelope[3] == wire.BUNDLE:
                yield from bundles.unpack(frames[1])
            else:
                has_header, has_payload = _SHAPES[envelope[3]]
                yield envelope, frames[1] if has_header else None, frames[-1] if has_payload else None

    def send(self, messages: Iterable[Sequence[bytes]]) -> None:
        """Send a burst, in order."""
        self.sent_at = time.monotonic()
        # A bundle of one also tells the broker that bundles are read here.
        for message in bundles.packed(messages, always=True) if self._bundled else messages:
            self._dealer.send(*message)

    def close(self) -> None:
        """Close the connection."""
        self._dealer.close()


class EchoWorker:
    """Answers every job with its text, as often as that asks for, as one chunk of sound."""

    def __init__(self, backend: str, bundled: bool, name: str = "thin") -> None:
        self._peer = Peer(backend, bundled)
        self._bundled = bundled
        self._name = name
        interval_ms = int(INTERVAL_S * 1000)
        ready = Ready(name, time.time_ns(), ENGINE, ["en"], SLOTS, interval_ms, RATE_HZ, max_chars=MAX_CHARS)
        self._ready = (
            wire.pack_envelope(wire.READY),
            encode(ready),
        )
        self._started = encode(Started(name, ENGINE, RATE_HZ, 1))
        self._interval_s, self._liveness = INTERVAL_S, LIVENESS
        self._heard_at = time.monotonic()

    def serve(self) -> None:
        """Work until the broker says that it goes, or that the worker should.

        Raises `TimeoutError` if it is silent, `RuntimeError` if it finds a message malformed.
        """
        try:
            self._peer.send([self._ready])
            while self._pass():
                pass
        finally:
            self._peer.close()

    def _pass(self) -> bool:
        """Take a burst and answer it in one; false: that was all."""
        out: list[tuple[bytes, ...]] = []
        staying = True
        for message in self._peer.messages():
            staying = self._handle(message, out) and staying
            self._heard_at = time.monotonic()
        now = time.monotonic()
        if now - self._heard_at > self._interval_s * self._liveness:
            raise TimeoutError("the broker is silent")
        if not out and now - self._peer.sent_at >= self._interval_s:
            out.append((wire.pack_envelope(wire.HEARTBEAT), encode(Heartbeat(free_slots=SLOTS))))
        if out:
            self._peer.send(out)
        return staying

    def _handle(self, message: Message, out: list[tuple[bytes, ...]]) -> bool:
        """Put the answer to a message on `out`; false: it was the last one."""
        envelope, header, text = message
        kind = envelope[3]
        if kind == wire.JOB:
            self._echo(envelope, text or b"", out)
        elif kind == wire.WELCOME:
            welcome = decode(header or b"", Welcome)
            self._interval_s, self._liveness = welcome.interval_ms / 1000, welcome.liveness
        elif kind == wire.REREGISTER:
            out.append(self._ready)
        elif kind == wire.FAILED:
            raise RuntimeError(f"the broker did not take it: {decode(header or b'', Failed).error()}")
        elif kind == wire.DRAIN:
            out.append((wire.pack_envelope(wire.DRAINED),))
            return False
        # A CANCEL comes for an attempt that has ended: none is ever left open between two bursts.
        return kind != wire.GOODBYE

    def _echo(self, envelope: bytes, text: bytes, out: list[tuple[bytes, ...]]) -> None:
        _, job, attempt, _, segment, _ = wire.unpack_envelope(envelope)
        audio = answer_of(text)
        pack = wire.pack_envelope
        if self._bundled:
            head = pack(wire.SPOKEN, job, attempt, wire.SEGMENT_END, 0, segment)
            out.append((head, _spoken(self._name, len(audio)), audio))
            return
        out.append((pack(wire.STARTED, job, attempt, 0, segment), self._started))
        out.append((pack(wire.CHUNK, job, attempt, wire.SEGMENT_END, 0, segment), audio))
        out.append((pack(wire.DONE, job, attempt), _done(len(audio))))


class BareClient:
    """Sends bursts of SUBMITs and collects the chunks of each job until its DONE."""

    def __init__(self, frontend: str, bundled: bool) -> None:
        self._peer = Peer(frontend, bundled)
        self._prefix = os.urandom(8)
        self._header = encode(Submit(ENGINE, characters=TEXT_BYTES))
        self._audio: dict[bytes, tuple[int, list[bytes]]] = {}
        "Attempt and chunks of the jobs that were begun."

    def ask(self, texts: Sequence[tuple[int, bytes]]) -> None:
        """Submit a burst."""
        prefix, header, pack = self._prefix, self._header, wire.pack_envelope
        self._peer.send(
            [(pack(wire.SUBMIT, prefix + number.to_bytes(8, "big")), header, text) for number, text in texts]
        )

    def answers(self) -> list[tuple[int, bytes]]:
        """The jobs that have ended. Raises `TimeoutError`; `RuntimeError` for one that failed."""
        found: list[tuple[int, bytes]] = []
        give_up_at = time.monotonic() + ANSWER_S
        while not found:
            heard = False
            for message in self._peer.messages():
                heard = True
                self._handle(message, found)
            if time.monotonic() > give_up_at:
                raise TimeoutError("the broker did not answer")
            if not heard:
                self._peer.send([(wire.pack_envelope(wire.PING),)])
        return found

    def close(self) -> None:
        """Close the connection."""
        self._peer.close()

    def _handle(self, message: Message, found: list[tuple[int, bytes]]) -> None:
        envelope, header, payload = message
        kind, job, attempt, _, sequence, _ = wire.unpack_envelope(envelope)
        if kind == wire.STARTED:
            # The worker makes one segment of every text, so an attempt that begins anew begins at the front.
            self._audio[job] = attempt, []
        elif kind == wire.CHUNK:
            current, chunks = self._audio[job]
            if attempt == current and sequence == len(chunks):
                chunks.append(payload or b"")
        elif kind == wire.SPOKEN:
            found.append((int.from_bytes(job[8:], "big"), payload or b""))
        elif kind == wire.DONE:
            _, chunks = self._audio.pop(job)
            announced = decode(header or b"", Done).chunks
            if announced != len(chunks):
                raise RuntimeError(f"{len(chunks)} chunks came of {announced}")
            found.append((int.from_bytes(job[8:], "big"), b"".join(chunks)))
        elif kind == wire.FAILED:
            raise RuntimeError(str(decode(header or b"", Failed).error()))
