"""What every face of the edge does in the same way: from a wish to speech that comes.

OpenAI's, ElevenLabs's and SillyTavern's routes, jobs and Home Assistant's protocol differ in words only. Here
a wish is made of names that the bus knows, given to the bus, and waited for until its first audio, so that
whatever is wrong with it is known while an answer can still say so.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from ..common.errors import BadRequest, BusError, Cancelled, EngineError, TextTooLong, UnknownVoice
from .keys import NOBODY, Caller
from .news import Happening, News

if TYPE_CHECKING:
    from ..client import AsyncClient, Chunk
    from ..common.config import Edge
    from ..common.voices import VoiceStore
    from .limits import Limits

ENGINES_FOR_S: Final = 2.0
"""How long what the broker said of its engines is believed."""
VOICES_FOR_S: Final = 2.0
VOICES_KNOWN: Final = 1000


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to hear. Empty strings are defaults. `request` is the id that its events carry."""

    text: str
    voice: str = ""
    engine: str = ""
    language: str = ""
    speed: float = 1.0
    caller: Caller = NOBODY
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    request: str = ""


class Chunks:
    """Speech as it comes. A generator that nobody has begun to read could not be closed; this can."""

    def __init__(
        self, first: Chunk, rest: AsyncGenerator[Chunk], ended: Callable[[float, BaseException | None], None]
    ) -> None:
        self._first: Chunk | None = first
        self._rest = rest
        self._ended: Callable[[float, BaseException | None], None] | None = ended
        self._audio_s = 0.0

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> Chunk:
        chunk, self._first = self._first, None
        if chunk is None:
            try:
                chunk = await anext(self._rest)
            except StopAsyncIteration:
                self._end(None)
                raise
            except BaseException as error:
                self._end(error)
                raise
        self._audio_s += chunk.duration_s
        return chunk

    async def aclose(self) -> None:
        """Cancel what has not come. Idempotent."""
        await self._rest.aclose()
        self._end(Cancelled())

    def _end(self, error: BaseException | None) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self._audio_s, error)


@dataclass(frozen=True, slots=True)
class Heard:
    """Speech that has begun."""

    engine: str
    worker: str
    rate_hz: int
    first_audio_s: float
    chunks: Chunks
    "All of it, the first chunk included. Whoever has it closes it, and so cancels what is left."
    is_whole: bool = False
    "Whether the first chunk is all there is."


