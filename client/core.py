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

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from ..common import wire
from ..common.errors import BusError, ClientLost, ProtocolError, UnknownJob, WorkerLost
from ..common.messages import Accepted, Admin, AdminReply, Done, Failed, Spoken, Started, decode, encode
from ..common.spoken import done_of, started_of
from . import endings
from .brokers import Line, LineState
from .dispatch import BACKOFF_FIRST_S, MOST_TORN, WATCH_S, Dispatch
from .task import Phase, Task

SWEEP_S: Final = 0.5
"""Deadlines and missing answers are looked for this often; the broker's own clock is the exact one."""
GRACE_S: Final = 1.0
"""How long past a deadline the broker's own answer is waited for."""
PATIENCE_S: Final = 60.0
"""How long a job without a deadline is offered to a bus that has no room."""
STOPPED_S: Final = 1.0
"""A sweep that is so late was held up with the whole process: the broker may have cut us off as well."""
CANCEL_S: Final = 10.0
BUSY_CODES: Final = frozenset({"overloaded", "rate_limited"})

_PARKED, _BACKOFF, _SENT, _ACCEPTED, _SPEAKING, _ENDED = Phase
_UP = LineState.UP
_PATIENT: Final = wire.PATIENT


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
        self.urgent = 0
        "Tasks whose lane is not batch."
        self.touched: list[Task] = []
        self.strays = 0
        "Messages for jobs that are not, or no longer, ours. Usual after a cancel or a change of broker."
        self.errors = 0
        "Messages that do not follow VB1."
        self._random = random
        self._new_id = new_id
        self._connect_timeout_s = connect_timeout_s
        self._dispatch = Dispatch(self.lines, self.tasks, random, connect_timeout_s, self._end)
        self.fetching = self._dispatch.fetching
        self._sweep_at = inf
        self._now = 0.0

    # -- from the faces -----------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """Dial all brokers. Called once, before anything else."""
        self._dispatch.dark_since = now
        for line in self.lines:
            line.open(now)

    def submit(self, task: Task, now: float) -> None:
        """Take a task on. Of two about one job the second gets what the first gets."""
        if not self.tasks:
            self._sweep_at = now + SWEEP_S
            for line in self.lines:
                if line.state is _UP:
                    line.wake(now)
        self._now = task.submitted_at = now
        known = self.tasks.get(task.job)
        if known is not None:
            self._follow(known, task)
            return
        self.tasks[task.job] = task
        self.urgent += not task.flags & _PATIENT
        if task.listening:
            task.heard = deque()
        self._dispatch.go(task, now)

    def cancel(self, task: Task) -> None:
        """End a task now, and its job. Does nothing for one that has ended or never began.

        A job that outlives us is cancelled wherever it is, by its name; of any other its broker is told.
        """
        known = self.tasks.get(task.job)
        if known is None or (known is not task and task not in known.followers):
            return
        if task.outlives:
            header = encode(Admin("cancel", task.job.hex()))
            until = self._now + CANCEL_S
            self.submit(
                Task(self._new_id(), header, None, deadline=until, kind=wire.ADMIN, seeks=True), self._now
            )
        elif task.phase > _BACKOFF and task.kind == wire.SUBMIT:
            line = self.lines[task.line]
            line.out.append((wire.pack_envelope(wire.CANCEL, task.job),))
            line.sent = True
        self._end(known, endings.cancelled())

    def leave(self, task: Task) -> None:
        """Nobody waits for this task any more. A durable job goes on; any other is cancelled."""
        if not task.outlives:
            self.cancel(task)
        elif self.tasks.get(task.job) is task:
            self._end(task, endings.left_behind(task))

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
        """End every task, with `error` or as left. CANCELs are in the lines' `out`."""
        for task in list(self.tasks.values()):
            if error is None:
                self.leave(task)
            else:
                self._end(task, error)

    # -- from the link ------------------------------------------------------------------------------

    def receive(
        self, line: Line, envelope: bytes, header: bytes | None, payload: bytes | None, now: float
    ) -> None:
        """Take one message; its frames are those `wire.SHAPES` promises, or None. Never raises."""
        line.heard = True
        self._now = now
        task: Task | None = None
        if line.state is not _UP:
            if line.state is LineState.CLOSED:
                return
            self._dispatch.line_up(line, now)
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
            elif kind == wire.SPOKEN:
                self._on_spoken(task, attempt, value, decode(header, Spoken), payload)
            elif kind == wire.STARTED:
                self._on_started(task, attempt, sequence, decode(header, Started))
            elif kind == wire.ACCEPTED:
                task.queued_ahead = decode(header, Accepted).queued_ahead
                self._on_accepted(task, flags, now)
            elif kind == wire.FAILED:
                self._on_failed(task, decode(header, Failed), now)
            elif kind == wire.ADMIN and task.kind == wire.ADMIN:
                self._on_reply(task, decode(header, AdminReply), payload)
            else:
                self.errors += 1
        except ProtocolError:
            self.errors += 1
            if task is not None:
                # What it should have said will not come again by itself.
                self._dispatch.broken(task, now)

    def disconnected(self, line: Line, now: float) -> None:
        """The connection broke: answers may be lost, so the line starts afresh."""
        if line.state is _UP:
            self._dispatch.line_lost(line, now)

    def refused(self, line: Line, error: BusError, now: float) -> None:
        """The broker does not let us in: where none does, no task need wait any longer."""
        self._now = now
        self._dispatch.line_lost(line, now)
        line.refusal = error
        if all(other.refusal is not None for other in self.lines):
            for task in list(self.tasks.values()):
                self._end(task, error)

    def next_deadline(self) -> float:
        """When `tick` has something to do next; `inf` when nothing is waited for."""
        if not self.tasks:
            return inf
        at = self._sweep_at
        for line in self.lines:
            at = min(at, line.beat_at, line.redial_at)
        backoffs = self._dispatch.backoffs
        return min(at, backoffs[0][0]) if backoffs else at

    def tick(self, now: float) -> None:
        """Do what is due: beats, redials, second tries, missing answers, deadlines."""
        self._now = now
        if not self.tasks:
            return
        for line in self.lines:
            if now >= line.redial_at:
                line.open(now)
            elif now >= line.beat_at and not line.beat(now):
                self._dispatch.line_lost(line, now)
        self._dispatch.wake(now)
        if now >= self._sweep_at:
            stopped = now - self._sweep_at > STOPPED_S
            self._sweep_at = now + SWEEP_S
            self._sweep(now, stopped)

    # -- messages -----------------------------------------------------------------------------------

    def _on_accepted(self, task: Task, flags: int, now: float) -> None:
        if flags & wire.STORED:
            if task.surfaced:
                # Another connection of ours was sent the rest: what the listener lacks cannot be told.
                self._end(task, endings.torn(task))
                return
            if task.fetch is None:
                self._dispatch.forget(task, self._now)
                self.fetching.begin(task, now)
        elif task.fetch is not None:
            # What was to be fetched has not ended: STORED will follow when it has.
            self._dispatch.forget(task, self._now)
            task.phase = _ACCEPTED
        elif task.phase is _SENT:
            task.phase = _ACCEPTED
        if task.fetch is None:
            task.accept_by = now + WATCH_S if task.outlives else inf
        if task.outlives and task.home != task.line:
            task.home = task.line
            self.touched.append(task)

    def _on_chunk(self, task: Task, attempt: int, flags: int, number: int, segment: int, pcm: bytes) -> None:
        if attempt != task.attempt or number < task.next_chunk or task.phase is not _SPEAKING:
            self.strays += 1
            return
        fetch = task.fetch
        if number > task.next_chunk or segment < task.segment:
            if fetch is None:
                self._dispatch.broken(task, self._now)
            else:
                self.strays += 1  # the page will be asked for again, from the first chunk that is missing
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
        if fetch is not None and task.next_chunk >= fetch.page_end:
            self.fetching.turn_page(task, fetch, self._now)

    def _on_started(self, task: Task, attempt: int, first_segment: int, started: Started) -> None:
        if attempt < task.attempt or (
            task.asks if task.fetch is None else task.phase is _SPEAKING or first_segment
        ):
            # Old, or no answer to what was asked last, or the beginning of a page that came twice.
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
            self._dispatch.broken(task, self._now)
            return
        task.attempt = attempt
        task.next_chunk = 0
        task.started = started
        task.phase = _SPEAKING
        if task.outlives:
            task.home = task.line
        if task.fetch is None:
            task.accept_by = self._now + WATCH_S if task.durable else inf

    def _on_done(self, task: Task, attempt: int, done: Done) -> None:
        if attempt < task.attempt or (
            task.fetch is not None and (attempt != task.attempt or done.chunks != task.next_chunk)
        ):
            self.strays += 1
        elif attempt > task.attempt or done.chunks != task.next_chunk:
            self._dispatch.broken(task, self._now)
        else:
            task.done = done
            task.attempts = attempt
            self._end(task, None)

    def _on_spoken(self, task: Task, attempt: int, segment: int, spoken: Spoken, pcm: bytes | None) -> None:
        if pcm is None or len(pcm) & 1:
            raise ProtocolError("audio with half a sample")
        self._on_started(task, attempt, segment, started_of(spoken))
        if task.phase is _SPEAKING and task.attempt == attempt and not task.next_chunk:
            self._on_chunk(task, attempt, wire.SEGMENT_END, 0, segment, pcm)
            self._on_done(task, attempt, done_of(spoken))

    def _on_failed(self, task: Task, failed: Failed, now: float) -> None:
        task.history = failed.history
        task.attempts = max(task.attempt, len(failed.history))
        if task.asks or task.fetch is not None:
            self._on_nothing(task, failed, now)
            return
        if failed.code in BUSY_CODES and (task.phase is _SENT or not (task.surfaced or task.outlives)):
            # A broker that is told to stop says so of jobs that it had promised and not begun, too.
            wait_s = max(failed.retry_after_s or 0.0, self._dispatch.pause_s(task))
            if now + wait_s < min(task.deadline, task.submitted_at + PATIENCE_S):
                self._dispatch.back_off(task, wait_s, now)
                return
        elif failed.code == ClientLost.code and not task.surfaced:
            # We were stopped, or cut off, for longer than the broker waits; nobody has heard any of it.
            self._dispatch.back_off(task, self._dispatch.pause_s(task), now)
            return
        elif failed.code == WorkerLost.code and not task.surfaced and task.flags & wire.STREAM:
            # The broker may not repeat what it forwarded, but nobody has listened yet: ask anew.
            task.torn += 1
            if task.torn < MOST_TORN:
                del self.tasks[task.job]
                task.job = self._new_id()
                self.tasks[task.job] = task
                self._dispatch.back_off(task, self._dispatch.pause_s(task), now)
                return
        self._end(task, failed.error())

    def _on_nothing(self, task: Task, failed: Failed, now: float) -> None:
        """FAILED in answer to FETCH."""
        fetch = task.fetch
        if failed.code in BUSY_CODES and fetch is not None:
            wait_s = max(failed.retry_after_s or 0.0, BACKOFF_FIRST_S) * (1 + self._random())
            if self.fetching.busy(task, fetch, wait_s, now):
                return
        elif failed.code == UnknownJob.code:
            if not task.asks:
                self._dispatch.broken(task, self._now)  # it expired while it was fetched: to be spoken again
                return
            if self._dispatch.seek_on(task, now):
                return
        self._end(task, failed.error())

    def _on_reply(self, task: Task, reply: AdminReply, payload: bytes | None) -> None:
        if task.seeks and reply.code == UnknownJob.code and self._dispatch.seek_on(task, self._now):
            return
        task.reply = reply
        task.chunks = [payload or b""]
        self._end(task, None)

    # -- tasks --------------------------------------------------------------------------------------

    def _sweep(self, now: float, stopped: bool) -> None:
        dark_since = self._dispatch.dark_since
        for task in list(self.tasks.values()):
            if dark_since is not None and now - max(dark_since, task.submitted_at) >= self._connect_timeout_s:
                self._end(task, endings.nobody(self.lines))
            elif now >= task.deadline + GRACE_S:
                self._expire(task)
            elif now >= task.accept_by or (stopped and task.phase >= _ACCEPTED and task.outlives):
                self._dispatch.overdue(task, self.lines[task.line], now)

    def _expire(self, task: Task) -> None:
        """End a task whose deadline passed without the broker's word."""
        if task.phase > _BACKOFF and task.kind == wire.SUBMIT:
            self.lines[task.line].out.append((wire.pack_envelope(wire.CANCEL, task.job),))
        self._end(task, endings.late(task, self.lines[task.line]))

    def _end(self, task: Task, error: BusError | None) -> None:
        self.fetching.release(task, self._now)
        del self.tasks[task.job]
        self.urgent -= not task.flags & _PATIENT
        task.error = error
        task.ended_at = self._now
        task.phase = _ENDED
        self.touched.append(task)
        for follower in task.followers:
            follower.share(task)
            self.touched.append(follower)

    def _follow(self, known: Task, task: Task) -> None:
        """A second task about one job, or one whose id is in use for something else."""
        other = task.kind == known.kind and (task.header, task.payload) != (known.header, known.payload)
        if other or known.flags & wire.STREAM:
            task.error = endings.in_use()
            task.phase = _ENDED
            self.touched.append(task)
        else:
            known.followers = (*known.followers, task)

    def check_invariants(self) -> None:
        """Raise `AssertionError` if the tables contradict each other. For tests."""
        from .invariants import check

        dispatch = self._dispatch
        waiting = [task for _, _, task in dispatch.backoffs]
        dark = dispatch.dark_since is not None
        check(self.tasks, self.lines, waiting, urgent=self.urgent, dark=dark)
        self.fetching.check_invariants(list(self.tasks.values()))
