"""What must hold between the client's tables after every step. Used by tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..common import wire
from .brokers import Line, LineState
from .task import Phase, Task


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def check(
    tasks: Mapping[bytes, Task], lines: Sequence[Line], waiting: Sequence[Task], *, urgent: int, dark: bool
) -> None:
    """Raise `AssertionError` with the promise that is broken."""
    up = [line.state is LineState.UP for line in lines]
    _require(dark != any(up), "it is dark exactly while no broker is up")
    backing_off = {id(task) for task in waiting}
    batch = sum(bool(task.flags & wire.PATIENT) for task in tasks.values())
    _require(urgent == len(tasks) - batch, "the tasks somebody waits for are counted")
    for job, task in tasks.items():
        _require(task.job == job, "a task is filed under its job id")
        _require(task.phase is not Phase.ENDED and task.error is None, "an ended task has left the table")
        _require(0 <= task.line < len(lines), "a task belongs to a broker")
        if task.phase is Phase.BACKOFF:
            _require(id(task) in backing_off, "a task that backs off will be sent again")
        elif task.phase is Phase.PARKED:
            _require(not up[task.line], "a task waits for a broker that is away")
            if task.home < 0 and not task.tried:
                _require(not any(up), "no task waits for a broker while another would do")
        else:
            _require(up[task.line], "a task that was sent is with a broker that is up")
        if task.fetch is not None:
            _require(task.phase in (Phase.SENT, Phase.SPEAKING), "what is fetched is with a broker")
            _require(task.next_chunk <= max(task.fetch.page_end, 0), "no page is longer than was asked for")
        if task.surfaced:
            _require(task.phase is Phase.SPEAKING, "audio that was heard is never waited for again")
            _require(task.heard is not None, "only listeners hear")
        if task.heard is not None:
            _require(not task.chunks, "a listener gets all audio")
        segments = [segment for segment, _ in task.marks]
        starts = [start for _, start in task.marks]
        _require(segments == sorted(set(segments)), "segments come in order, each once")
        _require(starts == sorted(starts), "a later segment begins with a later chunk")
        _require(task.segment == (segments[-1] if segments else -1), "the last segment is the newest mark")
        if task.heard is None:
            _require(task.next_chunk <= len(task.chunks), "every chunk of this attempt is held")
