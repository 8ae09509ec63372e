"""HTTP with one api_v2 server: asking for audio, asking whether it is there, giving it a file.

The server may be anybody's, so nothing it says is taken on trust: it cannot lead us elsewhere (redirects are
refused), fill our memory (answers are bounded and never unpacked) or pass off half an answer for a whole one
(the end must be marked by HTTP, and by the WAV where that says a length). Whatever can be mended by asking
again later is a `ServerAwayError`; everything else has a code of ours.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp

from ....common.errors import EngineError
from .answers import BrokenOffError, ServerAwayError, refusal
from .settings import Address, Settings
from .wavstream import MAX_HEADER_BYTES, WavReader

if TYPE_CHECKING:
    from ....common.audio import Pcm

PROBE_S: Final = 10.0
MAX_WORDS_BYTES: Final = 64 * 1024
"Of an answer that is not audio."
MAX_SCHEMA_BYTES: Final = 1024 * 1024
TRAILER_BYTES: Final = 64 * 1024
"What may stand behind the audio."
NO_HEADERS: Final[Mapping[str, str]] = {}
KEEPALIVE_S: Final = 3.0
"uvicorn closes a connection that was idle for 5 s: one that it is just closing must not be used."
WAV_TYPES: Final = frozenset({"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"})


class Answer:
    """Audio on its way. `rate_hz` is 0 until the first of it has come."""

    def __init__(self, response: aiohttp.ClientResponse, most_s: float) -> None:
        self._response = response
        self._most_s = most_s
        self._wav = WavReader()
        self._bytes = 0

    @property
    def rate_hz(self) -> int:
        """Samples a second."""
        return self._wav.rate_hz

    async def read(self) -> Pcm | None:
        """Return more audio, which may be none yet; None at the end.

        Raises `BrokenOffError` for an end before its time and `EngineError` for what is no audio or too much.
        """
        try:
            data = await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BrokenOffError(_reason(error)) from error
        if not data:
            if self._wav.missing:
                raise BrokenOffError(self._wav.missing)
            return None
        self._bytes += len(data)
        pcm = self._wav.feed(data)
        most_bytes = MAX_HEADER_BYTES + TRAILER_BYTES + self._most_s * self.rate_hz * 2
        if self._bytes > most_bytes:
            raise EngineError(
                f"the GPT-SoVITS server sends more than {self._most_s:.0f} s of audio for this text, which"
                " cannot be right: see whether it repeats itself"
            )
        return pcm


class Server:
    """One server. Everything is to be called in one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._api = settings.api
        self._upload = settings.upload
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.concurrency + 2, keepalive_timeout=KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "voicebus"},
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=settings.connect_timeout_s,
                sock_connect=settings.connect_timeout_s,
                sock_read=settings.timeout_s,
            ),
        )

    def __str__(self) -> str:
        return str(self._api)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    @asynccontextmanager
    async def ask(self, body: Mapping[str, Any], most_s: float) -> AsyncGenerator[Answer]:
        """POST /tts and give the audio that comes back; leaving early closes the connection.

        Raises `ServerAwayError`, or what the refusal means: see `answers.refusal`.
        """
        async with self._request("POST", self._api, "/tts", json=dict(body)) as response:
            if response.status != 200:
                raise await _refused(response)
            if response.content_type not in WAV_TYPES:
                raise EngineError(
                    f"the GPT-SoVITS server answered with {response.content_type!r} instead of audio/wav: is"
                    " that an api_v2?"
                )
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise EngineError("the GPT-SoVITS server packs its audio, which was not asked for")
            length = response.headers.get("Content-Length")
            if length is None and "chunked" not in response.headers.get("Transfer-Encoding", "").lower():
                raise EngineError(
                    "the GPT-SoVITS server's answer does not say where it ends, so half of it could pass for"
                    " the whole: a proxy before it must speak HTTP/1.1"
                )
            yield Answer(response, most_s)

    async def probe(self) -> frozenset[str] | None:
        """See whether the server answers; return the names its request knows, None where it does not say.

        There is no route for that: its own description is what every FastAPI application gives at once.
        Raises `ServerAwayError`, and `EngineError` where something else answers.
        """
        timeout = aiohttp.ClientTimeout(total=PROBE_S)
        # After it, a request must not go into a connection that the other side is just closing.
        headers = {"Connection": "close"}
        async with self._request(
            "GET", self._api, "/openapi.json", timeout=timeout, headers=headers
        ) as response:
            if response.status in (404, 405) or 500 <= response.status not in (502, 503, 504):
                return None  # it may have been told not to describe itself
            if response.status != 200:
                raise await _refused(response)
            return _described(await _head(response, MAX_SCHEMA_BYTES))

    async def upload(self, name: str, data: bytes) -> None:
        """PUT a file. Raises `ServerAwayError`, and `EngineError` where it is not taken."""
        if self._upload is None:
            raise AssertionError("only with an upload_url is anything uploaded")
        headers = {"Content-Type": "audio/wav"}
        async with self._request("PUT", self._upload, f"/{name}", data=data, headers=headers) as response:
            if 200 <= response.status < 300:
                return
            error = await _refused(response)
            if isinstance(error, ServerAwayError):
                raise error
            raise EngineError(f"upload_url takes no reference: it answered {response.status} to a PUT")

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        address: Address,
        path: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        **more: Any,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Make a request; what happens on the way becomes an error of ours, what the caller raises passes."""
        if address.user:
            pair = b64encode(f"{address.user}:{address.password}".encode()).decode()
            headers = {**headers, "Authorization": f"Basic {pair}"}
        try:
            response = await self._session.request(
                method, f"{address}{path}", allow_redirects=False, headers=headers, **more
            )
        except aiohttp.ClientSSLError as error:
            raise EngineError(f"{address} cannot be trusted: {_reason(error)}") from error
        except (aiohttp.ClientConnectionError, TimeoutError, OSError) as error:
            raise ServerAwayError(_reason(error)) from error
        except aiohttp.ClientError as error:
            raise EngineError(
                f"{address} does not answer as an HTTP server does: {_reason(error)}"
            ) from error
        try:
            yield response
        except BaseException:
            response.close()
            raise
        finally:
            response.release()


async def _refused(response: aiohttp.ClientResponse) -> Exception:
    body = await _head(response, MAX_WORDS_BYTES)
    return refusal(response.status, response.content_type, body, response.headers.get("Location", ""))


async def _head(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The first bytes of an answer. Raises `ServerAwayError`."""
    parts: list[bytes] = []
    left = most_bytes
    try:
        while left > 0 and (part := await response.content.read(left)):
            parts.append(part)
            left -= len(part)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ServerAwayError(_reason(error)) from error
    if left <= 0:
        response.close()  # the rest is not waited for
    return b"".join(parts)


def _described(body: bytes) -> frozenset[str] | None:
    """The request's fields in a FastAPI application's description of itself."""
    try:
        described: object = json.loads(body)
    except (ValueError, RecursionError):
        described = None
    if _within(described, "paths", "/tts", "post") is None:
        raise EngineError(
            "what answers at api_url is not an api_v2 of GPT-SoVITS: it knows no POST /tts; start api_v2.py"
            " there, not api.py or the web interface"
        )
    fields = _within(described, "components", "schemas", "TTS_Request", "properties")
    return frozenset(cast("dict[str, object]", fields)) if isinstance(fields, dict) else None


def _within(value: object, *path: str) -> object:
    for name in path:
        value = cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None
    return value


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "it did not answer in time"
    return str(error) or type(error).__name__
