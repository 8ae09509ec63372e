"""A TCP proxy that breaks connections the ways networks do: slowly, silently, or with a reset.

One thread with an event loop of its own. Half-open means that bytes are swallowed and nobody is told, not
even of the other end's leaving: to each end its connection still stands, until `cut`. What arrives is always
the beginning of what was sent, as with any TCP connection: once a byte was swallowed, none follows.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from enum import Enum
from typing import Final

BLOCK: Final = 16 * 1024
THROTTLE_S: Final = 0.02
"""Pause after each block while throttled: 0.8 MB/s."""


class Mode(Enum):
    """What becomes of the bytes."""

    PASS = "pass"  # noqa: S105 - what the proxy does, no secret
    THROTTLE = "throttle"
    SWALLOW = "swallow"


class Proxy:
    """Listens on a free port of `host` and forwards to `target` (host, port)."""

    def __init__(self, target: tuple[str, int], host: str = "127.0.0.1") -> None:
        self.mode = Mode.PASS
        self._host = host
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, host, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """Where to connect instead."""
        return f"tcp://{self._host}:{self.port}"

    def cut(self) -> None:
        """Reset every connection that stands; new ones pass.

        In one step: a connection that had bytes swallowed must never carry others, which no network does.
        """
        self._loop.call_soon_threadsafe(self._cut)

    def close(self) -> None:
        """Cut everything and end the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=2)

    def _cut(self) -> None:
        for writer in self._writers:
            raw: socket.socket | None = writer.get_extra_info("socket")
            # One that has just ended in order may be closed already.
            with suppress(OSError):
                if raw is not None:
                    # No lingering: the other end sees a reset, not an orderly end.
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._writers.clear()
        self.mode = Mode.PASS

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        if self.mode is not Mode.SWALLOW:
            self._writers -= both

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while block := await reader.read(BLOCK):
                if self.mode is Mode.THROTTLE:
                    await asyncio.sleep(THROTTLE_S)
                if self.mode is Mode.SWALLOW:
                    continue
                if writer.transport.is_closing():
                    return
                writer.write(block)
                await writer.drain()
            if self.mode is not Mode.SWALLOW:
                writer.close()  # in order: what was read before still goes out
        except OSError:
            if self.mode is not Mode.SWALLOW:
                writer.transport.abort()
