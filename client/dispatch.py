"""Which broker a task goes to, what is sent there, and when it is sent again.

A task without a home goes to the best broker for its job among those in the best state. A durable job stays
with the broker that promised it. If that one is away while others are there, the job's tasks wait for
it for `HOME_S` before they turn to another, which would speak the job a second time: the one at home
will be finished whether anybody waits or not. A job that was sent and not yet promised moves at once.
A task that seeks a job asks broker after broker until one knows it. Sans-IO, like the core.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final

from ..common import wire
from ..common.errors import BusError
from . import endings
from .brokers import Line, LineState, place
from .fetching import Fetching
from .task import Phase, Task

ACCEPT_S: Final = 2.0
"""A SUBMIT without any answer is sent again after this, doubling each time."""
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MOST_S: Final = 10.0
HOME_S: Final = 30.0
WATCH_S: Final = 30.0
"""A durable job of which nothing was heard for so long is asked after: the broker may have cut us off."""
MOST_SILENT_TRIES: Final = 5
MOST_TORN: Final = 3

_PARKED, _BACKOFF, _SENT = Phase.PARKED, Phase.BACKOFF, Phase.SENT
_UP = LineState.UP


class Dispatch:
    """`tasks` are the core's; `end(task, error)` ends one."""

    def __init__(
        self,
        lines: Sequence[Line],
        tasks: Mapping[bytes, Task],
        random: Callable[[], float],
        connect_timeout_s: float,
        end: Callable[[Task, BusError | None], None],
    ) -> None:
        self.fetching = Fetching(lines)
        self.dark_since: float | None = None
        "Since when no broker is UP."
        self.backoffs: list[tuple[float, int, Task]] = []
        self._lines = lines
        self._tasks = tasks
        self._random = random
        self._connect_timeout_s = connect_timeout_s
        self._end = end
        self._order = 0

    def wake(self, now: float) -> None:
        """Send what has backed off for long enough."""
        while self.backoffs and self.backoffs[0][0] <= now:
            task = heapq.heappop(self.backoffs)[2]
            if task.phase is _BACKOFF:
                self.go(task, now)

    def broken(self, task: Task, now: float) -> None:
        """Audio is missing in between: hear the job again if nobody has listened, else fail."""
        task.torn += 1
        if task.surfaced or task.torn >= MOST_TORN:
            self._end(task, endings.torn(task))
        else:
            self.back_off(task, self.pause_s(task), now)

    def go(self, task: Task, now: float) -> None:
        """Send a task to the broker for it, or let it wait for that one."""
        line = place(self._lines, task)
        task.line = line.number
        if line.state is _UP:
            self.send(task, line, now)
            return
        if task.phase is not _PARKED or task.accept_by == inf:
            # Not with each dial that fails: a task's patience runs from when it began to wait.
            wait_s = HOME_S if task.home >= 0 else self._connect_timeout_s if task.tried else inf
            task.accept_by = now + wait_s
        task.phase = _PARKED

    def seek_on(self, task: Task, now: float) -> bool:
        """This broker does not know the job: try another. False: all have been asked."""
        task.tried |= 1 << task.line
        if task.tried + 1 == 1 << len(self._lines):
            if task.kind != wire.SUBMIT:
                return False
            task.seeks = False
            task.tried = 0
        self.forget(task, now)
        task.home = -1
        self.go(task, now)
        return True

    def line_up(self, line: Line, now: float) -> None:
        """A broker has spoken: it gets the tasks that waited for it, or for any."""
        line.up(now)
        self.dark_since = None
        known = ~(1 << line.number)
        for task in list(self._tasks.values()):
            # It may be another process than the one that did not know the job.
            task.tried &= known
            if task.phase is _PARKED and place(self._lines, task).state is _UP:
                self.go(task, now)

    def line_lost(self, line: Line, now: float) -> None:
        """A connection is gone, with what was under way on it."""
        line.close(now, self._random)
        self.fetching.drop(line)
        if self.dark_since is None and not any(other.state is _UP for other in self._lines):
            self.dark_since = now
        for task in list(self._tasks.values()):
            if task.line != line.number or task.phase is _BACKOFF:
                continue
            if task.surfaced:
                self._end(task, endings.left(line))
                continue
            self.forget(task, now)
            self.go(task, now)

    def send(self, task: Task, line: Line, now: float) -> None:
        """Send what a task asks, once more or for the first time."""
        if task.asks:
            self.fetching.begin(task, now)
            return
        if task.kind == wire.ADMIN:
            line.out.append((wire.pack_envelope(wire.ADMIN, task.job), task.header))
        elif not self._send_submit(task, line, now, wire.ANEW if task.torn else 0):
            return
        line.sent = True
        task.phase = _SENT
        task.accept_by = now + ACCEPT_S * 2**task.silent

    def _send_submit(self, task: Task, line: Line, now: float, flags: int) -> bool:
        left_ms = 0
        if task.deadline < inf:
            left_ms = int((task.deadline - now) * 1000)
            if left_ms <= 0:
                self._end(task, endings.late(task, line))
                return False
            left_ms = min(left_ms, wire.MAX_BUDGET_MS)
        envelope = wire.pack_envelope(wire.SUBMIT, task.job, 0, task.flags | flags, 0, left_ms)
        line.out.append((envelope, task.header, task.payload or b""))
        return True

    def forget(self, task: Task, now: float) -> None:
        """Drop what an answer brought that is not waited for any more; nobody has heard it."""
        self.fetching.release(task, now)
        task.attempt = task.next_chunk = 0
        task.segment = task.whole = -1
        task.first_audio_at = 0.0
        task.silent = 0
        task.marks.clear()
        task.chunks.clear()

    def back_off(self, task: Task, wait_s: float, now: float) -> None:
        """Send a task again after a while."""
        self.forget(task, now)
        task.phase = _BACKOFF
        task.accept_by = inf
        task.failures += 1
        self._order += 1
        heapq.heappush(self.backoffs, (now + wait_s, self._order, task))

    def pause_s(self, task: Task) -> float:
        """How long to wait before the next try: longer with each, and drawn at random."""
        return self._random() * min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(task.failures, 16))

    def overdue(self, task: Task, line: Line, now: float) -> None:
        """What a task waits for has not come in time."""
        if task.phase is _PARKED:
            self._waited_enough(task, now)
        elif task.fetch is not None:
            if not self.fetching.overdue(task, task.fetch, now):
                self._end(task, endings.unfinished(line))
        elif task.phase is _SENT:
            task.silent += 1
            if task.silent > MOST_SILENT_TRIES:
                self._end(task, endings.silent(line))
            else:
                self.send(task, line, now)
        elif task.asks:
            self.fetching.begin(task, now)
        else:
            # Submitted again, a job attaches: if we were cut off, that brings all that was missed.
            task.accept_by = now + WATCH_S
            line.sent |= self._send_submit(task, line, now, 0)

    def _waited_enough(self, task: Task, now: float) -> None:
        """The broker that a task waits for does not come back, while others are there."""
        task.accept_by = inf
        if task.home >= 0:
            task.home = -1
        elif task.kind == wire.SUBMIT:
            task.seeks = False
            task.tried = 0
        else:
            self._end(task, endings.out_of_sight(task, self._lines))
            return
        self.go(task, now)
