"""A long row of lines, spoken many at a time and given back in order, or as they end.

The input is read only as fast as results are taken, so it may be endless. So many lines are under way as keep
the bus busy: where a line's jobs found nothing waiting when they were accepted, workers may have run out of
work, and the window grows, up to `MOST_ADAPTED`; where more waited than the window holds, others wait
too, and it shrinks again. A slow line does not stop those behind it until `HELD_WINDOWS` windows of
finished ones wait for it. Like `Reading`, it never waits itself, so both faces share it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from operator import length_hint
from typing import Any, Final

from ..common.errors import BusError
from ..common.text import Piece
from .reading import Carrier, joined
from .speech import Result
from .task import Task

HELD_WINDOWS: Final = 4
MOST_ADAPTED: Final = 1024
"""Results that are done and not taken yet are held in memory: a window may not grow for ever."""

Parts = tuple[list[Task], list[Piece]]


class _Row:
    __slots__ = ("error", "index", "item", "left", "pieces", "tasks")

    def __init__(self, index: int, item: Any) -> None:
        self.index = index
        self.item = item
        self.tasks: list[Task] = []
        self.pieces: list[Piece] = []
        self.left = 0
        self.error: BusError | None = None


class Window:
    """Lines under way. `open_line(item)` makes a line's tasks.

    With `adapts`, `size` is the least. With `in_order` false, a line is given back as soon as it has ended.
    """

    def __init__(
        self,
        carrier: Carrier,
        open_line: Callable[[Any], Parts],
        size: int,
        *,
        adapts: bool = False,
        in_order: bool = True,
    ) -> None:
        self._carrier = carrier
        self._open_line = open_line
        self._least = self._size = max(1, size)
        self._adapts = adapts
        self._full = False
        "Whether more lines could have been under way since the last ones ended."
        self._in_order = in_order
        self._rows: dict[int, _Row] = {}
        "Lines not given back yet, by index."
        self._over: deque[_Row] = deque()
        "Those of them that have ended; only used where order does not matter."
        self._busy = 0
        self._added = 0
        self._given = 0

    @property
    def has_room(self) -> bool:
        """Whether another line may be added now."""
        return self._busy < self._size and len(self._rows) < self._size * HELD_WINDOWS

    @property
    def empty(self) -> bool:
        """Whether every line added has been given back."""
        return not self._rows

    def fill(self, lines: Iterator[Any]) -> bool:
        """Begin as many lines as there is room for. False: there are no more."""
        begun: list[Task] = []
        # The lines of a list are all there: they are handed over at once, for the link is then woken once
        # and sends them as one. Whatever else they come from may take its time before the next.
        at_once = length_hint(lines, 0) > 0
        try:
            while self.has_room:
                try:
                    item = next(lines)
                except StopIteration:
                    return False
                begun += self._begin(item)
                if not at_once:
                    self._carrier.submit(*begun)
                    begun.clear()
        finally:
            if begun:
                self._carrier.submit(*begun)
        self._full = True
        return True

    def add(self, item: Any) -> None:
        """Begin a line. One that cannot even be sent becomes a result with its error."""
        self._carrier.submit(*self._begin(item))

    def _begin(self, item: Any) -> list[Task]:
        """Make a line's tasks, to be submitted."""
        row = _Row(self._added, item)
        self._added += 1
        self._rows[row.index] = row
        try:
            row.tasks, row.pieces = self._open_line(item)
        except BusError as error:
            row.error = error
            self._over.append(row)
            return []
        row.left = len(row.tasks)
        self._busy += 1
        for task in row.tasks:
            task.tag = row
        return row.tasks

    def ended(self, tasks: list[Task]) -> None:
        """Take note of tasks the sink was woken for."""
        for task in tasks:
            row = task.tag
            if isinstance(row, _Row) and task.ended:
                task.tag = None
                row.left -= 1
                if task.error is not None and row.error is None:
                    row.error = task.error
                    # What passes is no reason to give the other pieces of a durable line up.
                    stop = self._carrier.leave if task.error.retryable else self._carrier.cancel
                    for other in row.tasks:
                        if not other.ended:
                            stop(other)
                if not row.left:
                    self._busy -= 1
                    self._over.append(row)
                    if self._adapts:
                        self._adapt(task)
        self._full = False

    def _adapt(self, task: Task) -> None:
        """Learn from a task that has ended whether the bus could do more."""
        if task.error is not None or task.queued_ahead < 0:
            return
        if not task.queued_ahead:
            if self._full and self._size < MOST_ADAPTED:
                self._size += 1
        elif task.queued_ahead > self._size > self._least:
            self._size -= 1

    def ready(self) -> list[Result]:
        """The results whose turn it is."""
        results: list[Result] = []
        rows = self._rows
        if self._in_order:
            self._over.clear()
            while (row := rows.get(self._given)) is not None and not row.left:
                self._given += 1
                results.append(self._give(row))
        else:
            while self._over:
                results.append(self._give(self._over.popleft()))
        return results

    def _give(self, row: _Row) -> Result:
        del self._rows[row.index]
        jobs = tuple(task.job.hex() for task in row.tasks)
        try:
            if row.error is not None:
                raise row.error
            return Result(row.index, row.item, joined(row.tasks, row.pieces), None, jobs)
        except BusError as error:
            return Result(row.index, row.item, None, error, jobs)

    def close(self) -> None:
        """Cancel what is still under way and not durable. Idempotent."""
        for row in self._rows.values():
            for task in row.tasks:
                if not task.ended:
                    self._carrier.leave(task)
        self._rows.clear()
