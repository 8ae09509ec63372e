"""`AsyncClient`: the bus for asyncio code, with the verbs of `Client`.

The I/O thread is the same; what it has to say reaches the event loop as one callback a burst. Cancelling
the task that waits cancels the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any

from ..common.errors import BadRequest, BrokerUnreachable
from ..common.text import Piece
from .face import Face, add_jobs, add_page, answer_of, asked_in_vain, fetch_task
from .reading import Carrier, Reading, joined, speech_of
from .request import Manner, Naming, Options, check_state, job_bytes
from .speech import Chunk, Result, Speech
from .task import Task
from .window import Window


class _Bell:
    """A sink that one coroutine waits on."""

    __slots__ = ("_event", "_loop", "_tasks")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._tasks: list[Task] = []

    def wake(self, tasks: list[Task]) -> None:
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take, tasks)

    def _take(self, tasks: list[Task]) -> None:
        self._tasks += tasks
        self._event.set()

    async def get(self) -> list[Task]:
        """Wait for news; returns all there is."""
        await self._event.wait()
        self._event.clear()
        tasks, self._tasks = self._tasks, []
        return tasks


class AsyncJob:
    """A job that is not waited for: one that was submitted, or any by its id, which has 32 hex digits."""

    def __init__(self, client: AsyncClient, carrier: Carrier, job: bytes, task: Task | None) -> None:
        self._client = client
        self._carrier = carrier
        self._job = job
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._accepted = asyncio.Event()

    @property
    def id(self) -> str:
        """The job's id, the same in every log and answer of the bus."""
        return self._job.hex()

    def done(self) -> bool:
        """Whether the job's end, well or not, is known here."""
        return self._task is not None and self._task.ended

    async def result(self, timeout_s: float | None = None) -> Speech:
        """Wait for the speech. Raises its `BusError`, or `TimeoutError` when `timeout_s` passes first.

        A durable job may be asked for again after an error that passes, such as `BrokerUnreachable`.
        """
        task = self._task
        if task is None or asked_in_vain(task):
            self._ended.clear()
            task = self._task = fetch_task(self._job, self)
            self._carrier.submit(task)
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            raise TimeoutError(f"job {self.id} has not ended within {timeout_s} s; it goes on") from None
        return speech_of(task)

    async def wait_accepted(self, timeout_s: float | None = None) -> None:
        """Wait until a durable job stands in a broker's journal: from then on it outlives this client.

        Raises the job's `BusError` where it was refused, or `TimeoutError`.
        """
        task = self._task
        if task is None or not task.durable:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._accepted.wait()
        except TimeoutError:
            raise TimeoutError(f"job {self.id} was not accepted within {timeout_s} s") from None
        if task.ended and task.error is not None and task.home < 0:
            raise task.error

    async def status(self) -> dict[str, Any]:
        """What the broker knows of the job: `state` and more. Raises `UnknownJob`."""
        return await self._client.job_status(self.id)

    def cancel(self) -> None:
        """Ask for the job to be stopped; `result` then raises `Cancelled`. One that has ended stays as it is.

        This does not wait; for a durable job `await client.cancel(job.id)` waits for the broker's word.
        """
        if self._task is None:
            self._task = fetch_task(self._job, self)
            self._carrier.submit(self._task)
        self._carrier.cancel(self._task)

    def wake(self, tasks: list[Task]) -> None:
        """Note what became of the job. Called by the link."""
        for task in tasks:
            with suppress(RuntimeError):
                if task.ended:
                    self._loop.call_soon_threadsafe(self._ended.set)
                if task.ended or task.home >= 0:
                    self._loop.call_soon_threadsafe(self._accepted.set)

    def __repr__(self) -> str:
        return f"<AsyncJob {self.id} {'done' if self.done() else 'running'}>"


