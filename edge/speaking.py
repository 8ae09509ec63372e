"""Speech on its way out: chunks encoded as they come, written no faster than they are read.

The headers leave with the first audio. From then on an error cannot change the status, so the connection is
broken off (`middleware.py`): every client takes an unfinished chunked body for what it is, whereas a clean
end would pass half a sentence off as the whole. Server-sent events can say what went wrong, and do. Who reads
nothing for too long is cut off by the guard, which ends the handler and with it the job.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import msgspec
import numpy as np
from aiohttp import web

from ..common.errors import BusError
from .encoders import Encoder, Output, with_length
from .problems import problem
from .requests import ID
from .service import Heard

log = logging.getLogger(__name__)

EVENT_STREAM: Final = "text/event-stream"
USAGE: Final = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
"""OpenAI's clients want it; nobody is billed here."""


async def send(request: web.Request, heard: Heard, output: Output) -> web.StreamResponse:
    """Answer with audio, chunk by chunk; with a body of known length where all of it is there already."""
    async with aclosing(heard.chunks):
        encoder = output.make(heard.rate_hz)
        if heard.is_whole:
            chunks = [np.frombuffer(chunk.pcm, "<i2") async for chunk in heard.chunks]
            data = b"".join([*(encoder.feed(chunk) for chunk in chunks), encoder.finish()])
            body = with_length(data, sum(chunk.size for chunk in chunks))
            return web.Response(body=body, headers=headers_of(heard), content_type=output.media_type)
        response = web.StreamResponse(headers=headers_of(heard))
        response.content_type = output.media_type
        await response.prepare(request)
        async for part in _encoded(heard, encoder):
            await response.write(part)
    await response.write_eof()
    return response


async def send_events(request: web.Request, heard: Heard, output: Output) -> web.StreamResponse:
    """Answer with OpenAI's events: audio in base64, then the end, or an error."""
    id = request[ID]
    async with aclosing(heard.chunks):
        encoder = output.make(heard.rate_hz)
        response = web.StreamResponse(headers=headers_of(heard))
        response.content_type = EVENT_STREAM
        await response.prepare(request)
        try:
            async for part in _encoded(heard, encoder):
                audio = base64.b64encode(part).decode("ascii")
                await _event(response, {"type": "speech.audio.delta", "audio": audio, "request_id": id})
            await _event(response, {"type": "speech.audio.done", "usage": USAGE, "request_id": id})
        except BusError as error:
            log.warning("request %s broke off in its audio: %s", id, error)
            told = problem(error, id).error
            await _event(response, {"type": "error", "error": told, "request_id": id})
    await response.write_eof()
    return response


async def _encoded(heard: Heard, encoder: Encoder) -> AsyncIterator[bytes]:
    """The bytes of a format as they become ready."""
    async for chunk in heard.chunks:
        if data := encoder.feed(np.frombuffer(chunk.pcm, "<i2")):
            yield data
    if data := encoder.finish():
        yield data


def headers_of(heard: Heard) -> dict[str, str]:
    """Who speaks, and how soon."""
    return {
        "X-Voicebus-Engine": heard.engine,
        "X-Voicebus-Worker": heard.worker,
        "X-Voicebus-First-Audio-Ms": f"{1000 * heard.first_audio_s:.0f}",
        "X-Accel-Buffering": "no",  # nginx would hold a stream back
    }


async def _event(response: web.StreamResponse, body: dict[str, Any]) -> None:
    await response.write(b"data: " + msgspec.json.encode(body) + b"\n\n")
