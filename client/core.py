"""What the client does about messages and time, without a socket, a clock or a thread.

The core owns the table of tasks. `submit`, `cancel` and `listen` come from the faces, `receive`,
`disconnected` and `tick` from the link; `now` is always an argument. It answers by filling two kinds of
lists the link empties after every burst: each line's `out`, the frames to send, and `touched`, the tasks
whose sinks want to know. Three rules hold throughout:

* Each task ends exactly once, with an answer of the bus or a `BusError` of ours.
* The same words are never heard twice: a job is sent again, under the same id, only while nobody has
  listened to any of it. The broker knows the id and gives one answer to all its submissions.
* Nobody waits for ever: with no broker UP for `connect_timeout_s` every task fails as `broker_unreachable`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from ..common import wire
from ..common.errors import BusError, ClientLost, ProtocolError, WorkerLost
from ..common.messages import Accepted, AdminReply, Done, Failed, Started, decode
from . import endings
from .brokers import Line, LineState, ranked
from .task import Phase, Task

SWEEP_S: Final = 0.5
"""Deadlines and missing answers are looked for this often; the broker's own clock is the exact one."""
GRACE_S: Final = 1.0
"""How long past a deadline the broker's own answer is waited for."""
ACCEPT_S: Final = 2.0
"""A SUBMIT without an answer is sent again after this, doubling each time."""
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MOST_S: Final = 10.0
PATIENCE_S: Final = 60.0
"""How long a job without a deadline is offered to a bus that has no room."""
MOST_SILENT_TRIES: Final = 5
MOST_TORN: Final = 3
BUSY_CODES: Final = frozenset({"overloaded", "rate_limited"})

_PARKED, _BACKOFF, _SENT, _ACCEPTED, _SPEAKING, _ENDED = Phase
_UP = LineState.UP


