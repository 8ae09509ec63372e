"""A server on loopback that answers with whatever bytes a test wants, for what no sound server would say.

It runs in a thread with a loop of its own and writes HTTP by hand.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from voicebus.common.audio import encode

Step = bytes | str | threading.Event
"Bytes to send; 'reset' to cut the connection; an event to wait for."

FIELDS = (
    "text", "text_lang", "ref_audio_path", "prompt_lang", "prompt_text", "top_k", "seed", "streaming_mode",
    "temperature", "speed_factor", "media_type", "text_split_method", "batch_size",
)  # fmt: skip
DESCRIPTION = {
    "paths": {"/tts": {"post": {}}},
    "components": {"schemas": {"TTS_Request": {"properties": {name: {} for name in FIELDS}}}},
}


def http(body: bytes = b"", *, status: int = 200, kind: str = "audio/wav", headers: str = "") -> bytes:
    """A whole answer."""
    head = f"HTTP/1.1 {status} Any\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    head += f"Connection: close\r\n{headers}\r\n"
    return head.encode() + body


def words(status: int, **said: object) -> bytes:
    """An answer in JSON."""
    return http(json.dumps(said).encode(), status=status, kind="application/json")


def wav(samples: np.ndarray[Any, Any], rate_hz: int = 32_000) -> bytes:
    """A WAV that knows its length."""
    return encode(samples, rate_hz, "wav")


def open_header(rate_hz: int = 32_000) -> bytes:
    """The header of a stream: it gives a length of nothing."""
    return wav(np.zeros(0, np.int16), rate_hz)


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """A chunk of a stream."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@dataclass(slots=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


class Scripted:
    """Answers POST /tts by the scripts in turn, the last one for good; the rest as a healthy server."""

    def __init__(self) -> None:
        self.scripts: list[Sequence[Step]] = []
        self.description = http(json.dumps(DESCRIPTION).encode(), kind="application/json")
        self.put = http(status=201)
        self.asked: list[Asked] = []
        self.gone = threading.Event()
        "A client left before its answer was over."
        self.both = threading.Barrier(2)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._ready = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spoken(self) -> list[dict[str, Any]]:
        """The bodies of all POST /tts."""
        return [asked.json for asked in self.asked if asked.method == "POST"]

    def __enter__(self) -> Scripted:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.asked.append(Asked(method, path, headers, body))
        if method != "POST":
            writer.write(self.description if method == "GET" else self.put)
            await writer.drain()
            return
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        watch = asyncio.create_task(reader.read(1))
        for step in script:
            if isinstance(step, threading.Event):
                waiting = asyncio.create_task(asyncio.to_thread(step.wait, 30))
                await asyncio.wait({waiting, watch}, return_when=asyncio.FIRST_COMPLETED)
                if watch.done():
                    self.gone.set()
                    step.set()
                    return
            elif isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif step == "together":
                await asyncio.to_thread(self.both.wait, 30)
            else:
                writer.transport.abort()
        watch.cancel()
