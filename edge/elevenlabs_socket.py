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
from .keys import Caller, Keys, key_in
from .reading import decoded, from_words
from .requests import CALLER, ID
from .routes import Route
from .service import Heard, Wish
from .talk import Talk

if TYPE_CHECKING:
    from .encoders import Encoder, Output
    from .limits import Limits
    from .service import Service

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 1 << 16
FIRST_S: Final = 10.0
"""For the first message, which may have the key: until then it is a stranger who waits."""
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
    "Taken and not followed: sentences are begun as soon as they are complete anyhow."
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

    def __init__(self, service: Service, keys: Keys, limits: Limits) -> None:
        self._service = service
        self._keys = keys
        self._limits = limits

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
                streams=True,
                door="own",
                scope="speak",
                shape="elevenlabs",
                described=False,
            ),
        )

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """GET /v1/text-to-speech/{voice_id}/stream-input."""
        asked = from_words(request.query, SocketAsked)
        key = key_in(request.headers)
        if key:
            self._keys.holder(key).need("speak")
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, compress=False, heartbeat=30)
        await socket.prepare(request)
        try:
            first = await _part(socket, min(FIRST_S, asked.inactivity_timeout))
            if first is not None:
                caller = self._keys.holder(key or first.xi_api_key)
                caller.need("speak")
                request[CALLER] = caller
                if caller.key:
                    # Counted by its address already; whose key it is was not known then.
                    await self._limits.admit_key(caller.key, caller.rpm)
                async with self._limits.place():
                    await self._converse(request, socket, asked, first, caller)
        except BusError as error:
            told = Told(error.message, error.code, CLOSE_POLICY)
            with suppress(ConnectionError):
                await socket.send_str(msgspec.json.encode(told).decode())
                await socket.close(code=CLOSE_POLICY, message=error.code.encode())
        return socket

    async def _converse(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        asked: SocketAsked,
        first: Part,
        caller: Caller,
    ) -> None:
        settings = first.voice_settings or VoiceSettings()
        voice = request.match_info["voice_id"]

        async def begin(text: str) -> Heard:
            self._keys.still(caller)
            return await self._service.begin(
                Wish(
                    text,
                    voice,
                    asked.model_id,
                    asked.language_code,
                    settings.pace,
                    caller,
                    request=request[ID],
                )
            )

        talk = Talk(begin)
        telling = asyncio.create_task(_tell(socket, talk, output_of(asked.output_format), request[ID]))
        reading = asyncio.create_task(_read(socket, first, talk, asked.inactivity_timeout))
        try:
            done, _ = await asyncio.wait({telling, reading}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (telling, reading):
                task.cancel()
            await asyncio.gather(telling, reading, return_exceptions=True)
            await talk.aclose()


async def _tell(socket: web.WebSocketResponse, talk: Talk, output: Output, id: str) -> None:
    """Send what is heard, and that it was all."""
    encoder: Encoder | None = None
    async with aclosing(talk.heard()) as sentences:
        async for heard in sentences:
            if encoder is None:
                encoder = output.make(heard.rate_hz)
            async with aclosing(heard.chunks) as chunks:
                async for chunk in chunks:
                    await _send(socket, encoder.feed(np.frombuffer(chunk.pcm, "<i2")), id)
    if encoder is not None:
        await _send(socket, encoder.finish(), id)
    await socket.send_str(msgspec.json.encode(Spoken(None, isFinal=True, request_id=id)).decode())
    await socket.close()


async def _send(socket: web.WebSocketResponse, audio: bytes, id: str) -> None:
    if audio:
        said = Spoken(base64.b64encode(audio).decode("ascii"), None, id)
        await socket.send_str(msgspec.json.encode(said).decode())


async def _read(socket: web.WebSocketResponse, first: Part, talk: Talk, patience_s: float) -> None:
    """Feed the talk, and return once the client has left.

    It goes on receiving when the text has ended: whoever does not receive answers no ping either.
    """
    part: Part | None = first
    begun = False
    patience: float | None = patience_s
    while part is not None:
        if part.text == "" and begun:
            talk.end()
            patience = None
        elif patience is not None:
            begun = True
            talk.feed(part.text)
            if part.flush:
                talk.flush()
        part = await _part(socket, patience)


async def _part(socket: web.WebSocketResponse, patience_s: float | None) -> Part | None:
    """The next message; None where the client has left. Raises `BadRequest` and `Cancelled`."""
    try:
        message = await socket.receive(timeout=patience_s)
    except TimeoutError:
        raise Cancelled(f"nothing came for {patience_s:g} s") from None
    if message.type is WSMsgType.TEXT:
        return decoded(str(message.data).encode(), Part)
    if message.type is WSMsgType.BINARY:
        raise BadRequest("send text messages with JSON in them")
    return None