class Service:
    """Everything that a face may ask for."""

    def __init__(
        self, client: AsyncClient, store: VoiceStore, edge: Edge, news: News, limits: Limits
    ) -> None:
        self.client = client
        self.store = store
        self._limits = limits
        self._edge = edge
        self._news = news
        self._tenants: dict[str, AsyncClient] = {}
        self._voices: dict[str, tuple[str, float]] = {}
        self._status: dict[str, Any] = {}
        self._status_at = -math.inf
        self._asking: asyncio.Task[dict[str, Any]] | None = None

    async def begin(self, wish: Wish) -> Heard:
        """Have it spoken, and return at its first audio. Raises the `BusError` that it ends with before."""
        wish = await self._translated(wish)
        await self._limits.pay(wish.caller, len(wish.text))
        began = time.monotonic()
        chunks = self._tenant(wish.caller.tenant).stream(
            wish.text,
            voice=wish.voice,
            engine=wish.engine,
            language=wish.language,
            speed=wish.speed,
            options=wish.options,
        )
        try:
            first = await anext(chunks, None)
            if first is None:
                raise EngineError("nothing was said: the text has nothing in it that can be spoken")
        except BaseException as error:
            await chunks.aclose()
            if isinstance(error, BusError):  # and not because whoever asked has left
                self._limits.give_back(wish.caller, len(wish.text))
            self._ended(wish, None, 0.0, error)
            raise
        took_s = time.monotonic() - began
        self._tell(wish, "begun", first, first_audio_s=took_s)

        def ended(audio_s: float, error: BaseException | None) -> None:
            self._ended(wish, first, audio_s, error)

        spoken = Chunks(first, chunks, ended)
        return Heard(first.engine, first.worker, first.sample_rate_hz, took_s, spoken, first.last)

    async def status(self, for_s: float = 0.0) -> dict[str, Any]:
        """The broker's status, at most so old. Who asks meanwhile gets the same answer."""
        if time.monotonic() < self._status_at + for_s:
            return self._status
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> dict[str, Any]:
        self._status = await self.client.status()
        self._status_at = time.monotonic()
        return self._status

    async def engines(self) -> Mapping[str, Mapping[str, Any]]:
        """The engines that the broker knows, by name."""
        return engines_of(await self.status(ENGINES_FOR_S))

    async def takes_durable(self) -> bool:
        """Whether the broker keeps jobs when this process is gone."""
        return bool((await self.status(ENGINES_FOR_S)).get("durable"))

    async def engine(self, name: str) -> str:
        """The engine that a model's name means. What the bus does not know is left to it to refuse."""
        stands = any(fnmatchcase(name, pattern) for pattern in self._edge.default_models)
        if stands and name not in await self.engines():
            return ""
        return name

    async def voice(self, name: str) -> str:
        """The id of a voice: its own, or that of the voice it is an alias of. Raises `UnknownVoice`.

        What was found is believed for a moment. Should it go meanwhile, the bus says so.
        """
        id, until = self._voices.get(name, ("", -math.inf))
        if time.monotonic() < until:
            return id
        id = await asyncio.to_thread(self._voice, name)
        if len(self._voices) >= VOICES_KNOWN:
            self._voices.clear()
        self._voices[name] = id, time.monotonic() + VOICES_FOR_S
        return id

    async def _translated(self, wish: Wish) -> Wish:
        """Names that clients know made names of the bus."""
        if not wish.text.strip():
            raise BadRequest("there is nothing to say: the text is empty")
        if len(wish.text) > self._edge.max_chars:
            raise TextTooLong(
                f"a request may have {self._edge.max_chars:,} characters, this one has {len(wish.text):,}: "
                "send it as a job (POST /v1/jobs), or in parts"
            )
        return replace(wish, voice=await self.voice(wish.voice), engine=await self.engine(wish.engine))

    def _tenant(self, name: str) -> AsyncClient:
        """The client for a tenant; there are as many as API keys name."""
        if not name:
            return self.client
        found = self._tenants.get(name)
        if found is None:
            found = self._tenants[name] = self.client.as_tenant(name)
        return found

    def _voice(self, name: str) -> str:
        if not name:
            return ""
        try:
            return self.store.get(name).id
        except UnknownVoice:
            alias = self._edge.aliases.get(name)
            if alias is None:
                raise UnknownVoice(
                    f"no voice is called {name[:80]!r}: GET /v1/audio/voices lists those that are there"
                ) from None
            return alias

    def _ended(self, wish: Wish, first: Chunk | None, audio_s: float, error: BaseException | None) -> None:
        if error is None:
            self._tell(wish, "done", first, audio_s)
        elif isinstance(error, BusError) and not isinstance(error, Cancelled):
            self._tell(wish, "failed", first, audio_s, error.code)
        else:
            self._tell(wish, "cancelled", first, audio_s, Cancelled.code)

    def _tell(
        self,
        wish: Wish,
        state: Literal["begun", "done", "failed", "cancelled"],
        first: Chunk | None,
        audio_s: float = 0.0,
        code: str = "",
        first_audio_s: float = 0.0,
    ) -> None:
        engine, worker = (wish.engine, "") if first is None else (first.engine, first.worker)
        happening = Happening(
            "speech",
            wish.request,
            state,
            engine,
            wish.voice,
            worker,
            round(first_audio_s, 4),
            round(audio_s, 3),
            code=code,
        )
        self._news.tell(wish.caller.tenant, happening)


def engines_of(status: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The engines that a status of the bus tells of, by name."""
    return cast("Mapping[str, Mapping[str, Any]]", status.get("engines") or {})
