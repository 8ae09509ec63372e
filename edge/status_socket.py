"""`/ws/status`: what the bus does, pushed to whoever watches it, when something has changed.

One watcher asks the broker for all of them, and only while there are any. A subscriber has one place for the
status and a short row of events, and no queue: who reads slower than news come sees the latest and not all,
and one whose socket takes nothing for seconds is cut off. Everybody hears whether the bus would speak, and of
their own tenant's speech and jobs; workers and figures are for keys that may operate.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from ..common.errors import BusError, Overloaded, Unauthorized
from .addresses import bucket
from .news import Happening, News
from .requests import ADDRESS, CALLER
from .routes import Route
from .service import engines_of

if TYPE_CHECKING:
    from .keys import Caller, Keys
    from .service import Service

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25
RATE_OVER_S: Final = 5.0
LEAST_APART_S: Final = 0.1
HEARTBEAT_S: Final = 15.0
STALL_S: Final = 5.0
MAX_MESSAGE_BYTES: Final = 4096
MAX_SUBSCRIBERS: Final = 200
MAX_OF_ADDRESS: Final = 50
"""So that one client cannot keep all others from watching."""
SUBPROTOCOL: Final = "voicebus.status"
EVENTS_KEPT: Final = 100


class Status(NamedTuple):
    """What is sent: to whoever may operate, and to everybody else."""

    full: bytes
    little: bytes


class Subscriber:
    """One socket's place for news of the bus, and of what is its tenant's."""

    def __init__(self, caller: Caller) -> None:
        self._tenant = caller.tenant
        self._operates = "operate" in caller.scopes
        self._status: bytes | None = None
        self._events: deque[Happening] = deque(maxlen=EVENTS_KEPT)
        self._there = asyncio.Event()

    def put(self, status: Status) -> None:
        """The latest status; one that was not taken yet is forgotten."""
        self._status = status.full if self._operates else status.little
        self._there.set()

    def happened(self, tenant: str, happening: Happening) -> None:
        """An event of some tenant; the oldest of too many are forgotten."""
        if tenant == self._tenant:
            self._events.append(happening)
            self._there.set()

    async def get(self) -> list[bytes]:
        """Wait for news; returns all there are."""
        await self._there.wait()
        self._there.clear()
        news = [] if self._status is None else [self._status]
        self._status = None
        if self._events:
            news.append(msgspec.json.encode({"type": "events", "events": list(self._events)}))
            self._events.clear()
        return news


class Watcher:
    """Looks at the bus while anybody watches."""

    def __init__(self, service: Service, news: News) -> None:
        self._service = service
        self._news = news
        self._subscribers: set[Subscriber] = set()
        self._task: asyncio.Task[None] | None = None
        self._last: Status | None = None

    def join(self, subscriber: Subscriber) -> None:
        """Tell this one from now on, beginning with how things are."""
        self._subscribers.add(subscriber)
        self._news.listen(subscriber.happened)
        if self._last is not None:
            subscriber.put(self._last)
        if self._task is None:
            self._task = asyncio.create_task(self._watch())

    def leave(self, subscriber: Subscriber) -> None:
        """Tell it no more."""
        self._subscribers.discard(subscriber)
        self._news.forget(subscriber.happened)
        if not self._subscribers and self._task is not None:
            self._task.cancel()
            self._task = None
            self._last = None

    @property
    def is_full(self) -> bool:
        """Whether no more may watch."""
        return len(self._subscribers) >= MAX_SUBSCRIBERS

    async def _watch(self) -> None:
        rates = Rates()
        while True:
            try:
                news = await self._look(rates)
            except Exception:
                log.exception("the bus could not be looked at")
                news = self._last
            if news is not None and news != self._last:
                self._last = news
                for subscriber in self._subscribers:
                    subscriber.put(news)
            await asyncio.sleep(LOOK_S)

    async def _look(self, rates: Rates) -> Status:
        try:
            status = await self._service.status()
        except BusError as error:
            # The page says so, and goes on by itself when the broker is back.
            told = {"code": error.code, "message": error.message}
            full: dict[str, Any] = {"type": "status", "error": told, "workers": []}
            return Status(msgspec.json.encode(full), _little(ready=False))
        full = {**shown(status), "jobs_per_s": rates.add(monotonic(), status)}
        return Status(msgspec.json.encode(full), _little(ready=bool(status.get("workers"))))


class Rates:
    """Jobs that ended in a second, over the last few."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, status: Mapping[str, Any]) -> float:
        """Note a status; returns the rate."""
        totals: Mapping[str, int] = status.get("totals") or {}
        ended = sum(totals.get(name, 0) for name in ("done", "failed", "cancelled"))
        if self._seen and ended < self._seen[-1][1]:
            self._seen.clear()  # another broker, or the same one anew
        self._seen.append((now, ended))
        while now - self._seen[0][0] > RATE_OVER_S and len(self._seen) > 2:
            self._seen.popleft()
        seconds = now - self._seen[0][0]
        return round((ended - self._seen[0][1]) / seconds, 1) if seconds > 0 else 0.0


