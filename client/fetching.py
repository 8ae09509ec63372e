"""Results that a broker keeps, taken page by page.

A broker reads only a few results at a time and refuses the rest as `overloaded`, so fetches take turns here:
at most `TURNS` of each broker's results are under way, the others wait in line. A turn lasts until the result
is here, or until the broker says that the job has not ended. Pages are asked for from the first chunk that is
missing, so asking once more, when an answer is late or was lost, never costs what is here already.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import inf
from typing import Final

from ..common import wire
from .brokers import Line
from .task import Fetch, Phase, Task

TURNS: Final = 8
"""Half of what a broker reads at once: two clients do not get in each other's way."""
PAGE_S: Final = 5.0
"""A page that has not moved for so long is asked for again, with doubled patience each time."""
MOST_TRIES: Final = 5
PATIENCE_S: Final = 60.0
"""How long a broker may be too busy to go on with a result."""


class Fetching:
    """The fetches of all lines. It answers into the lines' `out` and the tasks' `phase` and `accept_by`."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.page_chunks = wire.FETCH_CHUNKS
        self._lines = lines
        self._turns: list[set[Task]] = [set() for _ in lines]
        self._waiting: list[OrderedDict[bytes, Task]] = [OrderedDict() for _ in lines]

    def begin(self, task: Task, now: float) -> None:
        """Ask for a result from its start on, as soon as it is this task's turn. It holds no audio."""
        if task.fetch is not None:
            return
        task.fetch = Fetch(now)
        task.phase = Phase.SENT
        if len(self._turns[task.line]) < TURNS:
            self._take_turn(task, task.fetch, now)
        else:
            task.accept_by = inf
            self._waiting[task.line][task.job] = task

    def turn_page(self, task: Task, fetch: Fetch, now: float) -> None:
        """All chunks of a page are here: ask for the next ones."""
        fetch.tries = 0
        fetch.seen = task.next_chunk
        fetch.moved_at = now
        self._ask(task, fetch, now)

    def release(self, task: Task, now: float) -> None:
        """A task fetches no longer: the next one has its turn."""
        if task.fetch is None:
            return
        task.fetch = None
        turns, waiting = self._turns[task.line], self._waiting[task.line]
        if task not in turns:
            waiting.pop(task.job, None)
            return
        turns.remove(task)
        if waiting:
            following = waiting.popitem(last=False)[1]
            if following.fetch is not None:
                self._take_turn(following, following.fetch, now)

    def drop(self, line: Line) -> None:
        """A line is lost, and all its fetches with it."""
        for task in (*self._turns[line.number], *self._waiting[line.number].values()):
            task.fetch = None
        self._turns[line.number].clear()
        self._waiting[line.number].clear()

    def overdue(self, task: Task, fetch: Fetch, now: float) -> bool:
        """Nothing is here in time: ask again where nothing has moved. False: that was often enough."""
        if task.next_chunk > fetch.seen:
            fetch.seen, fetch.tries, fetch.moved_at = task.next_chunk, 0, now
            task.accept_by = now + PAGE_S
            return True
        fetch.tries += not fetch.busy
        fetch.busy = False
        if fetch.tries > MOST_TRIES:
            return False
        self._ask(task, fetch, now)
        return True

    def busy(self, task: Task, fetch: Fetch, wait_s: float, now: float) -> bool:
        """The broker has no room for this reader now: ask later. False: it has been busy for too long."""
        if now + wait_s >= fetch.moved_at + PATIENCE_S:
            return False  # a deadline that passes first is an end of its own
        fetch.busy = True
        task.accept_by = now + wait_s
        return True

    def check_invariants(self, tasks: Sequence[Task]) -> None:
        """Raise `AssertionError` unless exactly the tasks that fetch have a turn or wait for one."""
        placed = {
            id(task)
            for turns, waiting in zip(self._turns, self._waiting, strict=True)
            for task in (*turns, *waiting.values())
        }
        if placed != {id(task) for task in tasks if task.fetch is not None}:
            raise AssertionError("exactly the tasks that fetch have a turn or wait for one")
        for turns, waiting in zip(self._turns, self._waiting, strict=True):
            if len(turns) > TURNS or (waiting and len(turns) < TURNS):
                raise AssertionError("nobody waits while there is a turn to be had")

    def _take_turn(self, task: Task, fetch: Fetch, now: float) -> None:
        self._turns[task.line].add(task)
        fetch.moved_at = now
        self._ask(task, fetch, now)

    def _ask(self, task: Task, fetch: Fetch, now: float) -> None:
        line = self._lines[task.line]
        line.out.append((wire.pack_envelope(wire.FETCH, task.job, sequence=task.next_chunk),))
        line.sent = True
        fetch.page_end = task.next_chunk + self.page_chunks
        task.accept_by = now + PAGE_S * 2**fetch.tries
