"""`Client`: the bus for ordinary code. Every verb blocks the calling thread and no other.

One client may be shared by threads; its own I/O thread does the work. It must not be used in a forked child.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from .face import Face, add_page, answer_of
from .reading import Reading, joined, speech_of
from .request import Manner, Options
from .speech import Chunk, Result, Speech
from .task import Task
from .text import Piece
from .window import Window


class _Queue(SimpleQueue[list[Task]]):
    """A sink that one thread waits on."""

    def wake(self, tasks: list[Task]) -> None:
        self.put(tasks)


class Job:
    """A job that was submitted and not waited for. `id` is 32 hex digits."""

    def __init__(self, task: Task, cancel: Callable[[Task], None]) -> None:
        self._task = task
        self._cancel = cancel
        self._event = threading.Event()

    @property
    def id(self) -> str:
        """The job's id, the same in every log and answer of the bus."""
        return self._task.job.hex()

    def done(self) -> bool:
        """Whether the job has ended, well or not."""
        return self._task.ended

    def result(self, timeout_s: float | None = None) -> Speech:
        """Wait for the speech. Raises its `BusError`, or `TimeoutError` when `timeout_s` passes first."""
        if not self._event.wait(timeout_s):
            raise TimeoutError(f"job {self.id} has not ended within {timeout_s} s; it goes on")
        return speech_of(self._task)

    def cancel(self) -> None:
        """Stop the job; `result` then raises `Cancelled`. A job that has ended stays as it is."""
        self._cancel(self._task)

    def wake(self, tasks: list[Task]) -> None:
        """Note the end of the job. Called by the link."""
        if self._task.ended:
            self._event.set()

    def __repr__(self) -> str:
        return f"<Job {self.id} {'done' if self.done() else 'running'}>"


class Client(Face):
    """A client of the bus for ordinary code; see `Face` for the arguments. Use it as a context manager.

    Every verb takes `voice`, `engine`, `language` (empty: the default), `speed` (a factor), `lane`
    ("interactive" or "batch"), `deadline_s` and `options` for the engine, and raises a `BusError`:
    `BadRequest`, `UnknownVoice`, `UnknownEngine`, `TextTooLong`, `Overloaded`, `NoWorker`,
    `DeadlineExceeded`, `BrokerUnreachable`, `WorkerLost`, `EngineError`, …
    """

    def say(
        self,
        text: str,
        *,
        voice: str = "",
        engine: str = "",
        language: str = "",
        speed: float = 1.0,
        lane: str = "interactive",
        deadline_s: float | None = None,
        options: Options | None = None,
    ) -> Speech:
        """Speak a text of any length: its sentences by all workers at once, joined in order."""
        manner = Manner(voice, engine, language, speed, lane, False, options or {})
        deadline = self._deadline(deadline_s)
        self._prepare(text)
        sink = _Queue()
        pieces = self._pieces(text, manner)
        tasks = [self._task(piece.spoken, manner, sink, deadline) for piece in pieces]
        try:
            waiting = iter(tasks)
            for task in islice(waiting, self._limits.window(engine)):
                self._link.submit(task)
            left = len(tasks)
            while left:
                for task in sink.get():
                    left -= 1
                    if task.error is not None:
                        raise task.error
                    for following in islice(waiting, 1):
                        self._link.submit(following)
        except BaseException:
            self._drop(tasks)
            raise
        return joined(tasks, pieces)

    def stream(
        self,
        text: str,
        *,
        voice: str = "",
        engine: str = "",
        language: str = "",
        speed: float = 1.0,
        lane: str = "interactive",
        deadline_s: float | None = None,
        options: Options | None = None,
        ahead: int = 8,
    ) -> Iterator[Chunk]:
        """Speak a text of any length and yield its audio as it comes, in order.

        Up to `ahead` sentences are under way. Closing the iterator early cancels what is left. An error may
        come after some audio; what was yielded is then all there will be.
        """
        manner = Manner(voice, engine, language, speed, lane, False, options or {})
        deadline = self._deadline(deadline_s)
        self._prepare(text)
        sink = _Queue()

        def make(piece: Piece, listening: bool) -> Task:
            return self._task(piece.spoken, manner, sink, deadline, stream=True, listening=listening)

        reading = Reading(self._link, self._pieces(text, manner), make, ahead=ahead)
        return self._heard(reading, sink)

    def _heard(self, reading: Reading, sink: _Queue) -> Iterator[Chunk]:
        try:
            while True:
                yield from reading.step()
                if reading.finished:
                    return
                sink.get()
        finally:
            reading.close()

    def map(
        self,
        lines: Iterable[Any],
        *,
        voice: str = "",
        engine: str = "",
        language: str = "",
        speed: float = 1.0,
        lane: str = "batch",
        deadline_s: float | None = None,
        options: Options | None = None,
        window: int | None = None,
        in_order: bool = True,
    ) -> Iterator[Result]:
        """Speak many lines at once and yield a `Result` for each, in order.

        A line is a string, or a mapping or object with `text` and any of voice, engine, language, speed,
        options. A line that fails is a result with an `error`; the rest goes on. `lines` is read as results
        are taken, so it may be endless. `window` is how many lines are under way, by default what
        keeps all workers busy. With `in_order` false, results come as they end.
        """
        manner = Manner(voice, engine, language, speed, lane, False, options or {})
        self._deadline(deadline_s)
        self._prepare(None)
        sink = _Queue()
        rows = Window(
            self._link,
            lambda item: self._line(item, manner, sink, deadline_s),
            window or self._limits.window(engine),
            in_order=in_order,
        )
        return self._mapped(iter(lines), rows, sink)

    def _mapped(self, lines: Iterator[Any], rows: Window, sink: _Queue) -> Iterator[Result]:
        more = True
        try:
            while True:
                more = more and rows.fill(lines)
                yield from rows.ready()
                if not rows.empty:
                    rows.ended(sink.get())
                elif not more:
                    return
        finally:
            rows.close()

    def submit(
        self,
        text: str,
        *,
        voice: str = "",
        engine: str = "",
        language: str = "",
        speed: float = 1.0,
        lane: str = "batch",
        deadline_s: float | None = None,
        options: Options | None = None,
        durable: bool = False,
    ) -> Job:
        """Hand over one job and return at once. The text is one job as it is, within the engine's limit."""
        manner = Manner(voice, engine, language, speed, lane, durable, options or {})
        task = self._task(text, manner, None, self._deadline(deadline_s))
        task.sink = job = Job(task, self._cancel)
        self._link.submit(task)
        return job

    def status(self) -> dict[str, Any]:
        """What the broker knows: `workers`, queues and rates (docs/protocol.md, section 8)."""
        status, offset = self._ask("status")
        while offset:
            page, offset = self._ask("status", offset=offset)
            add_page(status, page)
        self._learn(status)
        return status

    def drain(self, worker: str) -> None:
        """Have a worker finish what it began and leave."""
        self._ask("drain", worker)

    def close(self) -> None:
        """Cancel what is under way and close the connection. Idempotent."""
        self._link.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, command: str, target: str = "", offset: int = 0) -> tuple[dict[str, Any], int]:
        sink = _Queue()
        self._link.submit(self._admin(command, target, offset, sink))
        return answer_of(sink.get()[0])

    def _prepare(self, text: str | None) -> None:
        if self._must_ask(text):
            self.status()

    def _drop(self, tasks: list[Task]) -> None:
        for task in tasks:
            if not task.ended:
                self._link.cancel(task)
