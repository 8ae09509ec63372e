"""The edge put together: which routes, behind which middleware, on which sockets.

It is only another client of the bus. Everything it holds (the client, limits, figures, the watcher) is made
here and handed down, so that a test can make an edge of its own in the same process as another.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import warnings
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import BadContentDispositionHeader, BadContentDispositionParam, web

from ..client import Client
from ..common.audit import Audit
from ..common.errors import ConfigError
from ..common.voices import VoiceStore
from .addresses import is_trusted, networks
from .cors import Origins
from .elevenlabs import ElevenLabs
from .elevenlabs_socket import StreamInput
from .guard import Gate, guarding
from .headers import common_headers
from .jobs import Works
from .jobs_api import JobsApi
from .keys import Keys
from .limits import Limits
from .malformed import Handler
from .metrics import Figures
from .middleware import Middleware, expected
from .news import News
from .openai import OpenAi
from .operation import Operation
from .page import page_routes
from .problems import Shape
from .requests import BODIES, BODY_TIMEOUT_S, Bodies
from .routes import Route
from .service import Service
from .sillytavern import SillyTavern
from .status_socket import StatusSocket, Watcher
from .tls import certificate_of, serving
from .voices_api import VoicesApi

if TYPE_CHECKING:
    from ..client import AsyncClient
    from ..common.config import Config
    from ..common.keyring import KeyFile

SHUTDOWN_S: Final = 30.0
BODIES_AT_ONCE: Final = 32
"""Of the largest size: 256 MiB as it is set."""
OPTIONS: Final[Mapping[str, Any]] = {
    "access_log": None,
    "max_line_size": 8190,
    "max_field_size": 8190,
    "max_headers": 64,
    "keepalive_timeout": 75.0,
    "lingering_time": 2.0,
    "auto_decompress": False,
}
"""Of aiohttp's protocol. It lingers so that a client can read why its body is not taken; and it unpacks
nothing, since no client packs what it asks for."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where an edge listens."""

    http: str
    wyoming: str | None = None


class Server:
    """One edge. `brokers` are the addresses that `client` talks to, `key` what it shows them."""

    def __init__(
        self, config: Config, client: AsyncClient, brokers: list[str], key: KeyFile | None = None
    ) -> None:
        edge = config.edge
        self._config = config
        # It warns of subprotocols that are not known, and a browser's key is one.
        logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
        for category in (BadContentDispositionHeader, BadContentDispositionParam):
            # Python prints and keeps for ever every text that it was warned of, and these are strangers'.
            warnings.simplefilter("ignore", category)
        self._certificate = certificate_of(edge.certificate, edge.certificate_key)
        self._headers = common_headers(edge)
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
            lambda tenant: Client(brokers, tenant=tenant, key=key),
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
        middleware = Middleware(self, self._headers)
        app = web.Application(middlewares=middleware.all(), client_max_size=edge.max_body_bytes)
        app[BODY_TIMEOUT_S] = edge.body_timeout_s
        app[BODIES] = Bodies(BODIES_AT_ONCE * edge.max_body_bytes)
        for route in self.routes:
            if route.method == "GET":
                head = not (route.speaks or route.streams)
                app.router.add_get(route.path, route.handler, allow_head=head, expect_handler=expected)
            else:
                app.router.add_route(route.method, route.path, route.handler, expect_handler=expected)
        app.router.add_routes(page_routes())
        app.on_response_prepare.append(middleware.stamp)
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
    async def listening(self) -> AsyncGenerator[Addresses]:
        """Serve while the block runs. Raises `ConfigError` where an address cannot be had."""
        edge = self._config.edge
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(self._works.take_up, asyncio.get_running_loop())
            stack.push_async_callback(asyncio.to_thread, self._works.close)
            runner = web.AppRunner(
                self.application(),
                handler_cancellation=True,  # a client that goes away takes its job along
                shutdown_timeout=SHUTDOWN_S,
                **OPTIONS,
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            try:
                address = await stack.enter_async_context(self._doors(runner))
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
            scheme = "http" if self._certificate is None else "https"
            yield Addresses(f"{scheme}://{_shown(address)}", wyoming)

    @asynccontextmanager
    async def _doors(self, runner: web.AppRunner) -> AsyncGenerator[tuple[str, int]]:
        """Take connections while the block runs; gives the first address. Raises `OSError`."""
        edge, gate, loop = self._config.edge, self._gate, asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            if runner.server is None:
                raise RuntimeError("the runner is not set up")
            return Handler(runner.server, self._headers, loop=loop, **OPTIONS)

        def admitted(address: str | None) -> Callable[[], asyncio.Protocol]:
            return guarding(protocol, gate, edge.header_timeout_s, edge.stall_timeout_s, address)

        if self._certificate is not None:
            secure = serving(admitted, gate, self._certificate, edge.host, edge.port, edge.header_timeout_s)
            async with secure as address:
                yield address
            return
        server = await loop.create_server(admitted(None), edge.host, edge.port)
        try:
            name = server.sockets[0].getsockname()
            yield str(name[0]), int(name[1])
        finally:
            server.close()


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
