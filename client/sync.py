"""`Client`: the bus for ordinary code. Every verb blocks the calling thread and no other.

One client may be shared by threads; its own I/O thread does the work. It must not be used in a forked child.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from ..common.errors import BadRequest, BrokerUnreachable, UnknownJob
from ..common.text import Piece
from .face import Face, add_jobs, add_page, answer_of, asked_in_vain, fetch_task
from .reading import Carrier, Reading, joined, speech_of
from .request import Manner, Naming, Options, check_state, job_bytes
from .speech import Chunk, Result, Speech
from .task import Task
from .window import Window


class _Queue(SimpleQueue[list[Task]]):
    """A sink that one thread waits on."""

    def wake(self, tasks: list[Task]) -> None:
        self.put(tasks)


class Job:
    """A job that is not waited for: one that was submitted, or any by its id, which has 32 hex digits."""

    def __init__(self, client: Client, carrier: Carrier, job: bytes, task: Task | None) -> None:
        self._client = client
        self._carrier = carrier
        self._job = job
        self._task = task
        self._own = task is not None
        self._ended = threading.Event()
        self._accepted = threading.Event()

    @property
    def id(self) -> str:
        """The job's id, the same in every log and answer of the bus."""
        return self._job.hex()

    def done(self) -> bool:
        """Whether the job's end, well or not, is known here."""
        return self._task is not None and self._task.ended

    def result(self, timeout_s: float | None = None) -> Speech:
        """Wait for the speech. Raises its `BusError`, or `TimeoutError` when `timeout_s` passes first.

        A durable job may be asked for again after an error that passes, such as `BrokerUnreachable`.
        """
        task = self._task
        if task is None or asked_in_vain(task):
            self._ended.clear()
            task = self._task = fetch_task(self._job, self)
            self._carrier.submit(task)
        if not self._ended.wait(timeout_s):
            raise TimeoutError(f"job {self.id} has not ended within {timeout_s} s; it goes on")
        return speech_of(task)

    def wait_accepted(self, timeout_s: float | None = None) -> None:
        """Wait until a durable job stands in a broker's journal: from then on it outlives this client.

        Raises the job's `BusError` where it was refused, or `TimeoutError`.
        """
        task = self._task
        if task is None or not task.durable:
            return
        if not self._accepted.wait(timeout_s):
            raise TimeoutError(f"job {self.id} was not accepted within {timeout_s} s")
        if task.ended and task.error is not None and task.home < 0:
            raise task.error

    def status(self) -> dict[str, Any]:
        """What the broker knows of the job: `state` and more (docs/protocol.md, section 8).

        Raises `UnknownJob` for one that is not open and was not durable, or whose result has expired.
        """
        return self._client.job_status(self.id)

    def cancel(self) -> None:
        """Stop the job; `result` then raises `Cancelled`. A job of ours that has ended stays as it is.

        For a durable job, or one of another client, this waits for the broker's word, and raises `UnknownJob`
        where a job of another client is not open.
        """
        task = self._task
        if task is not None and not task.outlives:
            self._carrier.cancel(task)
            return
        try:
            self._client.cancel(self.id)
        except UnknownJob:
            if not self._own:
                raise

    def wake(self, tasks: list[Task]) -> None:
        """Note what became of the job. Called by the link."""
        for task in tasks:
            if task.ended:
                self._ended.set()
            if task.ended or task.home >= 0:
                self._accepted.set()

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
        durable: bool = False,
        naming: Naming | None = None,
    ) -> Iterator[Result]:
        """Speak many lines at once and yield a `Result` for each, in order.

        A line is a string, or a mapping or object with `text` and any of voice, engine, language, speed,
        options. A line that fails is a result with an `error`; the rest goes on. `lines` is read as results
        are taken, so it may be endless. `window` is how many lines are under way, by default so
        many as keep all workers busy. With `in_order` false, results come as they end.

        `durable` lines that are under way go on when the client is closed or dies. `naming` then gives each
        job its id, so that the same lines may be mapped again: what was begun is not begun once more, and
        what has ended is fetched, the failures too.
        """
        manner = Manner(voice, engine, language, speed, lane, durable, options or {})
        if naming is not None and not durable:
            raise BadRequest("only durable lines can be named: add durable=True")
        self._deadline(deadline_s)
        self._prepare(None)
        sink = _Queue()
        rows = Window(
            self._link,
            lambda item: self._line(item, manner, sink, deadline_s, naming),
            window or self._limits.window(engine),
            adapts=window is None,
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
        """Hand over one job and return at once. The text is one job as it is, within the engine's limit.

        A `durable` job goes on when this client is closed or dies, and when its broker does; its result is
        kept until it is fetched or expires: `Client.job` gets it by its id, from any process.
        """
        manner = Manner(voice, engine, language, speed, lane, durable, options or {})
        task = self._task(text, manner, None, self._deadline(deadline_s))
        task.sink = job = Job(self, self._link, task.job, task)
        self._link.submit(task)
        return job

    def job(self, id: str) -> Job:
        """A job by its id, whoever has submitted it; nothing is asked yet. Raises `BadRequest`."""
        return Job(self, self._link, job_bytes(id), None)

    def jobs(self, state: str = "") -> list[dict[str, Any]]:
        """The jobs that all brokers hold, or those in a state: open ones and durable ones that have ended.

        A broker that does not answer is left out with a warning in the log, unless none answers. A job that
        ends while the list is read may be missing. Raises `BadRequest` for an unknown state.
        """
        check_state(state)
        every: list[dict[str, Any]] = []
        silent: list[BrokerUnreachable] = []
        for broker in range(len(self._addresses)):
            found: dict[str, dict[str, Any]] = {}
            try:
                page, offset = self._ask("jobs", state, broker=broker)
                add_jobs(found, page)
                while offset:
                    page, offset = self._ask("jobs", state, offset, broker=broker)
                    add_jobs(found, page)
            except BrokerUnreachable as error:
                self._left_out(silent, error)
            every += found.values()
        return every

    def job_status(self, id: str) -> dict[str, Any]:
        """What the broker that has a job knows of it. Raises `UnknownJob` and `BadRequest`."""
        return self._ask_about("job", id)

    def cancel(self, id: str) -> None:
        """End an open job, whoever has submitted it. Raises `UnknownJob` for one that is not open."""
        self._ask_about("cancel", id)

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
        """Cancel what is under way and not durable, and close the connection. Idempotent."""
        self._link.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(
        self, command: str, target: str = "", offset: int = 0, *, broker: int = -1
    ) -> tuple[dict[str, Any], int]:
        sink = _Queue()
        self._link.submit(self._admin(command, target, offset, sink, broker=broker))
        return answer_of(sink.get()[0])

    def _ask_about(self, command: str, job: str) -> dict[str, Any]:
        sink = _Queue()
        self._link.submit(self._about(command, job, sink))
        return answer_of(sink.get()[0])[0]

    def _prepare(self, text: str | None) -> None:
        if self._must_ask(text):
            self.status()

    def _drop(self, tasks: list[Task]) -> None:
        for task in tasks:
            if not task.ended:
                self._link.cancel(task)
