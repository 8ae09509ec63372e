"""ElevenLabs's WebSocket `stream-input`: text goes in as it is written, speech comes out meanwhile.

Reference: ElevenLabs's API reference, "WebSockets, stream-input". The first message sets the voice's
settings (and may carry the key, for browsers), each following one adds text, `flush` speaks what is there,
and an empty text ends. Answers are JSON with the audio in base64; the last says `isFinal`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import numpy as np
from aiohttp import WSMsgType, web
from msgspec import Meta, Struct

from ..common.errors import BadRequest, BusError, Cancelled
from .elevenlabs import Asked, VoiceSettings, output_of
from .fields import Language, Model
from .keys import Keys, key_in
from .reading import decoded, from_words
from .requests import ID
from .routes import Route
from .service import Heard, Wish
from .talk import Talk

if TYPE_CHECKING:
    from .encoders import Encoder, Output
    from .service import Service

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 1 << 16
MAX_SILENCE_S: Final = 180.0
CLOSE_POLICY: Final = 1008


class SocketAsked(Asked, frozen=True):
    """The query."""

    model_id: Model = ""
    language_code: Language = ""
    inactivity_timeout: Annotated[int, Meta(ge=1, le=180)] = 20
    auto_mode: bool = False


class Part(Struct, frozen=True):
    """One message of the client."""

    text: str
    flush: bool = False
    try_trigger_generation: bool = False
    voice_settings: VoiceSettings | None = None
    xi_api_key: str = ""


class Spoken(Struct, frozen=True):
    """One message of ours."""

    audio: str | None
    isFinal: bool | None = None
    request_id: str = ""


class Told(Struct, frozen=True):
    """The last message, where something went wrong."""

    message: str
    error: str
    code: int


class StreamInput:
    """The handler."""

    def __init__(self, service: Service, keys: Keys, stall_s: float) -> None:
        self._service = service
        self._keys = keys
        self._stall_s = stall_s

    def routes(self) -> tuple[Route, ...]:
        """What this module answers to. The key may be in the first message, so it is looked at here."""
        return (
            Route(
                "GET",
                "/v1/text-to-speech/{voice_id}/stream-input",
                self.serve,
                "Speak a text that comes in parts",
                "ElevenLabs",
                (),
                query=SocketAsked,
                speaks=True,
                open=True,
                shape="elevenlabs",
                described=False,
            ),
        )

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """GET /v1/text-to-speech/{voice_id}/stream-input."""
        asked = from_words(request.query, SocketAsked)
        output = output_of(asked.output_format)
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, compress=False, heartbeat=30)
        await socket.prepare(request)
        try:
            await self._converse(request, socket, asked, output)
        except BusError as error:
            told = Told(error.message, error.code, CLOSE_POLICY)
            with suppress(ConnectionError):
                await socket.send_str(msgspec.json.encode(told).decode())
                await socket.close(code=CLOSE_POLICY, message=error.code.encode())
        return socket

    async def _converse(
        self, request: web.Request, socket: web.WebSocketResponse, asked: SocketAsked, output: Output
    ) -> None:
        first = await _part(socket, asked.inactivity_timeout)
        if first is None:
            return
        caller = self._keys.holder(key_in(request.headers) or first.xi_api_key)
        settings = first.voice_settings or VoiceSettings()
        voice = request.match_info["voice_id"]

        async def begin(text: str) -> Heard:
            wish = Wish(text, voice, asked.model_id, asked.language_code, settings.speed, caller.tenant)
            return await self._service.begin(wish)

        talk = Talk(begin)
        telling = asyncio.create_task(self._tell(request, socket, talk, output))
        reading = asyncio.create_task(_read(socket, first, talk, asked.inactivity_timeout))
        try:
            done, _ = await asyncio.wait({telling, reading}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if reading in done and not reading.result():
                raise Cancelled("the client left before its text ended")
            await telling
        finally:
            for task in (telling, reading):
                task.cancel()
            await asyncio.gather(telling, reading, return_exceptions=True)
            await talk.aclose()

    async def _tell(
        self, request: web.Request, socket: web.WebSocketResponse, talk: Talk, output: Output
    ) -> None:
        id = request[ID]
        encoder: Encoder | None = None
        async with aclosing(talk.heard()) as sentences:
            async for heard in sentences:
                if encoder is None:
                    encoder = output.make(heard.rate_hz)
                async with aclosing(heard.chunks) as chunks:
                    async for chunk in chunks:
                        await self._send(
                            socket, Spoken(_b64(encoder.feed(np.frombuffer(chunk.pcm, "<i2"))), None, id)
                        )
        rest = encoder.finish() if encoder is not None else b""
        if rest:
            await self._send(socket, Spoken(_b64(rest), None, id))
        await self._send(socket, Spoken(None, isFinal=True, request_id=id))
        await socket.close()

    async def _send(self, socket: web.WebSocketResponse, spoken: Spoken) -> None:
        if spoken.audio == "":
            return
        try:
            async with asyncio.timeout(self._stall_s):
                await socket.send_str(msgspec.json.encode(spoken).decode())
        except (TimeoutError, ConnectionError):
            raise Cancelled(f"the client took no audio for {self._stall_s:g} s, or has left") from None


async def _read(socket: web.WebSocketResponse, first: Part, talk: Talk, patience_s: float) -> bool:
    """Feed the talk until the text ends. Returns whether it did."""
    part: Part | None = first
    begun = False
    while part is not None:
        if part.text == "" and begun:
            await talk.end()
            return True
        begun = True
        await talk.feed(part.text)
        if part.flush or part.try_trigger_generation:
            await talk.flush()
        part = await _part(socket, patience_s)
    return False


async def _part(socket: web.WebSocketResponse, patience_s: float) -> Part | None:
    """The next message; None where the client has left. Raises `BadRequest` and `Cancelled`."""
    try:
        message = await socket.receive(timeout=min(patience_s, MAX_SILENCE_S))
    except TimeoutError:
        raise Cancelled(f"nothing came for {patience_s:g} s") from None
    if message.type is WSMsgType.TEXT:
        return decoded(str(message.data).encode(), Part)
    if message.type is WSMsgType.BINARY:
        raise BadRequest("send text messages with JSON in them")
    return None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
