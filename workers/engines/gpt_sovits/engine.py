"""GPT-SoVITS behind the engine interface: a proxy to one server that runs its api_v2.

The models, their weights and their GPU are the server's; this engine needs aiohttp alone. It lends the bus's
guarantees to a server that has none: queues, retries, restarts in the middle of a batch, a name for every
fault. Requests are made in an event loop of the engine's own, which runs only while the host waits for
audio, so the engine stays what the host expects: a thing with one thread that is asked and answers.

One request at a time is the default, for api_v2 keeps the state of a request in its pipeline and two at once
mix their voices. `concurrency` is for what stands before several servers.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from ....common.errors import EngineError
from ...engine import Arrays, Engine, Part, Reference, Request, Row, Samples
from .languages import DENSE, SERVER_LANGUAGES, server_language
from .reference import Voice, learn
from .settings import Settings

if TYPE_CHECKING:
    from .segment import Narrator
    from .server import Server
    from .shelf import Shelf

log = logging.getLogger(__name__)

POLL_S: Final = 0.25
"How often the host may look whether the job is still wanted, while there is no audio."
_NOTHING: Final[Samples] = np.zeros(0, np.float32)

_Event = tuple[int, Samples | Exception | None]


class GptSovitsEngine(Engine[Voice]):
    """One GPT-SoVITS server."""

    name: ClassVar[str] = "gpt-sovits"
    version: ClassVar[str] = "1"

    def __init__(self) -> None:
        self.sample_rate = 32_000
        self.languages = SERVER_LANGUAGES
        self.batch = 1
        self._max_chars = 300
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._shelf: Shelf | None = None
        self._narrator: Narrator | None = None

    def load(self, settings: Mapping[str, Any]) -> None:
        """Wait until the server answers. Its models are loaded before it does.

        Raises `ConfigError` for a setting that is unknown or out of range, and `EngineError` where no server
        answers within `startup_s`, or something that is not an api_v2.
        """
        from .segment import Narrator
        from .server import Server
        from .shelf import Shelf

        checked = Settings.read(settings)
        self.sample_rate, self.languages = checked.sample_rate, checked.languages
        self.batch, self._max_chars = checked.concurrency, checked.max_chars
        self._loop = asyncio.new_event_loop()
        try:
            self._server = self._loop.run_until_complete(_opened(Server, checked))
            self._shelf = Shelf(checked, self._server)
            self._shelf.open()
            chance = random.SystemRandom().random
            self._narrator = Narrator(checked, self._server, self._shelf, clock=time.monotonic, random=chance)
            self._loop.run_until_complete(self._narrator.reach(checked.startup_s))
            self._narrator.check_defaults()
        except BaseException:
            self.close()
            raise

    def voice(self, reference: Reference) -> Voice:
        """Cut the recording to what the server takes, and write it where it is shared by a folder.

        Raises `BadRequest` for one that is too short or silent, `EngineError` where it cannot be written.
        """
        voice = learn(reference)
        if self._shelf is not None:
            self._shelf.place_here(voice)
        return voice

    def check(self, request: Request) -> None:
        """Raise `BadRequest` for an option, a value or a speed that the server does not take."""
        self._ready.parameters(request)

    def speak(self, request: Request, voice: Voice) -> Iterator[Samples]:
        """Yield a segment's audio as it comes, and empty parts while none comes; see `Narrator.speak`."""
        with closing(self._drive([Row(request, voice)])) as parts:
            for _, samples in parts:
                if samples is not None:
                    yield samples

    def speak_batch(self, rows: Sequence[Row[Voice]]) -> Iterator[Part]:
        """Speak several segments at once, each by a request of its own.

        A row that fails does not take the others with it: its error is raised when all of them have ended.
        """
        return self._drive(rows)

    def _drive(self, rows: Sequence[Row[Voice]]) -> Generator[Part]:
        narrator, loop = self._ready, self._loop
        if loop is None:
            raise EngineError("gpt-sovits is not loaded")
        # Unbounded, but the loop runs no further than to the next event: the network holds back the rest.
        events: asyncio.Queue[_Event] = asyncio.Queue()
        tasks = [loop.create_task(_speak(narrator, place, row, events)) for place, row in enumerate(rows)]
        left = set(range(len(rows)))
        problem: Exception | None = None
        try:
            while left:
                for place in left:
                    if rows[place].stopped:
                        tasks[place].cancel()
                place, happened = loop.run_until_complete(_next(events)) or (min(left), _NOTHING)
                if isinstance(happened, Exception):
                    problem = problem or happened
                    left.discard(place)
                    continue
                if happened is None:
                    left.discard(place)
                yield place, happened
        finally:
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        if problem is not None:
            raise problem

    def figures(self) -> Mapping[str, int]:
        """What was asked of the server and how it went."""
        if self._narrator is None or self._shelf is None:
            return {}
        seen = self._narrator.figures
        return {
            "requests": seen.requests,
            "retries": seen.retries,
            "outages": seen.outages,
            "broken_answers": seen.broken_answers,
            "silent_answers": seen.silent_answers,
            "references_placed": self._shelf.placed,
        }

    def max_chars(self, language: str) -> int:
        """The setting, a third of it in scripts that say three times as much with a character."""
        return self._max_chars // 3 if server_language(language) in DENSE else self._max_chars

    def pack(self, voice: Voice) -> Arrays:
        """The recording's piece and its words: the file may be gone when the worker starts again."""
        return voice.pack()

    def unpack(self, arrays: Arrays) -> Voice:
        """Back from arrays."""
        return Voice.unpack(arrays)

    def close(self) -> None:
        """Close the connections and the loop. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        if self._server is not None:
            loop.run_until_complete(self._server.close())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    @property
    def _ready(self) -> Narrator:
        if self._narrator is None:
            raise EngineError("gpt-sovits is not loaded")
        return self._narrator


async def _opened(kind: type[Server], settings: Settings) -> Server:
    """Its session must be made while the loop runs."""
    return kind(settings)


async def _next(events: asyncio.Queue[_Event]) -> _Event | None:
    try:
        async with asyncio.timeout(POLL_S):
            return await events.get()
    except TimeoutError:
        return None


async def _speak(narrator: Narrator, place: int, row: Row[Voice], events: asyncio.Queue[_Event]) -> None:
    """Speak one row; the last thing it says is that it has ended, or why it failed."""
    try:
        await narrator.speak(row.request, row.voice, lambda samples: events.put_nowait((place, samples)))
    except Exception as error:
        events.put_nowait((place, error))
    except asyncio.CancelledError:
        events.put_nowait((place, None))
        raise
    else:
        events.put_nowait((place, None))
