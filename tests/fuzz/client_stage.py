"""A client's core between a stranger that speaks as a broker and an honest broker.

Whatever the stranger says, the tables agree, nothing raises, every task ends once and in time, what a
listener has heard is never taken back, and what the honest broker has answered is that answer's audio.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

from tests.fuzz.broker_stage import RATE_HZ, truth
from tests.fuzz.samples import JOBS
from tests.fuzz.steps import Step
from tests.fuzz.target import check_error, require
from voicebus.client.core import ClientCore
from voicebus.client.task import Task
from voicebus.common import bundles, messages, wire
from voicebus.common.errors import ProtocolError
from voicebus.common.messages import decode, encode

STRANGER, HONEST = 0, 1
PATIENCE_S: Final = 60.0
DEADLINE_S: Final = 20.0
BROKERS_SAY: Final = (
    wire.ACCEPTED, wire.STARTED, wire.CHUNK, wire.DONE, wire.FAILED, wire.PONG, wire.ADMIN, wire.SPOKEN,
    wire.CHUNK,
)  # fmt: skip
TO_BROKERS: Final = frozenset((wire.SUBMIT, wire.PING, wire.CANCEL, wire.FETCH, wire.ADMIN))


class ClientStage:
    """One history."""

    def __init__(self) -> None:
        self.now = 100.0
        self._ids = 0
        self.core = ClientCore(
            ["tcp://stranger", "tcp://honest"], random=Random(5).random, new_id=self._new_id, interval_s=1.0
        )
        self.tasks: list[Task] = []
        self._heard: dict[int, list[bytes]] = {}
        self._ends: dict[int, int] = {}
        self._answers: list[tuple[bytes, bytes | None, bytes | None]] = []
        self.well = 0
        self.core.open(self.now)
        self.settle(slowly=False)
        self._receive([wire.pack_envelope(wire.PONG)])

    def _new_id(self) -> bytes:
        self._ids += 1
        return b"task" + self._ids.to_bytes(12)

    def ask(self) -> None:
        """One more job: heard as it comes, taken as a whole, durable or fetched in turn."""
        number = len(self.tasks)
        kind = wire.FETCH if number % 5 == 4 else wire.SUBMIT
        header = b"" if kind == wire.FETCH else encode(messages.Submit("tone", durable=number % 5 == 3))
        task = Task(
            self._new_id(), header, None if kind == wire.FETCH else b"words", deadline=self.now + DEADLINE_S,
            flags=wire.STREAM if number % 3 == 0 else 0, listening=number % 3 == 0, kind=kind,
            durable=number % 5 == 3, seeks=kind == wire.FETCH,
        )  # fmt: skip
        self.tasks.append(task)
        self._heard[id(task)] = []
        self.core.submit(task, self.now)
        self.settle()

    def play(self, step: Step) -> None:
        """Let the stranger say something, as the link hands it on."""
        if step.wait_ms:
            self.wait(step.wait_ms / 1000)
        line = self.core.lines[STRANGER]
        if step.side == 1:
            self.core.disconnected(line, self.now)
        else:
            self._receive([self._aimed(frame) for frame in step.frames])
        self.settle()

    def _aimed(self, frame: bytes) -> bytes:
        """The same frame with the samples' job ids replaced by those of tasks that are open."""
        for number, job in enumerate(JOBS):
            if job in frame and self.core.tasks:
                frame = frame.replace(job, list(self.core.tasks)[number % len(self.core.tasks)])
        return frame

    def _receive(self, frames: list[bytes]) -> None:
        line, envelope = self.core.lines[STRANGER], frames[0]
        kind = envelope[3] if len(envelope) == wire.ENVELOPE_BYTES else 0
        has_header, has_payload = wire.SHAPES.get(kind, (False, False))
        if len(frames) != 1 + has_header + (has_payload or kind == wire.ADMIN):
            self.core.errors += 1
            return
        if kind == wire.BUNDLE:
            try:
                for message in bundles.unpack(frames[1]):
                    self.core.receive(line, *message, self.now)
            except ProtocolError:
                self.core.errors += 1
            return
        header = frames[1] if has_header else None
        payload = frames[-1] if len(frames) > 1 + has_header else None
        self.core.receive(line, envelope, header, payload, self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        for _ in range(2000):
            self.now = max(self.now, min(until, self.core.next_deadline()))
            self.core.tick(self.now)
            self.settle(slowly=False)
            if self.now >= until:
                return
        raise AssertionError("the client's clock never comes to rest")

    def settle(self, *, slowly: bool = True) -> None:
        """Send, answer, take what is heard, until all is quiet, or the honest one has answered a little."""
        for _ in range(200):
            busy = False
            for line in self.core.lines:
                line.hang_up = line.dial = False
                out, line.out = line.out, []
                for frames in out:
                    busy = True
                    self._check_sent(frames)
                    if line.number == HONEST:
                        self._answer(frames)
            for _ in range(1 if slowly else len(self._answers)):
                if not self._answers:
                    break
                answer = self._answers.pop(0)
                busy = not slowly
                self.core.receive(self.core.lines[HONEST], *answer, self.now)
            self._take()
            if not busy:
                break
        else:
            raise AssertionError("client and broker never come to rest")
        self.core.check_invariants()

    def _take(self) -> None:
        for task in self.tasks:
            if task.heard:
                heard = self._heard[id(task)]
                heard.extend(task.heard)
                task.heard.clear()
        touched = {id(task): task for task in self.core.touched}
        self.core.touched.clear()
        for task in touched.values():
            if task.ended and id(task) not in self._ends:
                self._ends[id(task)] = 1
                self._ended(task)

    def _ended(self, task: Task) -> None:
        if task.error is not None:
            check_error(task.error)
            return
        require(task.kind == wire.ADMIN or task.done is not None, "what ended well was DONE")
        if task.line == HONEST and task.kind != wire.ADMIN:
            audio = self._heard.get(id(task)) or task.chunks
            require(audio == truth(task.job), "what the honest broker has answered is its answer")
            self.well += 1

    def _check_sent(self, frames: Any) -> None:
        kind = wire.unpack_envelope(frames[0])[0]
        require(kind in TO_BROKERS, f"a client says no {kind:#x}")
        require(len(frames) == 1 + sum(wire.SHAPES[kind]), "it has the frames of its kind")

    def _answer(self, frames: Any) -> None:
        kind, job = frames[0][3], frames[0][4:20]
        if kind == wire.PING:
            self._answers.append((wire.pack_envelope(wire.PONG), None, None))
        elif kind == wire.FETCH:
            failed = encode(messages.Failed("unknown_job", "no such job"))
            self._answers.append((wire.pack_envelope(wire.FAILED, job), failed, None))
        elif kind == wire.SUBMIT:
            decode(frames[1], messages.Submit)
            said = truth(job)
            self._answers += [
                (wire.pack_envelope(wire.ACCEPTED, job), encode(messages.Accepted("tone")), None),
                (
                    wire.pack_envelope(wire.STARTED, job, 1),
                    encode(messages.Started("w", "tone", RATE_HZ)),
                    None,
                ),
            ]
            for number, pcm in enumerate(said):
                flags = wire.SEGMENT_END if number == len(said) - 1 else 0
                self._answers.append((wire.pack_envelope(wire.CHUNK, job, 1, flags, number), None, pcm))
            done = encode(messages.Done(len(said), sum(map(len, said)) // 2))
            self._answers.append((wire.pack_envelope(wire.DONE, job, 1), done, None))

    def finish(self) -> None:
        """All tasks have ended once their time is over."""
        self.wait(PATIENCE_S)
        for task in self.tasks:
            require(task.ended and self._ends.get(id(task)) == 1, f"{task!r} has ended, once")
        require(not self.core.tasks, "nothing is left")
