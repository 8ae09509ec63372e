"""`AsyncClient`: the bus for asyncio code, with the verbs of `Client`.

The I/O thread is the same; what it has to say reaches the event loop as one callback a burst. Cancelling
the task that waits cancels the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any

from .face import Face, add_page, answer_of
from .reading import Reading, joined, speech_of
from .request import Manner, Options
from .speech import Chunk, Result, Speech
from .task import Task
from .text import Piece
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
    """A job that was submitted and not waited for. `id` is 32 hex digits."""

    def __init__(self, task: Task, cancel: Callable[[Task], None]) -> None:
        self._task = task
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    @property
    def id(self) -> str:
        """The job's id, the same in every log and answer of the bus."""
        return self._task.job.hex()

    def done(self) -> bool:
        """Whether the job has ended, well or not."""
        return self._task.ended

    async def result(self, timeout_s: float | None = None) -> Speech:
        """Wait for the speech. Raises its `BusError`, or `TimeoutError` when `timeout_s` passes first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            raise TimeoutError(f"job {self.id} has not ended within {timeout_s} s; it goes on") from None
        return speech_of(self._task)

    def cancel(self) -> None:
        """Stop the job; `result` then raises `Cancelled`. A job that has ended stays as it is."""
        self._cancel(self._task)

    def wake(self, tasks: list[Task]) -> None:
        """Note the end of the job. Called by the link."""
        if self._task.ended:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._event.set)

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
    ) -> AsyncIterator[Chunk]:
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
    ) -> AsyncIterator[Result]:
        """Speak many lines at once and yield a `Result` for each, in order; `lines` may be asynchronous.

        While an asynchronous `lines` has nothing new, results that are ready are still given out.
        """
        manner = Manner(voice, engine, language, speed, lane, False, options or {})
        self._deadline(deadline_s)
        await self._prepare(None)
        sink = _Bell()
        rows = Window(
            self._link,
            lambda item: self._line(item, manner, sink, deadline_s),
            window or self._limits.window(engine),
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
        """Hand over one job and return at once. The text is one job as it is, within the engine's limit."""
        manner = Manner(voice, engine, language, speed, lane, durable, options or {})
        task = self._task(text, manner, None, self._deadline(deadline_s))
        task.sink = job = AsyncJob(task, self._cancel)
        self._link.submit(task)
        return job

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
        """Cancel what is under way and close the connection. Idempotent."""
        await asyncio.to_thread(self._link.close)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, command: str, target: str = "", offset: int = 0) -> tuple[dict[str, Any], int]:
        sink = _Bell()
        self._link.submit(self._admin(command, target, offset, sink))
        return answer_of((await sink.get())[0])

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
