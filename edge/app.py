"""The edge put together: which routes, behind which middleware, on which sockets.

It is only another client of the bus. Everything it holds (the client, limits, figures, the watcher) is made
here and handed down, so that a test can make an edge of its own in the same process as another.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from ..client import Client
from ..common.audit import Audit
from ..common.errors import ConfigError
from ..common.voices import VoiceStore
from .addresses import is_trusted, networks
from .cors import Origins
from .elevenlabs import ElevenLabs
from .elevenlabs_socket import StreamInput
from .guard import Gate, guarding
from .jobs import Works
from .jobs_api import JobsApi
from .keys import Keys
from .limits import Limits
from .metrics import Figures
from .middleware import Middleware, stamp
from .news import News
from .openai import OpenAi
from .operation import Operation
from .page import page_routes
from .problems import Shape
from .requests import BODY_TIMEOUT_S
from .routes import Route
from .service import Service
from .sillytavern import SillyTavern
from .status_socket import StatusSocket, Watcher
from .voices_api import VoicesApi

if TYPE_CHECKING:
    from ..client import AsyncClient
    from ..common.config import Config

SHUTDOWN_S: Final = 30.0
MAX_LINE_BYTES: Final = 8190
MAX_HEADERS: Final = 64
KEEPALIVE_S: Final = 75.0
LINGER_S: Final = 2.0
"""For a client to read why its body is not taken, before the connection ends."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where an edge listens."""

    http: str
    wyoming: str | None = None


class Server:
    """One edge. `brokers` are the addresses that `client` talks to."""

    def __init__(self, config: Config, client: AsyncClient, brokers: list[str]) -> None:
        edge = config.edge
        self._config = config
        self._secure = _secure(edge.certificate, edge.certificate_key)
        self.trusted = networks(edge.trusted_proxies)
        self.limits = Limits(edge)
        self.figures = Figures()
        self.keys = Keys(edge)
        self.origins = Origins(edge.cors_origins, edge.host_names if edge.api_keys is None else None)
        self._gate = Gate(
            edge.max_connections,
            edge.max_connections_per_ip,
            lambda address: is_trusted(address, self.trusted),
        )
        self._news = News()
        self._store = VoiceStore(config.voices.path, cache_dir=config.voices.cache_dir)
        self._service = Service(client, self._store, edge, self._news, self.limits)
        self._works = Works(
            Path(edge.jobs),
            lambda tenant: Client(brokers, tenant=tenant),
            self._news,
            most=edge.max_jobs,
            keep_s=edge.keep_jobs_s,
        )
        self._news.listen(self.figures.happened)
        self._status_socket = StatusSocket(Watcher(self._service, self._news), self.keys)
        operation = Operation(self._service, self.figures)
        self.routes: tuple[Route, ...] = (
            *OpenAi(self._service, edge.default_models).routes(),
            *VoicesApi(self._store, edge, Audit(config.security.audit)).routes(),
            *JobsApi(self._works, self._service, edge, self.limits).routes(),
            *ElevenLabs(self._service).routes(),
            *StreamInput(self._service, self.keys, self.limits).routes(),
            *SillyTavern(self._service).routes(),
            *self._status_socket.routes(),
            *operation.routes(),
        )
        operation.describe(self.routes)
        self._by_place = {(route.method, route.path): route for route in self.routes}

    def application(self) -> web.Application:
        """The aiohttp application."""
        edge = self._config.edge
        app = web.Application(middlewares=Middleware(self).all(), client_max_size=edge.max_body_bytes)
        app[BODY_TIMEOUT_S] = edge.body_timeout_s
        for route in self.routes:
            if route.method == "GET":
                app.router.add_get(route.path, route.handler, allow_head=not (route.speaks or route.streams))
            else:
                app.router.add_route(route.method, route.path, route.handler)
        app.router.add_routes(page_routes())
        app.on_response_prepare.append(stamp)
        app.on_shutdown.append(self._status_socket.close)
        return app

    def route_of(self, request: web.Request) -> Route | None:
        """The table's entry for a request; None for the page and what is not there."""
        resource = request.match_info.route.resource
        if resource is None:
            return None
        method = "GET" if request.method == "HEAD" else request.method
        return self._by_place.get((method, resource.canonical))

    def shape_of(self, request: web.Request) -> Shape:
        """How errors are told to the clients of this route."""
        route = self.route_of(request)
        return "problem" if route is None else route.shape

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Addresses]:
        """Serve while the block runs. Raises `ConfigError` where an address cannot be had."""
        edge = self._config.edge
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(self._works.take_up, asyncio.get_running_loop())
            stack.push_async_callback(asyncio.to_thread, self._works.close)
            runner = web.AppRunner(
                self.application(),
                handler_cancellation=True,  # a client that goes away takes its job along
                access_log=None,
                max_line_size=MAX_LINE_BYTES,
                max_field_size=MAX_LINE_BYTES,
                max_headers=MAX_HEADERS,
                keepalive_timeout=KEEPALIVE_S,
                shutdown_timeout=SHUTDOWN_S,
                lingering_time=LINGER_S,
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            factory = guarding(_protocols(runner), self._gate, edge.header_timeout_s, edge.stall_timeout_s)
            try:
                server = await asyncio.get_running_loop().create_server(
                    factory,
                    edge.host,
                    edge.port,
                    ssl=self._secure,
                    ssl_handshake_timeout=edge.header_timeout_s if self._secure else None,
                )
                stack.callback(server.close)
                wyoming = None
                if edge.wyoming_port is not None:
                    from .wyoming import house

                    version = importlib.metadata.version("voicebus")
                    wyoming = await stack.enter_async_context(
                        house(self._service, edge.host, edge.wyoming_port, version, edge.stall_timeout_s)
                    )
            except OSError as error:
                raise ConfigError(
                    f"cannot listen on {edge.host}:{edge.port}: {error.strerror}; is another edge running? "
                    "--port chooses another one"
                ) from None
            scheme = "http" if self._secure is None else "https"
            yield Addresses(f"{scheme}://{_shown(server.sockets[0].getsockname())}", wyoming)


def _protocols(runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
    if runner.server is None:
        raise RuntimeError("the runner is not set up")
    return runner.server


def _secure(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"edge.certificate {certificate} cannot be used: {error}") from None
    return context


def _shown(name: Any) -> str:
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
