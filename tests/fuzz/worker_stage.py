"""A worker's core between an honest broker, a stranger that speaks as a broker, and engines that may garble.

Whatever the stranger says, the tables agree after every message, what the worker sends is VB1 and goes to the
broker it concerns, and the honest broker's jobs are answered: once, with their own audio, in time.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

from tests.fuzz.broker_stage import RATE_HZ, truth
from tests.fuzz.steps import Step
from tests.fuzz.target import require
from voicebus.common import bundles, messages, wire
from voicebus.common.errors import Conflict, ProtocolError
from voicebus.common.messages import decode, encode
from voicebus.workers import control
from voicebus.workers.actions import (
    Actions,
    Beat,
    CloseLink,
    Exit,
    KillChild,
    OpenLink,
    StartChild,
    ToBroker,
    ToChild,
)
from voicebus.workers.core import WorkerCore

HONEST, STRANGER = 0, 1
PATIENCE_S: Final = 40.0
BEAT_S: Final = 1.0
AT_ONCE: Final = 1
"""Messages that engines say while one is heard from elsewhere: attempts are under way meanwhile."""
BROKERS_SAY: Final = (
    wire.WELCOME, wire.JOB, wire.JOB, wire.JOB, wire.CANCEL, wire.HEARTBEAT, wire.DRAIN, wire.GOODBYE,
    wire.REREGISTER,
    wire.FAILED,
)  # fmt: skip
ENGINES_SAY: Final = (wire.STARTED, wire.CHUNK, wire.DONE, wire.FAILED, wire.RETURN, wire.SPOKEN)
TO_BROKERS: Final[dict[int, type[messages.Header] | None]] = {
    wire.READY: messages.Ready, wire.HEARTBEAT: messages.Heartbeat, wire.STARTED: messages.Started,
    wire.CHUNK: None,
    wire.DONE: messages.Done, wire.FAILED: messages.Failed, wire.RETURN: None, wire.DRAIN: None,
    wire.DRAINED: None,
    wire.GOODBYE: None,
}  # fmt: skip
OF_JOBS: Final = frozenset((wire.STARTED, wire.CHUNK, wire.DONE, wire.RETURN))


class WorkerStage:
    """One history. `garbles`: an engine may say anything, so nothing is asked of audio."""

    def __init__(self, *, garbles: bool = False) -> None:
        self.now = 100.0
        self.core = WorkerCore(
            "w", 1, "tone", ["tcp://honest", "tcp://stranger"], slots=2, random=Random(3).random, strict=True
        )
        self._garbles = garbles
        self._given: dict[bytes, list[tuple[int, bytes, Any]]] = {}
        "What came back for each attempt that the honest broker gave out."
        self._given_at: dict[bytes, float] = {}
        self._from_stranger: set[bytes] = set()
        self._said: list[tuple[int, list[Any]]] = []
        "What engines will say next."
        self._count = 0
        self._beat_at = self.now
        self._is_registered = False
        self.answered = 0
        self.over = False
        out: Actions = []
        self.core.start(out)
        self._carry_out(out)
        self.settle()

    def play(self, step: Step) -> None:
        """Let a stranger, or an engine, say something."""
        if step.wait_ms:
            self.wait(step.wait_ms / 1000)
        out: Actions = []
        if step.side == 0:
            for frames in _messages(step.frames):
                if len(frames[0]) == wire.ENVELOPE_BYTES:
                    self._from_stranger.add(frames[0][4:20])
                self.core.broker_message(STRANGER, frames, self.now, out)
        elif self.core.crew[step.peer % 2].state.name not in ("DOWN", "GONE"):
            self.core.child_message(step.peer % 2, list(step.frames), self.now, out)
        self._carry_out(out)
        self.settle()

    def give(self) -> None:
        """The honest broker gives a job."""
        if not self._is_registered or len(self._given_at) > 1:
            return
        self._count += 1
        job = b"honest" + self._count.to_bytes(10)
        envelope = wire.pack_envelope(wire.JOB, job, 1, value=60_000)
        self._given[envelope[4:22]] = []
        self._given_at[envelope[4:22]] = self.now
        out: Actions = []
        frames: list[Any] = [envelope, encode(messages.Submit("tone")), b"words"]
        self.core.broker_message(HONEST, frames, self.now, out)
        self._carry_out(out)
        self.settle()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while True:
            self.now = max(self.now, min(until, self._beat_at + BEAT_S, self.core.next_deadline()))
            out: Actions = []
            if self.now >= self._beat_at + BEAT_S:
                self._beat_at = self.now
                self.core.broker_message(HONEST, [wire.pack_envelope(wire.HEARTBEAT)], self.now, out)
            self.core.tick(self.now, out)
            self._carry_out(out)
            self.settle(slowly=False)
            if not self._garbles and not self.over:
                for key, at in self._given_at.items():
                    require(self.now - at <= PATIENCE_S, f"the honest attempt {key!r} is answered in time")
            if self.now >= until:
                return

    def settle(self, *, slowly: bool = True) -> None:
        """Let engines say what they have to say: all of it, or a little speech at a time."""
        spoken = 0
        for _ in range(300):
            if not self._said or (slowly and spoken == AT_ONCE):
                break
            slot, frames = self._said.pop(0)
            spoken += bool(frames) and frames[0][3] < control.HELLO
            out: Actions = []
            if frames:
                self.core.child_message(slot, frames, self.now, out)
            else:
                self.core.child_died(slot, "exit 0", self.now, out)
            self._carry_out(out)
        else:
            raise AssertionError("worker and engines never come to rest")
        self.core.check_invariants()

    # ---- effects

    def _carry_out(self, out: Actions) -> None:
        for action in out:
            match action:
                case ToBroker(link, frames) | Beat(link, frames):
                    self._hear(link, frames)
                case ToChild(slot, frames):
                    self._engine(slot, frames)
                case StartChild(slot):
                    facts = control.Loaded("tone", "1", RATE_HZ, ["en"], 400, batch=2)
                    self._said.append((slot, list(control.message(control.LOADED, facts))))
                case KillChild(slot):
                    self._said = [(of, frames) for of, frames in self._said if of != slot]
                    self._said.append((slot, []))
                case OpenLink(link) | CloseLink(link):
                    if link == HONEST:
                        self._forget()
                case Exit(error):
                    require(self._garbles or isinstance(error, Conflict | None), f"the worker ends: {error}")
                    self.over = True
                case _:
                    pass
        out.clear()

    def _forget(self) -> None:
        """The honest broker's connection is gone, and with it what it had given out."""
        self._is_registered = False
        require(
            self._garbles or self.core.leaving or not self._given_at,
            "a stranger ends nobody else's connection",
        )
        self._given.clear()
        self._given_at.clear()

    def _engine(self, slot: int, frames: list[Any]) -> None:
        kind, key = frames[0][3], frames[0][4:22]
        job, attempt = key[:16], int.from_bytes(key[16:])
        if kind == wire.JOB:
            said = truth(job)
            self._said.append((slot, [wire.pack_envelope(wire.STARTED, job, attempt), encode(_STARTED)]))
            for number, pcm in enumerate(said):
                flags = wire.SEGMENT_END if number == len(said) - 1 else 0
                self._said.append((slot, [wire.pack_envelope(wire.CHUNK, job, attempt, flags, number), pcm]))
            done = encode(messages.Done(len(said), sum(map(len, said)) // 2))
            self._said.append((slot, [wire.pack_envelope(wire.DONE, job, attempt), done]))
        elif kind == wire.GOODBYE:
            self._said.append((slot, []))
        # A CANCEL comes too late: all has been said.

    def _hear(self, link: int, frames: list[Any]) -> None:
        kind, job, *_ = wire.unpack_envelope(frames[0])
        require(kind in TO_BROKERS, f"a worker says no {kind:#x}")
        if not self._garbles:
            header = TO_BROKERS[kind]
            require(
                len(frames) == 1 + (header is not None or kind == wire.CHUNK), "it has the frames of its kind"
            )
            if header is not None:
                decode(frames[1], header)
        if kind in OF_JOBS and not self._garbles:
            theirs = job in self._from_stranger
            require(theirs == (link == STRANGER), "a broker hears of its own jobs only")
        if link == HONEST:
            self._honest(kind, frames)

    def _honest(self, kind: int, frames: list[Any]) -> None:
        if kind == wire.READY:
            self._is_registered = True
            header = encode(messages.Welcome("honest", 1000, 3))
            out: Actions = []
            self.core.broker_message(HONEST, [wire.pack_envelope(wire.WELCOME), header], self.now, out)
            self._carry_out(out)
            return
        heard = self._given.get(frames[0][4:22])
        if heard is None or self._garbles:
            return
        heard.append((kind, frames[0], frames[-1]))
        require(
            kind not in (wire.FAILED, wire.RETURN) or self.core.leaving,
            f"the honest job is not given up: {frames}",
        )
        if kind in (wire.DONE, wire.FAILED, wire.RETURN):
            key = frames[0][4:22]
            if kind == wire.DONE:
                audio = [frame for of, _, frame in heard if of == wire.CHUNK]
                require(audio == truth(key[:16]), "a job's audio is its own")
                self.answered += 1
            del self._given[key], self._given_at[key]


_STARTED: Final = messages.Started("w", "tone", RATE_HZ, 1)


def _messages(frames: list[bytes]) -> list[list[Any]]:
    """A broker's message, or those of its bundle, as `BrokerSocket.receive` gives them."""
    envelope = frames[0]
    if len(frames) != 2 or len(envelope) != wire.ENVELOPE_BYTES or envelope[3] != wire.BUNDLE:
        return [list(frames[: wire.MAX_FRAMES + 1])]
    found: list[list[Any]] = []
    try:
        for message in bundles.unpack(frames[1]):
            found.append([frame for frame in message if frame is not None])
    except ProtocolError:
        found.append(list(frames))
    return found