def shown(status: Mapping[str, Any]) -> dict[str, Any]:
    """What a watcher sees. Nothing in it moves while nothing happens."""
    workers: list[Mapping[str, Any]] = status.get("workers") or []
    return {
        "type": "status",
        "broker": status.get("broker", ""),
        "draining": status.get("draining", False),
        "default_engine": status.get("default_engine", ""),
        "jobs": status.get("jobs") or {},
        "totals": status.get("totals") or {},
        "engines": {
            name: {key: engine.get(key) for key in ("queued", "workers", "slots", "languages")}
            for name, engine in engines_of(status).items()
        },
        "workers": [
            {
                key: worker.get(key)
                for key in ("id", "engine", "state", "slots", "open", "jobs_done", "warm_voices")
            }
            for worker in workers
        ],
    }


def _little(*, ready: bool) -> bytes:
    """Whether the bus would speak, and nothing of how."""
    return msgspec.json.encode({"type": "status", "ready": ready})


class StatusSocket:
    """The handler."""

    def __init__(self, watcher: Watcher, keys: Keys) -> None:
        self._watcher = watcher
        self._keys = keys
        self._of_address: Counter[str] = Counter()
        self._open: set[web.WebSocketResponse] = set()

    def routes(self) -> tuple[Route, ...]:
        """What this module answers to."""
        return (
            Route(
                "GET",
                "/ws/status",
                self.serve,
                "Watch the bus",
                "Operation",
                (),
                streams=True,
                described=False,
            ),
        )

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """GET /ws/status."""
        whose = bucket(request[ADDRESS])
        if self._watcher.is_full or self._of_address[whose] >= MAX_OF_ADDRESS:
            raise Overloaded("as many watch already as this server takes", retry_after_s=30)
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES, protocols=(SUBPROTOCOL,), compress=False
        )
        await socket.prepare(request)
        self._open.add(socket)
        self._of_address[whose] += 1
        subscriber = Subscriber(request[CALLER])
        self._watcher.join(subscriber)
        sending = asyncio.create_task(self._send(socket, subscriber, request))
        try:
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            self._open.discard(socket)
            self._of_address[whose] -= 1
            if not self._of_address[whose]:
                del self._of_address[whose]
            self._watcher.leave(subscriber)
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
        return socket

    async def close(self, _app: web.Application) -> None:
        """The edge leaves: whoever watches is told, and comes again elsewhere."""
        for socket in tuple(self._open):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def _send(
        self, socket: web.WebSocketResponse, subscriber: Subscriber, request: web.Request
    ) -> None:
        while True:
            news = await subscriber.get()
            try:
                self._keys.still(request[CALLER])
                async with asyncio.timeout(STALL_S):
                    for told in news:
                        await socket.send_str(told.decode())
            except Unauthorized as error:
                await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=error.message.encode())
                return
            except TimeoutError:
                log.info("a watcher at %s read nothing for %g s and is cut off", request[ADDRESS], STALL_S)
                if request.transport is not None:
                    request.transport.abort()
                return
            except ConnectionError:
                return
            await asyncio.sleep(LEAST_APART_S)
