"""Errors as HTTP answers: one body that clients of OpenAI's API and readers of RFC 9457 both understand.

Every error of the bus has a code, a status and a sentence (`common/errors.py`); this adds only the shape.
OpenAI's clients read `error.message`, `type`, `param` and `code`, and want all four; a problem detail has
`type`, `title`, `status`, `detail` and `instance`, and may have more members: so `error` is one of those.
ElevenLabs's clients read `detail.status` and `detail.message`, where RFC 9457 wants a string: its routes
have a shape of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import msgspec
from aiohttp import web

from ..common.errors import BusError
from ..common.printable import printable

Shape = Literal["problem", "elevenlabs"]
MEDIA_TYPE: Final = "application/problem+json"
COME_AGAIN_S: Final = 2.0
_KINDS: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class NotFound(BusError):
    """There is nothing at this path."""

    code = "not_found"
    http_status = 404


class MethodNotAllowed(BusError):
    """This path does not take this method."""

    code = "method_not_allowed"
    http_status = 405


class RequestTimeout(BusError):
    """The request did not come in time."""

    code = "request_timeout"
    http_status = 408
    retryable = True


class BodyTooLarge(BusError):
    """The body is larger than is allowed."""

    code = "body_too_large"
    http_status = 413


class UnsupportedMediaType(BusError):
    """The body is of a kind that is not taken here."""

    code = "unsupported_media_type"
    http_status = 415


class OpenAiError(msgspec.Struct, frozen=True):
    """What OpenAI's clients read."""

    message: str
    type: str
    param: str | None
    code: str


class Problem(msgspec.Struct, frozen=True):
    """A problem detail (RFC 9457) that is also OpenAI's error."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    error: OpenAiError


class ElevenDetail(msgspec.Struct, frozen=True):
    """What ElevenLabs's clients read."""

    status: str
    message: str


class ElevenProblem(msgspec.Struct, frozen=True):
    """An error as ElevenLabs tells it."""

    detail: ElevenDetail


def kind_of(status: int) -> str:
    """OpenAI's word for a family of errors."""
    return _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")


def title_of(error: BusError | type[BusError]) -> str:
    """What all errors of this code have in common."""
    kind = error if isinstance(error, type) else type(error)
    return (kind.__doc__ or kind.code).splitlines()[0].rstrip(".")


def problem(error: BusError, request_id: str) -> Problem:
    """The body."""
    status = error.http_status
    param: str | None = getattr(error, "param", None)
    message = printable(error.message)
    return Problem(
        f"/docs#{error.code}",
        title_of(error),
        status,
        message,
        f"urn:request:{request_id}",
        OpenAiError(message, kind_of(status), param and printable(param), error.code),
    )


class Form(NamedTuple):
    """The body of errors in one shape."""

    media_type: str
    type: type[msgspec.Struct]


FORMS: Final[Mapping[Shape, Form]] = {
    "problem": Form(MEDIA_TYPE, Problem),
    "elevenlabs": Form("application/json", ElevenProblem),
}


def headers_of(error: BusError) -> Mapping[str, str]:
    """When to come again, in whole seconds and never too early."""
    after_s = error.retry_after_s
    if after_s is None and error.http_status == 503:
        after_s = COME_AGAIN_S
    headers = {} if after_s is None else {"Retry-After": str(max(1, math.ceil(after_s)))}
    if error.http_status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="voicebus"'
    return headers


def answer(error: BusError, request_id: str, *, shape: Shape = "problem") -> web.Response:
    """The response."""
    body = (
        problem(error, request_id)
        if shape == "problem"
        else ElevenProblem(ElevenDetail(error.code, printable(error.message)))
    )
    return web.Response(
        body=msgspec.json.encode(body),
        status=error.http_status,
        content_type=FORMS[shape].media_type,
        headers=headers_of(error),
    )
