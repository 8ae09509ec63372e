"""What a request carries, read with bounds and checked against the type that also describes it.

A mistake is told with the field it is in, which OpenAI's clients show as `param`.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from aiohttp import web
from multidict import MultiMapping

from ..common.errors import BadRequest, Overloaded
from .fields import HINTS
from .problems import BodyTooLarge, RequestTimeout, UnsupportedMediaType
from .requests import BODIES, BODY_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SHOWN: Final = 80
COME_AGAIN_S: Final = 2.0
T = TypeVar("T", bound=msgspec.Struct)
_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`")


class WrongField(BadRequest):
    """A field of the request is wrong."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


async def read_json(request: web.Request, form: type[T]) -> T:
    """The body as `form`, of as many bytes and in as much time as the configuration allows.

    Raises `WrongField`, `UnsupportedMediaType`, `BodyTooLarge` and `RequestTimeout`.
    """
    # Not without a type either: a page elsewhere may send that, and asks nobody first.
    want_type(request, "application/json")
    return decoded(await read_bytes(request, request.client_max_size, request.app[BODY_TIMEOUT_S]), form)


def want_type(request: web.Request, wanted: str) -> None:
    """Raise `UnsupportedMediaType` for a body that is not of this type, or is packed."""
    if request.content_type != wanted:
        raise UnsupportedMediaType(f"send {wanted}, not {request.content_type[:MAX_SHOWN]!r}")
    packed = request.headers.get("Content-Encoding", "identity").strip().lower()
    if packed != "identity":
        raise UnsupportedMediaType(f"send the body as it is, not packed as {packed[:MAX_SHOWN]!r}")


async def read_bytes(request: web.Request, most_bytes: int, timeout_s: float) -> bytes:
    """The whole body."""
    if (request.content_length or 0) > most_bytes:
        raise BodyTooLarge(f"the body has {request.content_length:,} bytes, {most_bytes:,} are allowed")
    if request.content.is_eof():
        # Here already, as nearly all are: no clock needs to be set.
        body = request.content.read_nowait()
        if len(body) > most_bytes:
            raise BodyTooLarge(f"the body has more than the {most_bytes:,} bytes that are allowed")
        return body
    parts: list[bytes] = []
    size = 0
    bodies = request.app[BODIES]
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.content.iter_chunked(65_536):
                size += len(part)
                bodies.held_bytes += len(part)
                if size > most_bytes:
                    raise BodyTooLarge(f"the body has more than the {most_bytes:,} bytes that are allowed")
                if bodies.held_bytes > bodies.most_bytes:
                    raise Overloaded("too many large bodies come at once", retry_after_s=COME_AGAIN_S)
                parts.append(part)
    except TimeoutError:
        raise RequestTimeout(f"the body did not come within {timeout_s:g} s") from None
    except web.RequestPayloadError:
        raise BadRequest("the body broke off, or is not encoded as its header says") from None
    finally:
        bodies.held_bytes -= size
    return b"".join(parts)


def decoded(body: bytes, form: type[T]) -> T:
    """JSON as `form`. Raises `WrongField`."""
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        raise _wrong(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WrongField(f"the body is no JSON: {error}") from None


def from_words(query: Mapping[str, str], form: type[T]) -> T:
    """A query, or the fields of a form, as `form`. Raises `WrongField`."""
    for name in query:
        if isinstance(query, MultiMapping) and len(query.getall(name)) > 1:
            raise WrongField(f"{name[:MAX_SHOWN]} is given twice", name[:MAX_SHOWN])
    try:
        return msgspec.convert(dict(query), form, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong(error) from None


def _wrong(error: msgspec.ValidationError) -> WrongField:
    said = str(error)
    found = _AT.search(said)
    path = found["path"] if found else ""
    sentence = _AT.sub("", said)
    for pattern, hint in HINTS.items():
        if repr(pattern) in sentence:
            sentence = hint
    return WrongField(f"{path}: {sentence}" if path else sentence, path or None)
