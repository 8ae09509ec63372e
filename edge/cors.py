"""Which pages may call: our own, and those elsewhere whose origins the operator has named.

A browser carries any page's requests to a server on this machine. It lets the page read answers only where we
say so, but sends plain ones all the same: so those that do something are refused by where they come from. And
a name that a stranger owns can be made to point here, for whose pages we are then at home: an edge without
keys answers only to names that nobody else can own.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ..common.errors import Forbidden
from .requests import CORS

METHODS: Final = "GET, POST, DELETE, OPTIONS"
HEADERS: Final = "Authorization, Content-Type, X-Request-Id, xi-api-key"
EXPOSED: Final = (
    "X-Request-Id, X-Voicebus-Engine, X-Voicebus-Worker, X-Voicebus-First-Audio-Ms, "
    "RateLimit, RateLimit-Policy, Retry-After"
)
MAX_AGE_S: Final = 600
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2000}")
_READING: Final = ("GET", "HEAD", "OPTIONS")
_LOCAL: Final = (".localhost", ".local", ".internal", ".home.arpa")
"""Of names that no stranger can own."""


class Origins:
    """The origins that are let in, "*" is every one; and the names we go by, None: any."""

    def __init__(self, named: tuple[str, ...], hosts: tuple[str, ...] | None) -> None:
        self._all = "*" in named
        self._named = frozenset(origin.rstrip("/") for origin in named)
        self._hosts = None if hosts is None or "*" in hosts else frozenset(name.lower() for name in hosts)

    def allow(self, origin: str) -> bool:
        """Whether a page of this origin may call from elsewhere."""
        return self._all or origin in self._named

    def check(self, request: web.Request, speaks: bool) -> None:
        """Raise `Forbidden` for what a page elsewhere has no business to do here."""
        if not self._is_ours(request.host):
            raise Forbidden(
                f"this server does not go by the name {request.host[:80]!r}: use its address, or name it in "
                "edge.host_names"
            )
        origin = request.headers.get("Origin")
        if origin is None:
            foreign = request.headers.get("Sec-Fetch-Site") == "cross-site"
        else:
            foreign = origin.partition("://")[2] != request.host and not self.allow(origin)
        acts = request.method not in _READING or speaks or "Upgrade" in request.headers
        if foreign and acts:
            raise Forbidden("a page from elsewhere may not do this: name its origin in edge.cors_origins")

    def _is_ours(self, host: str) -> bool:
        if self._hosts is None:
            return True
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").lower()
        if "." not in name or name.endswith(_LOCAL) or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def middleware(self) -> Middleware:
        """Answers a browser's question beforehand, and marks what may be read."""

        @web.middleware
        async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
            headers = {"Vary": "Origin"} if self._named or self._all else {}
            # Taken up by `middleware.stamp`, as a streamed answer's headers leave before this returns.
            request[CORS] = headers
            origin = request.headers.get("Origin")
            if origin is None or not self.allow(origin):
                return await handler(request)
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = EXPOSED
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                headers["Vary"] = "Origin, Access-Control-Request-Headers"
                # Clients have headers of their own (x-stainless-…): none of them means anything here.
                asked = request.headers.get("Access-Control-Request-Headers", "")
                return web.Response(
                    status=204,
                    headers={
                        "Access-Control-Allow-Methods": METHODS,
                        "Access-Control-Allow-Headers": asked if _HEADER_NAMES.fullmatch(asked) else HEADERS,
                        "Access-Control-Max-Age": str(MAX_AGE_S),
                    },
                )
            return await handler(request)

        return cors