class AsyncClient(Face):
    """A client of the bus for asyncio; see `Face` for the arguments and `Client` for the verbs and errors.

    It may be made before the event loop runs. Use it as an asynchronous context manager.
    """

    async def say(
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
        await self._prepare(text)
        sink = _Bell()
        pieces = self._pieces(text, manner)
        tasks = [self._task(piece.spoken, manner, sink, deadline) for piece in pieces]
        try:
            waiting = iter(tasks)
            for task in islice(waiting, self._limits.window(engine)):
                self._link.submit(task)
            left = len(tasks)
            while left:
                for task in await sink.get():
                    left -= 1
                    if task.error is not None:
                        raise task.error
                    for following in islice(waiting, 1):
                        self._link.submit(following)
        except BaseException:
            for task in tasks:
                if not task.ended:
                    self._link.cancel(task)
            raise
        return joined(tasks, pieces)

    async def stream(
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
    ) -> AsyncGenerator[Chunk]:
        """Speak a text of any length and yield its audio as it comes, in order.

        Up to `ahead` sentences are under way. Closing the iterator early (`aclose`) cancels what is left. An
        error may come after some audio; what was yielded is then all there will be.
        """
        manner = Manner(voice, engine, language, speed, lane, False, options or {})
        deadline = self._deadline(deadline_s)
        await self._prepare(text)
        sink = _Bell()

        def make(piece: Piece, listening: bool) -> Task:
            return self._task(piece.spoken, manner, sink, deadline, stream=True, listening=listening)

        reading = Reading(self._link, self._pieces(text, manner), make, ahead=ahead)
        try:
            while True:
                for chunk in reading.step():
                    yield chunk
                if reading.finished:
                    return
                await sink.get()
        finally:
            reading.close()

    async def map(
        self,
        lines: Iterable[Any] | AsyncIterable[Any],
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
    ) -> AsyncGenerator[Result]:
        """Speak many lines at once and yield a `Result` for each, in order; `lines` may be asynchronous.

        While an asynchronous `lines` has nothing new, results that are ready are still given out.
        """
        manner = Manner(voice, engine, language, speed, lane, durable, options or {})
        if naming is not None and not durable:
            raise BadRequest("only durable lines can be named: add durable=True")
        self._deadline(deadline_s)
        await self._prepare(None)
        sink = _Bell()
        rows = Window(
            self._link,
            lambda item: self._line(item, manner, sink, deadline_s, naming),
            window or self._limits.window(engine),
            adapts=window is None,
            in_order=in_order,
        )
        if isinstance(lines, AsyncIterable):
            results = _mapped_late(aiter(lines), rows, sink)
        else:
            results = _mapped(iter(lines), rows, sink)
        try:
            async for result in results:
                yield result
        finally:
            rows.close()

    async def submit(
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
    ) -> AsyncJob:
        """Hand over one job and return at once. The text is one job as it is, within the engine's limit.

        A `durable` job outlives this client; see `Client.submit`.
        """
        manner = Manner(voice, engine, language, speed, lane, durable, options or {})
        task = self._task(text, manner, None, self._deadline(deadline_s))
        task.sink = job = AsyncJob(self, self._link, task.job, task)
        self._link.submit(task)
        return job

    def job(self, id: str) -> AsyncJob:
        """A job by its id, whoever has submitted it; nothing is asked yet. Raises `BadRequest`."""
        return AsyncJob(self, self._link, job_bytes(id), None)

    async def jobs(self, state: str = "") -> list[dict[str, Any]]:
        """The jobs that all brokers hold, or those in a state; see `Client.jobs`."""
        check_state(state)
        every: list[dict[str, Any]] = []
        silent: list[BrokerUnreachable] = []
        for broker in range(len(self._addresses)):
            found: dict[str, dict[str, Any]] = {}
            try:
                page, offset = await self._ask("jobs", state, broker=broker)
                add_jobs(found, page)
                while offset:
                    page, offset = await self._ask("jobs", state, offset, broker=broker)
                    add_jobs(found, page)
            except BrokerUnreachable as error:
                self._left_out(silent, error)
            every += found.values()
        return every

    async def job_status(self, id: str) -> dict[str, Any]:
        """What the broker that has a job knows of it. Raises `UnknownJob` and `BadRequest`."""
        return await self._ask_about("job", id)

    async def cancel(self, id: str) -> None:
        """End an open job, whoever has submitted it. Raises `UnknownJob` for one that is not open."""
        await self._ask_about("cancel", id)

    async def status(self) -> dict[str, Any]:
        """What the broker knows: `workers`, queues and rates (docs/protocol.md, section 8)."""
        status, offset = await self._ask("status")
        while offset:
            page, offset = await self._ask("status", offset=offset)
            add_page(status, page)
        self._learn(status)
        return status

    async def drain(self, worker: str) -> None:
        """Have a worker finish what it began and leave."""
        await self._ask("drain", worker)

    async def close(self) -> None:
        """Cancel what is under way and not durable, and close the connection. Idempotent."""
        await asyncio.to_thread(self._link.close)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(
        self, command: str, target: str = "", offset: int = 0, *, broker: int = -1
    ) -> tuple[dict[str, Any], int]:
        sink = _Bell()
        self._link.submit(self._admin(command, target, offset, sink, broker=broker))
        return answer_of((await sink.get())[0])

    async def _ask_about(self, command: str, job: str) -> dict[str, Any]:
        sink = _Bell()
        self._link.submit(self._about(command, job, sink))
        return answer_of((await sink.get())[0])[0]

    async def _prepare(self, text: str | None) -> None:
        """Learn the bus's limits, if they matter for this text (None: for lines yet unseen)."""
        if self._must_ask(text):
            await self.status()


async def _mapped(lines: Iterator[Any], rows: Window, sink: _Bell) -> AsyncIterator[Result]:
    more = True
    while True:
        more = more and rows.fill(lines)
        for result in rows.ready():
            yield result
        if not rows.empty:
            rows.ended(await sink.get())
        elif not more:
            return


async def _mapped_late(lines: AsyncIterator[Any], rows: Window, sink: _Bell) -> AsyncIterator[Result]:
    """The same for lines that come when they come: waits for whichever is first, a line or an answer."""

    async def following() -> Any:
        return await anext(lines)

    coming: asyncio.Task[Any] | None = None
    news = asyncio.ensure_future(sink.get())
    more = True
    try:
        while True:
            if more and coming is None and rows.has_room:
                coming = asyncio.ensure_future(following())
            for result in rows.ready():
                yield result
            if coming is None and rows.empty and not more:
                return
            await asyncio.wait({news, coming} if coming else {news}, return_when=asyncio.FIRST_COMPLETED)
            if news.done():
                rows.ended(news.result())
                news = asyncio.ensure_future(sink.get())
            if coming is not None and coming.done():
                try:
                    rows.add(coming.result())
                except StopAsyncIteration:
                    more = False
                coming = None
    finally:
        news.cancel()
        if coming is not None:
            coming.cancel()