class ClientCore:
    """The client's side of VB1 for any number of jobs and brokers.

    `random` returns floats in [0, 1); `new_id` makes a fresh job id of 16 bytes.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        random: Callable[[], float],
        new_id: Callable[[], bytes],
        interval_s: float = 1.0,
        connect_timeout_s: float = 5.0,
    ) -> None:
        self.lines = [Line(number, address, interval_s) for number, address in enumerate(addresses)]
        self.tasks: dict[bytes, Task] = {}
        self.touched: list[Task] = []
        self.strays = 0
        "Messages for jobs that are not, or no longer, ours. Usual after a cancel or a change of broker."
        self.errors = 0
        "Messages that do not follow VB1."
        self._random = random
        self._new_id = new_id
        self._connect_timeout_s = connect_timeout_s
        self._backoffs: list[tuple[float, int, Task]] = []
        self._order = 0
        self._sweep_at = inf
        self._now = 0.0
        self._dark_since: float | None = None

    # -- from the faces -----------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """Dial all brokers. Called once, before anything else."""
        self._dark_since = now
        for line in self.lines:
            line.open(now)

    def submit(self, task: Task, now: float) -> None:
        """Take a task on. Its job id must be new."""
        if not self.tasks:
            self._sweep_at = now + SWEEP_S
            for line in self.lines:
                if line.state is _UP:
                    line.wake(now)
        self.tasks[task.job] = task
        self._now = task.submitted_at = now
        if task.listening:
            task.heard = deque()
        line = self._assign(task)
        if line.state is _UP:
            self._send(task, line, now)

    def cancel(self, task: Task) -> None:
        """End a task now, and tell its broker. Does nothing for one that has ended or never began."""
        if self.tasks.get(task.job) is not task:
            return
        if task.phase > _BACKOFF and task.kind == wire.SUBMIT:
            line = self.lines[task.line]
            line.out.append((wire.pack_envelope(wire.CANCEL, task.job),))
            line.sent = True
        self._end(task, endings.cancelled())

    def listen(self, task: Task) -> None:
        """From now on somebody hears this task's audio as it comes; what is held goes first."""
        if task.listening or self.tasks.get(task.job) is not task:
            return
        task.listening = True
        task.heard = deque(task.chunks)
        task.surfaced = bool(task.chunks)
        task.chunks = []
        task.marks = [(segment, 0) for segment, _ in task.marks]
        if task.surfaced:
            self.touched.append(task)

    def close(self, error: BusError | None = None) -> None:
        """End every task, with `error` or as cancelled. CANCELs are in the lines' `out`."""
        for task in list(self.tasks.values()):
            if error is None:
                self.cancel(task)
            else:
                self._end(task, error)

    # -- from the link ------------------------------------------------------------------------------

    def receive(
        self, line: Line, envelope: bytes, header: bytes | None, payload: bytes | None, now: float
    ) -> None:
        """Take one message; its frames are those `wire.SHAPES` promises, or None. Never raises."""
        line.heard = True
        self._now = now
        if line.state is not _UP:
            if line.state is LineState.CLOSED:
                return
            self._line_up(line, now)
        try:
            kind, job, attempt, flags, sequence, value = wire.unpack_envelope(envelope)
            task = self.tasks.get(job)
            if task is None or task.line != line.number or task.phase < _SENT:
                if kind != wire.PONG:
                    self.strays += 1
            elif kind == wire.CHUNK:
                if payload is not None and not len(payload) & 1:
                    self._on_chunk(task, attempt, flags, sequence, value, payload)
                else:
                    self.errors += 1
            elif header is None:
                self.errors += 1
            elif kind == wire.DONE:
                self._on_done(task, attempt, decode(header, Done))
            elif kind == wire.STARTED:
                self._on_started(task, attempt, sequence, decode(header, Started))
            elif kind == wire.ACCEPTED:
                decode(header, Accepted)
                if task.phase is _SENT:
                    task.phase = _ACCEPTED
                    task.accept_by = inf
            elif kind == wire.FAILED:
                self._on_failed(task, decode(header, Failed), now)
            elif kind == wire.ADMIN and task.kind == wire.ADMIN:
                self._on_reply(task, decode(header, AdminReply), payload)
            else:
                self.errors += 1
        except ProtocolError:
            self.errors += 1

    def disconnected(self, line: Line, now: float) -> None:
        """The connection broke: answers may be lost, so the line starts afresh."""
        if line.state is _UP:
            self._line_lost(line, now)

    def next_deadline(self) -> float:
        """When `tick` has something to do next; `inf` when nothing is waited for."""
        if not self.tasks:
            return inf
        at = self._sweep_at
        for line in self.lines:
            at = min(at, line.beat_at, line.redial_at)
        return min(at, self._backoffs[0][0]) if self._backoffs else at

    def tick(self, now: float) -> None:
        """Do what is due: beats, redials, second tries, missing answers, deadlines."""
        self._now = now
        if not self.tasks:
            return
        for line in self.lines:
            if now >= line.redial_at:
                line.open(now)
            elif now >= line.beat_at and not line.beat(now):
                self._line_lost(line, now)
        while self._backoffs and self._backoffs[0][0] <= now:
            task = heapq.heappop(self._backoffs)[2]
            if task.phase is _BACKOFF:
                task.phase = _PARKED
                line = self._assign(task)
                if line.state is _UP:
                    self._send(task, line, now)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._sweep(now)

    # -- messages -----------------------------------------------------------------------------------

    def _on_chunk(self, task: Task, attempt: int, flags: int, number: int, segment: int, pcm: bytes) -> None:
        if attempt != task.attempt or number < task.next_chunk or task.phase is not _SPEAKING:
            self.strays += 1
            return
        if number > task.next_chunk or segment < task.segment:
            self._broken(task)
            return
        task.next_chunk = number + 1
        if segment != task.segment:
            task.segment = segment
            task.marks.append((segment, len(task.chunks)))
        if flags & wire.SEGMENT_END:
            task.whole = segment
        if not task.first_audio_at:
            task.first_audio_at = self._now
        if task.heard is None:
            task.chunks.append(pcm)
        else:
            task.surfaced = True
            task.heard.append(pcm)
            self.touched.append(task)

    def _on_started(self, task: Task, attempt: int, first_segment: int, started: Started) -> None:
        if attempt < task.attempt:
            self.strays += 1
            return
        if task.surfaced and first_segment <= task.segment:
            self._end(task, endings.spoken_again())
            return
        # What earlier attempts gave before `first_segment` stays; the rest is spoken again.
        marks = task.marks
        while marks and marks[-1][0] >= first_segment:
            if task.heard is None:
                del task.chunks[marks[-1][1] :]
            marks.pop()
        task.segment = marks[-1][0] if marks else -1
        task.whole = min(task.whole, task.segment)
        if task.whole < first_segment - 1:
            # The bus takes what came before for delivered, but it was lost with a connection.
            self._broken(task)
            return
        task.attempt = attempt
        task.next_chunk = 0
        task.started = started
        task.phase = _SPEAKING
        task.accept_by = inf

    def _on_done(self, task: Task, attempt: int, done: Done) -> None:
        if attempt < task.attempt:
            self.strays += 1
        elif attempt > task.attempt or done.chunks != task.next_chunk:
            self._broken(task)
        else:
            task.done = done
            task.attempts = attempt
            self._end(task, None)

    def _on_failed(self, task: Task, failed: Failed, now: float) -> None:
        task.history = failed.history
        task.attempts = max(task.attempt, len(failed.history))
        if failed.code in BUSY_CODES and task.phase is _SENT:
            wait_s = max(failed.retry_after_s or 0.0, self._pause_s(task))
            if now + wait_s < min(task.deadline, task.submitted_at + PATIENCE_S):
                self._back_off(task, now + wait_s)
                return
        elif failed.code == ClientLost.code and not task.surfaced:
            # We were stopped, or cut off, for longer than the broker waits; nobody has heard any of it.
            self._back_off(task, now + self._pause_s(task))
            return
        elif failed.code == WorkerLost.code and not task.surfaced and task.flags & wire.STREAM:
            # The broker may not repeat what it forwarded, but nobody has listened yet: ask anew.
            task.torn += 1
            if task.torn < MOST_TORN:
                del self.tasks[task.job]
                task.job = self._new_id()
                self.tasks[task.job] = task
                self._back_off(task, now + self._pause_s(task))
                return
        self._end(task, failed.error())

    def _on_reply(self, task: Task, reply: AdminReply, payload: bytes | None) -> None:
        task.reply = reply
        task.chunks = [payload or b""]
        self._end(task, None)

    def _broken(self, task: Task) -> None:
        """Audio is missing in between: hear the job again if nobody has listened, else fail."""
        task.torn += 1
        if task.surfaced or task.torn >= MOST_TORN:
            self._end(task, endings.torn(task))
        else:
            self._back_off(task, self._now + self._pause_s(task))

    # -- brokers ------------------------------------------------------------------------------------

    def _assign(self, task: Task) -> Line:
        """Give a task to the best broker for it, among those in the best state."""
        line = (
            max(ranked(self.lines, task.job), key=lambda line: line.state)
            if len(self.lines) > 1
            else self.lines[0]
        )
        task.line = line.number
        return line

    def _line_up(self, line: Line, now: float) -> None:
        line.up(now)
        self._dark_since = None
        for task in list(self.tasks.values()):
            if task.phase is _PARKED:
                self._send(task, self._assign(task), now)

    def _line_lost(self, line: Line, now: float) -> None:
        line.close(now, self._random)
        if self._dark_since is None and not any(other.state is _UP for other in self.lines):
            self._dark_since = now
        for task in list(self.tasks.values()):
            if task.line != line.number or task.phase is _BACKOFF:
                continue
            if task.surfaced:
                self._end(task, endings.left(line))
                continue
            self._forget(task)
            task.phase = _PARKED
            other = self._assign(task)
            if other.state is _UP:
                self._send(task, other, now)

    # -- tasks --------------------------------------------------------------------------------------

    def _send(self, task: Task, line: Line, now: float) -> None:
        """Send the SUBMIT, once more or for the first time."""
        if task.kind == wire.ADMIN:
            line.out.append((wire.pack_envelope(wire.ADMIN, task.job), task.header))
        else:
            left_ms = 0
            if task.deadline < inf:
                left_ms = int((task.deadline - now) * 1000)
                if left_ms <= 0:
                    self._end(task, endings.late(task, line))
                    return
                left_ms = min(left_ms, wire.MAX_BUDGET_MS)
            flags = task.flags | wire.ANEW if task.torn else task.flags
            envelope = wire.pack_envelope(wire.SUBMIT, task.job, 0, flags, 0, left_ms)
            line.out.append((envelope, task.header, task.payload or b""))
        line.sent = True
        task.phase = _SENT
        task.accept_by = now + ACCEPT_S * 2**task.failures

    def _forget(self, task: Task) -> None:
        """Drop what an answer brought that is not waited for any more; nobody has heard it."""
        task.attempt = task.next_chunk = 0
        task.segment = task.whole = -1
        task.first_audio_at = 0.0
        task.marks.clear()
        task.chunks.clear()

    def _back_off(self, task: Task, until: float) -> None:
        self._forget(task)
        task.phase = _BACKOFF
        task.failures += 1
        self._order += 1
        heapq.heappush(self._backoffs, (until, self._order, task))

    def _pause_s(self, task: Task) -> float:
        return self._random() * min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(task.failures, 16))

    def _sweep(self, now: float) -> None:
        dark_since = self._dark_since
        for task in list(self.tasks.values()):
            if dark_since is not None and now - max(dark_since, task.submitted_at) >= self._connect_timeout_s:
                self._end(task, endings.nobody(self.lines))
            elif now >= task.deadline + GRACE_S:
                self._expire(task)
            elif task.phase is _SENT and now >= task.accept_by:
                task.failures += 1
                if task.failures > MOST_SILENT_TRIES:
                    self._end(task, endings.silent(self.lines[task.line]))
                else:
                    self._send(task, self.lines[task.line], now)

    def _expire(self, task: Task) -> None:
        """End a task whose deadline passed without the broker's word."""
        if task.phase > _BACKOFF:
            self.lines[task.line].out.append((wire.pack_envelope(wire.CANCEL, task.job),))
        self._end(task, endings.late(task, self.lines[task.line]))

    def _end(self, task: Task, error: BusError | None) -> None:
        del self.tasks[task.job]
        task.error = error
        task.ended_at = self._now
        task.phase = _ENDED
        self.touched.append(task)

    def check_invariants(self) -> None:
        """Raise `AssertionError` if the tables contradict each other. For tests."""
        from .invariants import check

        check(
            self.tasks, self.lines, [task for _, _, task in self._backoffs], dark=self._dark_since is not None
        )
