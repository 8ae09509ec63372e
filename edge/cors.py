"""Which pages elsewhere may call: those whose origins the operator has named, and no others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from .requests import CORS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
METHODS: Final = "GET, POST, DELETE, OPTIONS"
HEADERS: Final = "Authorization, Content-Type, X-Request-Id, xi-api-key"
EXPOSED: Final = (
    "X-Request-Id, X-Voicebus-Engine, X-Voicebus-Worker, X-Voicebus-First-Audio-Ms, RateLimit, "
    "RateLimit-Policy, "
    "Retry-After"
)
MAX_AGE_S: Final = 600


class Origins:
    """The origins that are let in; "*" is every one."""

    def __init__(self, named: tuple[str, ...]) -> None:
        self._all = "*" in named
        self._named = frozenset(origin.rstrip("/") for origin in named)

    def allow(self, origin: str) -> bool:
        """Whether a page of this origin may call from elsewhere."""
        return self._all or origin in self._named

    def allow_socket(self, request: web.Request) -> bool:
        """Whether a WebSocket may be opened: browsers do not ask first, so it is looked at here."""
        origin = request.headers.get("Origin")
        return origin is None or origin.partition("://")[2] == request.host or self.allow(origin)

    def middleware(self) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
        """Answers a browser's question beforehand, and marks what may be read."""

        @web.middleware
        async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
            origin = request.headers.get("Origin")
            if origin is None or not self.allow(origin):
                return await handler(request)
            # Taken up by `middleware.stamp`, as a streamed answer's headers leave before this returns.
            request[CORS] = {
                "Access-Control-Allow-Origin": origin,
                "Vary": "Origin",
                "Access-Control-Expose-Headers": EXPOSED,
            }
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                return web.Response(
                    status=204,
                    headers={
                        "Access-Control-Allow-Methods": METHODS,
                        "Access-Control-Allow-Headers": HEADERS,
                        "Access-Control-Max-Age": str(MAX_AGE_S),
                    },
                )
            return await handler(request)

        return cors
