"""What operators ask of an edge: is it alive, is it ready, how is it doing, and what does it answer to."""

from __future__ import annotations

import importlib.metadata
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web
from msgspec import Struct

from ..common.errors import BrokerUnreachable, BusError, KeyRefused, NoWorker
from .docs_page import POLICY as DOCS_POLICY
from .docs_page import docs_page
from .metrics import MEDIA_TYPE, Figures
from .openapi import document
from .requests import CALLER
from .respond import respond
from .routes import JSON, Answer, Route
from .service import engines_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .service import Service

log = logging.getLogger(__name__)
READY_FOR_S: Final = 1.0


class Alive(Struct, frozen=True):
    """This process answers."""

    status: str = "ok"


class Ready(Struct, frozen=True, omit_defaults=True):
    """A request to speak would be spoken."""

    status: str
    broker: str = ""
    engines: list[str] = []


class Operation:
    """The handlers. `describe` is called once, when all routes are known."""

    def __init__(self, service: Service, figures: Figures) -> None:
        self._service = service
        self._figures = figures
        self._document = b""
        self._docs = b""

    def routes(self) -> tuple[Route, ...]:
        """What this module answers to."""
        open_: dict[str, Any] = {"counted": False, "door": "open"}
        return (
            Route(
                "GET",
                "/livez",
                self.livez,
                "Is it alive?",
                "Operation",
                (Answer("Yes.", (JSON,), Alive),),
                **open_,
            ),
            Route(
                "GET",
                "/readyz",
                self.readyz,
                "Would it speak?",
                "Operation",
                (Answer("Yes.", (JSON,), Ready),),
                (BrokerUnreachable, NoWorker),
                about="A key with the scope is told which broker and engines.",
                scope="operate",
                **open_,
            ),
            Route(
                "GET",
                "/metrics",
                self.metrics,
                "Prometheus's figures",
                "Operation",
                (Answer("Figures.", (MEDIA_TYPE.partition(";")[0],)),),
                counted=False,
                scope="operate",
            ),
            Route(
                "GET",
                "/openapi.json",
                self.openapi,
                "This description",
                "Operation",
                (Answer("OpenAPI 3.1.", (JSON,), dict[str, Any]),),
                **open_,
            ),
            Route(
                "GET",
                "/docs",
                self.docs,
                "This, to read",
                "Operation",
                (Answer("HTML.", ("text/html",)),),
                **open_,
            ),
        )

    def describe(self, routes: Iterable[Route]) -> None:
        """Make the description of everything that is served."""
        made = document(routes, importlib.metadata.version("voicebus"))
        self._document = msgspec.json.encode(made)
        self._docs = docs_page(made).encode()

    async def livez(self, request: web.Request) -> web.Response:
        """GET /livez."""
        return respond(Alive())

    async def readyz(self, request: web.Request) -> web.Response:
        """GET /readyz."""
        knows = "operate" in request[CALLER].scopes
        try:
            status = await self._service.status(READY_FOR_S)
        except KeyRefused as error:
            log.warning("%s", error)
            raise BrokerUnreachable("the broker does not let this edge in: its log has more") from None
        except BusError:
            if knows:
                raise
            raise BrokerUnreachable("the broker does not answer") from None
        engines = [name for name, engine in engines_of(status).items() if engine.get("workers")]
        if not engines:
            raise NoWorker("the broker answers, but no worker is connected to it")
        return respond(Ready("ok", str(status.get("broker", "")), sorted(engines)) if knows else Ready("ok"))

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics."""
        try:
            status = await self._service.status(READY_FOR_S)
        except BusError:
            status = None
        return web.Response(body=self._figures.text(status), headers={"Content-Type": MEDIA_TYPE})

    async def openapi(self, request: web.Request) -> web.Response:
        """GET /openapi.json."""
        return web.Response(body=self._document, content_type=JSON)

    async def docs(self, request: web.Request) -> web.Response:
        """GET /docs."""
        headers = {"Content-Security-Policy": DOCS_POLICY}
        return web.Response(body=self._docs, content_type="text/html", charset="utf-8", headers=headers)
