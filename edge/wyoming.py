"""Home Assistant's protocol on a port of its own: the bus as a voice of the house.

The events and their framing are the `wyoming` package's; here is only what they mean. A text may come whole
or, from a model that is still thinking, in chunks: then each sentence is spoken as soon as it is complete.
Reference: the `wyoming` package's README and Home Assistant's integration of that name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Final

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.ping import Ping, Pong
from wyoming.server import AsyncEventHandler
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

from ..common.errors import BusError, Overloaded
from .requests import new_id
from .service import Heard, Wish
from .talk import Talk

if TYPE_CHECKING:
    from .service import Service

log = logging.getLogger(__name__)

MAX_EVENT_BYTES: Final = 1 << 20
"""Of an event's line, data and payload, each: the package reads as much as an event claims to have."""
MAX_CONNECTIONS: Final = 64
MAX_TURNS: Final = 8
SILENCE_HZ: Final = 24_000
CUT_OFF: Final = (
    ConnectionError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
)  # fmt: skip
"""What ends a connection: the last five are what the package raises for an event that is none."""


@dataclass(slots=True, eq=False)
class Turn:
    """A text to speak, and whether it came in parts."""

    talk: Talk
    is_streamed: bool


class House(AsyncEventHandler):
    """One connection. It is read at all times, so that a client that leaves is noticed; one task speaks."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        service: Service,
        version: str,
        stall_timeout_s: float,
    ) -> None:
        super().__init__(reader, writer)
        self._service = service
        self._version = version
        self._stall_timeout_s = stall_timeout_s
        self._open: Talk | None = None
        "The text that still comes in parts."
        self._turns: asyncio.Queue[Turn] = asyncio.Queue(MAX_TURNS)
        self._speaking: Turn | None = None
        self._speaker = asyncio.create_task(self._speak())
        self.heard_at = monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, or only a text of which no more has come."""
        if not self._turns.empty():
            return False
        return self._speaking is None or self._speaking.talk.is_waiting

    async def handle_event(self, event: Event) -> bool:
        """Take one event. Those that are not known are no reason to hang up."""
        self.heard_at = monotonic()
        try:
            if Describe.is_type(event.type):
                await self.write_event((await self._info()).event())
            elif Ping.is_type(event.type):
                await self.write_event(Pong(Ping.from_event(event).text).event())
            else:
                self._take(event)
        except BusError as error:
            await self.write_event(Error(error.message, error.code).event())
        return True

    async def write_event(self, event: Event) -> None:
        """Send an event. Who reads nothing for too long is cut off."""
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await super().write_event(event)
        except TimeoutError:
            self.writer.transport.abort()
            raise ConnectionResetError("the client reads nothing") from None

    async def disconnect(self) -> None:
        """The house is gone, and with it whoever listened."""
        self._speaker.cancel()
        await asyncio.gather(self._speaker, return_exceptions=True)
        turns = [] if self._speaking is None else [self._speaking]
        while not self._turns.empty():
            turns.append(self._turns.get_nowait())
        for turn in turns:
            await turn.talk.aclose()

    def _take(self, event: Event) -> None:
        if SynthesizeStart.is_type(event.type):
            if self._open is not None:
                self._open.end()
            self._open = self._turn(SynthesizeStart.from_event(event).voice, is_streamed=True)
        elif SynthesizeChunk.is_type(event.type) and self._open is not None:
            self._open.feed(SynthesizeChunk.from_event(event).text)
        elif SynthesizeStop.is_type(event.type) and self._open is not None:
            self._open.end()
            self._open = None
        elif Synthesize.is_type(event.type) and self._open is None:
            # Inside of a stream it is there for servers that know none.
            asked = Synthesize.from_event(event)
            talk = self._turn(asked.voice, is_streamed=False)
            talk.feed(asked.text)
            talk.end()

    def _turn(self, voice: SynthesizeVoice | None, *, is_streamed: bool) -> Talk:
        named = voice or SynthesizeVoice()
        wish = Wish("", named.name or "", language=named.language or "", request=new_id())

        async def begin(text: str) -> Heard:
            return await self._service.begin(replace(wish, text=text))

        talk = Talk(begin)
        try:
            self._turns.put_nowait(Turn(talk, is_streamed))
        except asyncio.QueueFull:
            raise Overloaded(f"{MAX_TURNS} texts wait on this connection, which is all it takes") from None
        return talk

    async def _speak(self) -> None:
        """Say one text after the other, for as long as the connection lasts."""
        while True:
            self._speaking = turn = await self._turns.get()
            try:
                await self._tell(turn)
            except BusError as error:
                await self.write_event(Error(error.message, error.code).event())
            finally:
                await turn.talk.aclose()
            if turn.is_streamed:
                await self.write_event(SynthesizeStopped().event())
            self._speaking = None

    async def _tell(self, turn: Turn) -> None:
        begun = False
        async with aclosing(turn.talk.heard()) as sentences:
            async for heard in sentences:
                if not begun:
                    begun = True
                    await self.write_event(AudioStart(heard.rate_hz, 2, 1).event())
                async with aclosing(heard.chunks) as chunks:
                    async for chunk in chunks:
                        await self.write_event(AudioChunk(heard.rate_hz, 2, 1, chunk.pcm).event())
        if not begun and not turn.is_streamed:
            # Nothing to say is an answer, too: the house waits for one.
            await self.write_event(AudioStart(SILENCE_HZ, 2, 1).event())
            begun = True
        if begun:
            await self.write_event(AudioStop().event())

    async def _info(self) -> Info:
        voices = await asyncio.to_thread(self._service.store.list)
        by = Attribution("voicebus", "")
        return Info(
            tts=[
                TtsProgram(
                    name="voicebus",
                    attribution=by,
                    installed=True,
                    description="voicebus",
                    version=self._version,
                    voices=[
                        TtsVoice(
                            name=voice.id,
                            attribution=by,
                            installed=True,
                            description=voice.name,
                            version=None,
                            languages=[voice.language],
                        )
                        for voice in voices
                    ],
                    supports_synthesize_streaming=True,
                )
            ]
        )


