"""What happens to every request before and after its handler, in one place and in this order.

Its id, its place in the log and in the figures; its errors in the shape its client reads; who may ask from
which page; who asks; how much they may ask. A handler below only does its own work and raises `BusError`s.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11, typedefs, web
from aiohttp.typedefs import Handler

from ..common.errors import BadRequest, BusError, ConfigError, EngineError, KeyRefused, Unauthorized
from . import headers as every
from .addresses import bucket, client_of
from .guard import Guarded
from .keys import STRANGER, Caller
from .limits import OverLimit
from .problems import (
    BodyTooLarge,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    UnsupportedMediaType,
    answer,
)
from .requests import ADDRESS, CALLER, CORS, ID, PREPARED, SHARE, new_id

if TYPE_CHECKING:
    from .app import Server
    from .routes import Route

log = logging.getLogger(__name__)
CLIENT_LEFT: Final = 499
SHOWN_PATH: Final = 200
"""Of a path in the log, as it was sent: percent signs cannot write a line of their own."""
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OF_AIOHTTP: Final[dict[int, type[BusError]]] = {
    404: NotFound,
    405: MethodNotAllowed,
    408: RequestTimeout,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
}


class Middleware:
    """All of it, for one server."""

    def __init__(self, server: Server, headers: Mapping[str, str]) -> None:
        self._server = server
        self._headers = headers

    def all(self) -> list[typedefs.Middleware]:
        """The outermost first. Cross-origin rules (`cors.py`) stand between errors and limits."""
        return [self.known, self.told, self._server.origins.middleware(), self.counted]

    @web.middleware
    async def known(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give it an id, and note how it went."""
        asked = request.headers.get(every.ID, "")
        request[ID] = asked if _ID.fullmatch(asked) else new_id()
        forwarded = request.headers.getall("X-Forwarded-For", ())
        request[ADDRESS] = client_of(request.remote or "", forwarded, self._server.trusted)
        if (guard := _guard(request)) is not None:
            guard.requested()
        began = time.monotonic()
        status = CLIENT_LEFT
        figures = self._server.figures
        figures.in_flight.inc()
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            seconds = time.monotonic() - began
            figures.in_flight.dec()
            if guard is not None:
                guard.answered()
            figures.note(request.method, pattern_of(request), status, seconds)
            log.info(
                "%s %s %s %d %.3f s id=%s key=%s",
                request[ADDRESS],
                request.method,
                request.rel_url.raw_path[:SHOWN_PATH],
                status,
                seconds,
                request[ID],
                request.get(CALLER, STRANGER).key or "-",
            )

    @web.middleware
    async def told(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Make an answer of whatever is raised."""
        shape = self._server.shape_of(request)
        try:
            return await handler(request)
        except BusError as error:
            if PREPARED in request:
                return _broken_off(request, error)
            if not request.content.is_eof() and (guard := _guard(request)) is not None:
                guard.refused()
            if isinstance(error, OverLimit):
                request[SHARE] = error.share
            if isinstance(error, ConfigError | KeyRefused):
                log.warning("request %s: %s", request[ID], error)
                error = ConfigError("this server is not set up right: its log has more")
            return answer(error, request[ID], shape=shape)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            kind = _OF_AIOHTTP.get(error.status, BadRequest)
            made = answer(kind(_said(error, request)), request[ID], shape=shape)
            if "Allow" in error.headers:
                made.headers["Allow"] = error.headers["Allow"]
            return made
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as problem:
            log.exception("request %s failed", request[ID])
            if PREPARED in request:
                return _broken_off(request, problem)
            error = EngineError(f"something went wrong here; the log has more under {request[ID]}")
            return answer(error, request[ID], shape=shape)

    @web.middleware
    async def counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Know who asks, and whether they may ask now."""
        server = self._server
        route = server.route_of(request)
        server.origins.check(request, route is not None and route.speaks)
        if route is None:
            return await handler(request)
        caller = await self._caller(route, request)
        request[CALLER] = caller
        if route.counted:
            request[SHARE] = await server.limits.admit(bucket(request[ADDRESS]), caller.key, caller.rpm)
        if route.door == "key":
            caller.need(route.scope)
        if not route.speaks:
            return await handler(request)
        async with server.limits.place():
            return await handler(request)

    async def stamp(self, request: web.Request, response: web.StreamResponse) -> None:
        """Put on every answer what all have; aiohttp calls it before the headers leave."""
        request[PREPARED] = response
        headers = response.headers
        headers[every.ID] = request.get(ID, "")
        for name, value in self._headers.items():
            headers.setdefault(name, value)
        headers["Server"] = self._headers["Server"]  # over aiohttp's, which tells what to attack
        headers.update(request.get(CORS, {}))
        share = request.get(SHARE)
        if share is not None:
            headers["RateLimit-Policy"] = f'"{share.name}";q={share.limit};w={share.window_s}'
            headers["RateLimit"] = f'"{share.name}";r={share.remaining};t={share.reset_s}'

    async def _caller(self, route: Route, request: web.Request) -> Caller:
        """Who asks. Raises `Unauthorized`; whoever tries out keys uses up their address's share."""
        if route.door == "own":
            return STRANGER
        if route.door == "open":
            if route.scope is None:
                return STRANGER  # and not even a broken file of keys keeps it from answering
            return self._server.keys.caller_or_stranger(request.headers)
        try:
            return self._server.keys.caller(request.headers)
        except Unauthorized:
            await self._server.limits.admit(bucket(request[ADDRESS]))
            raise


async def expected(request: web.Request) -> web.StreamResponse | None:
    """Have a client that asks before it sends its body go on. aiohttp answers other wishes in plain text."""
    if request.version != HttpVersion11:
        return None
    wish = request.headers.get("Expect", "")
    if wish.lower() != "100-continue":
        request[ID] = new_id()
        return answer(
            BadRequest("of all that `Expect` can ask for, 100-continue alone is done here"), request[ID]
        )
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # or aiohttp takes the answer for one that is on its way
    return None


def _broken_off(request: web.Request, error: Exception) -> web.StreamResponse:
    """Half an answer is on its way, and nothing else may follow it: the client must see that it is none."""
    log.warning("request %s broke off in its answer: %s", request[ID], error)
    if request.transport is not None:
        request.transport.abort()
    return request[PREPARED]


def _guard(request: web.Request) -> Guarded | None:
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol if isinstance(protocol, Guarded) else None


def pattern_of(request: web.Request) -> str:
    """The route's path with its names in braces: as a label it must not grow with what is asked."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "other"


def _said(error: web.HTTPException, request: web.Request) -> str:
    """A sentence; not aiohttp's own, which may have a piece of what was sent."""
    if error.status == 404:
        return "there is nothing at this path: GET /docs tells what there is"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{error.method} is not taken here: {', '.join(sorted(error.allowed_methods))} are"
    if error.status == 400 and "Upgrade" in (error.text or ""):
        return "only WebSockets are taken here: `Connection: Upgrade`, `Upgrade: websocket`, version 13"
    return error.reason
