"""Home Assistant's protocol on a port of its own: the bus as a voice of the house.

The events and their framing are the `wyoming` package's; here is only what they mean. A text may come whole
or, from a model that is still thinking, in chunks: then each sentence is spoken as soon as it is complete.
Reference: the `wyoming` package's README and Home Assistant's integration of that name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
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

from ..common.errors import BusError
from .service import Heard, Wish
from .talk import Talk

if TYPE_CHECKING:
    from .service import Service

log = logging.getLogger(__name__)

MAX_EVENT_BYTES: Final = 1 << 20
"""Of an event's line, data and payload, each: the package reads as much as an event claims to have."""
MAX_CONNECTIONS: Final = 64


class House(AsyncEventHandler):
    """One connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: Service, version: str
    ) -> None:
        super().__init__(reader, writer)
        self._service = service
        self._version = version
        self._talk: Talk | None = None
        self._telling: asyncio.Task[None] | None = None

    async def handle_event(self, event: Event) -> bool:
        """Answer one event. Those that are not known are no reason to hang up."""
        try:
            await self._answer(event)
        except BusError as error:
            await self._hush()
            await self.write_event(Error(error.message, error.code).event())
        return True

    async def disconnect(self) -> None:
        """The house is gone, and with it whoever listened."""
        await self._hush()

    async def _answer(self, event: Event) -> None:
        if Describe.is_type(event.type):
            await self.write_event((await self._info()).event())
        elif Ping.is_type(event.type):
            await self.write_event(Pong(Ping.from_event(event).text).event())
        elif SynthesizeStart.is_type(event.type):
            await self._hush()
            self._start(SynthesizeStart.from_event(event).voice)
        elif SynthesizeChunk.is_type(event.type) and self._talk is not None:
            await self._talk.feed(SynthesizeChunk.from_event(event).text)
        elif SynthesizeStop.is_type(event.type) and self._talk is not None:
            await self._finish(self._talk)
            await self.write_event(SynthesizeStopped().event())
        elif Synthesize.is_type(event.type) and self._talk is None:
            # Inside of a stream it is there for servers that know none.
            asked = Synthesize.from_event(event)
            talk = self._start(asked.voice)
            await talk.feed(asked.text)
            await self._finish(talk)

    def _start(self, voice: SynthesizeVoice | None) -> Talk:
        named = voice or SynthesizeVoice()

        async def begin(text: str) -> Heard:
            return await self._service.begin(Wish(text, named.name or "", language=named.language or ""))

        self._talk = talk = Talk(begin)
        self._telling = asyncio.create_task(self._tell(talk))
        return talk

    async def _finish(self, talk: Talk) -> None:
        await talk.end()
        if self._telling is not None:
            await self._telling
        self._talk = self._telling = None

    async def _tell(self, talk: Talk) -> None:
        """Send what is heard. An error of the bus ends the talk, and is told once."""
        begun = False
        try:
            async with aclosing(talk.heard()) as sentences:
                async for heard in sentences:
                    if not begun:
                        begun = True
                        await self.write_event(AudioStart(heard.rate_hz, 2, 1).event())
                    async with aclosing(heard.chunks) as chunks:
                        async for chunk in chunks:
                            await self.write_event(AudioChunk(heard.rate_hz, 2, 1, chunk.pcm).event())
        finally:
            await talk.aclose()
        if begun:
            await self.write_event(AudioStop().event())

    async def _hush(self) -> None:
        talk, telling, self._talk, self._telling = self._talk, self._telling, None, None
        if telling is not None:
            telling.cancel()
            with suppress(asyncio.CancelledError, BusError):
                await telling
        if talk is not None:
            await talk.aclose()

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
async def house(service: Service, host: str, port: int, version: str) -> AsyncIterator[str]:
    """Serve while the block runs; gives the address, `tcp://host:port`."""
    handlers: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(handlers) >= MAX_CONNECTIONS:
            writer.close()
            return
        handlers.add(task)
        handler = House(reader, writer, service, version)
        try:
            await handler.run()
        except (ConnectionError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            # The last four are what the package raises for an event that is none.
            log.info("a Wyoming client was cut off: %s", error)
        finally:
            handlers.discard(task)
            await handler.disconnect()
            writer.close()

    def protocol() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(_Bounded(limit=MAX_EVENT_BYTES), connected)

    server = await asyncio.get_running_loop().create_server(protocol, host, port)
    try:
        found = server.sockets[0].getsockname()
        yield f"tcp://{found[0]}:{found[1]}"
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
