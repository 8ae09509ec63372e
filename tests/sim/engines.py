"""Engine processes: they take virtual time, speak the true audio, learn voices, and may die or hang.

An engine follows `workers/engine_host.py`: one job at a time, a CANCEL is noticed between chunks and answered
with FAILED `cancelled`, GOODBYE ends it. What its text says of its fate happens to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
_STARTED: Final[dict[tuple[str, int], bytes]] = {}


class Engine:
    """The process in one slot of an agent."""

    def __init__(self, agent: Agent, slot: int) -> None:
        self.agent = agent
        self.slot = slot
        self.dead = False
        self.key = b""
        self.paused_until = 0.0
        self._world = agent.world
        self._cancelled = self._leaving = False
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
        self._send(*control.message(control.LOADED, FACTS))

    def _hear(self, frames: Frames) -> None:
        kind = frames[0][3]
        if kind == wire.GOODBYE:
            self._leaving = True
            if not self.key:
                self.kill("exit code 0")
        elif kind == wire.CANCEL:
            self._cancelled = self._cancelled or frames[0][4:22] == self.key
        elif kind == wire.JOB:
            self.key = frames[0][4:22]
            self._cancelled = False
            self._begin(frames)

    def _begin(self, frames: Frames) -> None:
        submit = decode(frames[1], Submit)
        first = int.from_bytes(frames[0][24:28])
        speech = understand(bytes(frames[2]))
        if speech.fate == "refused":
            self._fail(TextTooLong("not this"))
            return
        whole = list(enumerate(speech.pieces))
        ahead = [(index, piece) for index, piece in whole if piece.segment >= first]
        if self._strikes(speech, -1):
            return
        header = _started(self.agent.name, speech.segments)
        self._send(pack_envelope(wire.STARTED, self.key[:16], self._attempt, sequence=first), header)
        wait_s = self._pace()
        if submit.voice and submit.voice not in self._voices:
            self._send(*control.message(control.LEARNING))
            self._voices = [*self._voices[-1:], submit.voice]
            self._send(*control.message(control.REPORT, control.Report(self._voices)))
            wait_s += self._world.dice.random()
        self._after(wait_s, self._speak, self.key, speech, ahead, 0, 0)

    def _speak(
        self, key: bytes, speech: Speech, ahead: list[tuple[int, Piece]], number: int, size_bytes: int
    ) -> None:
        if self._cancelled or self._leaving:
            self._fail(Cancelled("the job was cancelled"))
        elif number == len(ahead):
            self._end(wire.DONE, encode(Done(number, size_bytes // 2, 0.1)))
        else:
            index, piece = ahead[number]
            if self._strikes(speech, index):
                return
            envelope = pack_envelope(wire.CHUNK, key[:16], self._attempt, piece.flags, number, piece.segment)
            self._send(envelope, piece.pcm)
            # The end of a segment, and that of the job, take no time of their own.
            quick = number + 1 == len(ahead) or not ahead[number + 1][1].pcm
            wait_s = 0.0 if quick else self._pace()
            self._after(wait_s, self._speak, key, speech, ahead, number + 1, size_bytes + len(piece.pcm))

    def _strikes(self, speech: Speech, index: int) -> bool:
        """Whether the text does to its engine what it must at this chunk."""
        if index != speech.at:
            return False
        if speech.fate == "poison":
            self._world.accounts.poisoned(self.agent, self.key)
            self.kill("signal 11, SIGSEGV")
        return speech.fate in ("poison", "hang")

    def _fail(self, error: BusError) -> None:
        self._end(wire.FAILED, encode(failed(error)))

    def _end(self, kind: int, header: bytes) -> None:
        job, attempt = self.key[:16], self._attempt
        self.key = b""
        self._send(pack_envelope(kind, job, attempt), header)
        if self._leaving:
            self.kill("exit code 0")

    @property
    def _attempt(self) -> int:
        return int.from_bytes(self.key[16:])

    def _pace(self) -> float:
        return self._world.plan.chunk_s * (0.5 + self._world.dice.random())


def _started(worker: str, segments: int) -> bytes:
    header = _STARTED.get((worker, segments))
    if header is None:
        header = _STARTED[worker, segments] = encode(Started(worker, ENGINE, RATE_HZ, segments))
    return header