class _Bounded(asyncio.StreamReader):
    """Refuses an event that claims to be larger than any is."""

    async def readexactly(self, n: int) -> bytes:
        if n > MAX_EVENT_BYTES:
            raise ValueError(f"an event has {n:,} bytes, {MAX_EVENT_BYTES:,} are allowed")
        return await super().readexactly(n)


@asynccontextmanager
async def house(
    service: Service, host: str, port: int, version: str, stall_timeout_s: float
) -> AsyncGenerator[str]:
    """Serve while the block runs; gives the address, `tcp://host:port`."""
    handlers: dict[House, asyncio.Task[None]] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or not _make_room(handlers):
            writer.close()
            return
        handler = House(reader, writer, service, version, stall_timeout_s)
        handlers[handler] = task
        try:
            await handler.run()
        except CUT_OFF as error:
            log.info("a Wyoming client was cut off: %r", error)
        finally:
            del handlers[handler]
            writer.close()

    def protocol() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(_Bounded(limit=MAX_EVENT_BYTES), connected)

    server = await asyncio.get_running_loop().create_server(protocol, host, port)
    try:
        found = server.sockets[0].getsockname()
        yield f"tcp://{found[0]}:{found[1]}"
    finally:
        server.close()
        tasks = tuple(handlers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _make_room(handlers: Mapping[House, asyncio.Task[None]]) -> bool:
    """Whether one more may come; whoever was silent longest makes room for it."""
    if len(handlers) < MAX_CONNECTIONS:
        return True
    idle = [handler for handler in handlers if handler.is_idle]
    if not idle:
        return False
    handlers[min(idle, key=lambda handler: handler.heard_at)].cancel()
    return True
