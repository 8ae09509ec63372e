"""Engine processes: they take virtual time, speak the true audio, learn voices, and may die or hang.

An engine follows `workers/engine_host.py` and `workers/choir.py`: up to `batch` jobs, in rounds of a segment
of each, which join and leave between rounds; a CANCEL is noticed between chunks and answered with FAILED
`cancelled`; GOODBYE ends it. What a text says of its engine's fate happens to all that are in it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from tests.sim.plan import ENGINE
from tests.sim.speech import Piece, Speech, understand
from voicebus.common import wire
from voicebus.common.errors import BusError, Cancelled, TextTooLong
from voicebus.common.messages import Done, Started, Submit, decode, encode, failed
from voicebus.common.wire import pack_envelope
from voicebus.workers import control

if TYPE_CHECKING:
    from tests.sim.agents import Agent
    from tests.sim.network import Frames

RATE_HZ: Final = 24_000
FACTS: Final = control.Loaded(ENGINE, "1", RATE_HZ, ["en"], 400, learns=True)
LINK_S: Final = 0.0002
LAST_WORDS_S: Final = 0.01
GATHER_S: Final = 0.01
"How long the first job of a round waits for company."
_STARTED: Final[dict[tuple[str, int], bytes]] = {}


@dataclass(slots=True, eq=False)
class Attempt:
    """One job in an engine."""

    key: bytes
    speech: Speech
    ahead: list[tuple[int, Piece]]
    number: int = 0
    "The next piece."
    size_bytes: int = 0

    @property
    def job(self) -> bytes:
        """Its id."""
        return self.key[:16]

    @property
    def attempt(self) -> int:
        """Which try of it this is."""
        return int.from_bytes(self.key[16:])

    @property
    def is_over(self) -> bool:
        """Whether all is said."""
        return self.number == len(self.ahead)

    @property
    def next(self) -> Piece:
        """What is said next."""
        return self.ahead[self.number][1]


class Engine:
    """The process in one slot of an agent."""

    def __init__(self, agent: Agent, slot: int) -> None:
        self.agent = agent
        self.slot = slot
        self.dead = False
        self.paused_until = 0.0
        self._world = agent.world
        self._leaving = self._singing = False
        self._waiting: deque[Frames] = deque()
        self._attempts: list[Attempt] = []
        self._cancelled: set[bytes] = set()
        self._voices: list[str] = []
        self._sent_at = 0.0
        self._after(0.02 + 0.2 * self._world.dice.random(), self._loaded)

    # ---- what the agent does to it

    def hear(self, frames: Frames) -> None:
        """Take a message of the agent, a moment later."""
        self._after(LINK_S, self._hear, frames)

    def kill(self, how: str) -> None:
        """Die. What was said before still arrives."""
        if self.dead:
            return
        self.dead = True
        if self._world.tracing:
            self._world.note(f"{self.agent.name} engine {self.slot} dies: {how}")
        at = max(self._sent_at, self._world.schedule.now + LAST_WORDS_S)
        self._world.schedule.at(at, self.agent.child_ended, self, how)

    # ---- its own life

    def _after(self, seconds: float, call: object, *arguments: object) -> None:
        self._world.schedule.after(seconds, self._step, call, *arguments)

    def _step(self, call: object, *arguments: object) -> None:
        if self.dead:
            return
        now = self._world.schedule.now
        if now < self.paused_until:
            self._world.schedule.at(self.paused_until, self._step, call, *arguments)
        elif callable(call):
            call(*arguments)

    def _send(self, *frames: bytes) -> None:
        at = self._sent_at = max(self._sent_at, self._world.schedule.now + LINK_S)
        self._world.schedule.at(at, self.agent.child_says, self, list(frames))

    def _loaded(self) -> None:
        self._send(*control.message(control.LOADED, msgspec.structs.replace(FACTS, batch=self.agent.batch)))

    def _hear(self, frames: Frames) -> None:
        kind = frames[0][3]
        if kind == wire.GOODBYE:
            self._leaving = True
            if not self._singing:
                self.kill("exit code 0")
        elif kind == wire.CANCEL:
            self._cancelled.add(frames[0][4:22])
        elif kind == wire.JOB:
            self._cancelled.discard(frames[0][4:22])
            self._waiting.append(frames)
            if not self._singing:
                self._singing = True
                # One that speaks several together waits a moment for company.
                self._after(0.0 if self.agent.batch == 1 else GATHER_S, self._gather)

    # ---- rounds

    def _gather(self) -> None:
        """Between two rounds: take in those that have come, then speak a segment of each."""
        wait_s = 0.0
        while self._waiting and len(self._attempts) < self.agent.batch:
            seconds = self._begin(self._waiting.popleft())
            if seconds is None:
                return
            wait_s += seconds
        if self._attempts:
            rows = [(attempt, attempt.next.segment) for attempt in self._attempts]
            self._after(wait_s + self._pace(), self._sing, rows)
        else:
            self._singing = False
            if self._leaving:
                self.kill("exit code 0")

    def _begin(self, frames: Frames) -> float | None:
        """Announce a job and learn its voice; returns how long that takes, None if it was the end of all."""
        submit = decode(frames[1], Submit)
        first = int.from_bytes(frames[0][24:28])
        speech = understand(bytes(frames[2]))
        ahead = [(index, piece) for index, piece in enumerate(speech.pieces) if piece.segment >= first]
        attempt = Attempt(frames[0][4:22], speech, ahead)
        if speech.fate == "refused":
            self._fail(attempt, TextTooLong("not this"))
            return 0.0
        if self._strikes(attempt, -1):
            return None
        header = _started(self.agent.name, speech.segments)
        self._send(pack_envelope(wire.STARTED, attempt.job, attempt.attempt, sequence=first), header)
        if attempt.is_over:  # all of it was heard before its last engine was lost
            self._end(attempt, wire.DONE, encode(Done(0, 0, 0.0)))
            return 0.0
        self._attempts.append(attempt)
        if not submit.voice or submit.voice in self._voices:
            return 0.0
        self._send(*control.message(control.LEARNING))
        self._voices = [*self._voices[-1:], submit.voice]
        self._send(*control.message(control.REPORT, control.Report(self._voices)))
        return self._world.dice.random()

    def _sing(self, rows: list[tuple[Attempt, int]]) -> None:
        """Say the next chunk of each row, until all have ended their segment."""
        going: list[tuple[Attempt, int]] = []
        for attempt, segment in rows:
            if self._leaving or attempt.key in self._cancelled:
                self._fail(attempt, Cancelled("the job was cancelled"))
                continue
            index, piece = attempt.ahead[attempt.number]
            if self._strikes(attempt, index):
                return
            envelope = pack_envelope(
                wire.CHUNK, attempt.job, attempt.attempt, piece.flags, attempt.number, piece.segment
            )
            self._send(envelope, piece.pcm)
            attempt.number += 1
            attempt.size_bytes += len(piece.pcm)
            if attempt.is_over:
                self._end(attempt, wire.DONE, encode(Done(attempt.number, attempt.size_bytes // 2, 0.1)))
            elif attempt.next.segment == segment:
                going.append((attempt, segment))
        if going:
            # The end of a segment takes no time of its own.
            self._after(self._pace() if any(row.next.pcm for row, _ in going) else 0.0, self._sing, going)
        else:
            self._after(0.0, self._gather)

    def _strikes(self, attempt: Attempt, index: int) -> bool:
        """Whether the text does to its engine what it must at this chunk; then nothing more is said."""
        speech = attempt.speech
        if index != speech.at:
            return False
        if speech.fate == "poison":
            self._world.accounts.poisoned(self.agent, attempt.key)
            self.kill("signal 11, SIGSEGV")
        return speech.fate in ("poison", "hang")

    def _fail(self, attempt: Attempt, error: BusError) -> None:
        self._end(attempt, wire.FAILED, encode(failed(error)))

    def _end(self, attempt: Attempt, kind: int, header: bytes) -> None:
        if attempt in self._attempts:
            self._attempts.remove(attempt)
        self._cancelled.discard(attempt.key)
        self._send(pack_envelope(kind, attempt.job, attempt.attempt), header)

    def _pace(self) -> float:
        return self._world.plan.chunk_s * (0.5 + self._world.dice.random())


def _started(worker: str, segments: int) -> bytes:
    header = _STARTED.get((worker, segments))
    if header is None:
        header = _STARTED[worker, segments] = encode(Started(worker, ENGINE, RATE_HZ, segments))
    return header
