"""How many requests the edge takes: of one address, of one key, of all, and how many at once.

The windows are throttled-py's, in this process's memory or in a Redis that several edges share. An address
has a sliding window, which is what a person means by "a hundred a minute"; all together have a token bucket,
which lets a burst through and then evens out. What is refused by a narrow limit costs nothing of a wider one.
While Redis does not answer, each edge counts for itself: limits that are too wide for a while do less harm
than an edge that refuses everybody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from throttled.asyncio import BaseStore, MemoryStore, RateLimiterType, RedisStore, Throttled, rate_limiter

from ..common.errors import Overloaded, RateLimited

if TYPE_CHECKING:
    from ..common.config import Edge

log = logging.getLogger(__name__)

ADDRESSES: Final = 100_000
"""Addresses whose windows are kept in memory; more push out the least recently seen."""
COME_AGAIN_S: Final = 1.0
REDIS_TIMEOUT_S: Final = 0.5
REDIS_REST_S: Final = 5.0
"""How long a Redis that has failed is not asked again."""


@dataclass(frozen=True, slots=True)
class Share:
    """What is left of the narrowest limit that a request counts against."""

    name: str
    limit: int
    remaining: int
    reset_s: int


class OverLimit(RateLimited):
    """A limit that is used up."""

    def __init__(self, message: str, retry_after_s: float, share: Share) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.share = share


class _Windows:
    """All windows in one store."""

    def __init__(self, store: BaseStore, edge: Edge) -> None:
        self._store = store
        self._address = self._window("address", edge.ip_rpm)
        self._all = Throttled(
            using=RateLimiterType.TOKEN_BUCKET.value,
            quota=rate_limiter.per_min(edge.global_rpm),
            store=store,
            key_prefix="voicebus:all",
        )
        self._keys: dict[int, Throttled] = {}

    async def count(self, address: str, key: str, key_rpm: int | None) -> Share:
        """Count a request. Raises `OverLimit`."""
        share = await _count("address", self._address, address)
        if key_rpm is not None:
            share = min(share, await self.count_key(key, key_rpm), key=lambda share: share.remaining)
        await _count("all", self._all, "all")
        return share

    async def count_key(self, key: str, key_rpm: int) -> Share:
        """Count a request of a key, and of nobody else. Raises `OverLimit`."""
        window = self._keys.get(key_rpm)
        if window is None:
            window = self._keys[key_rpm] = self._window("key", key_rpm)
        return await _count("key", window, key)

    def _window(self, name: str, rpm: int) -> Throttled:
        return Throttled(
            using=RateLimiterType.SLIDING_WINDOW.value,
            quota=rate_limiter.per_min(rpm),
            store=self._store,
            key_prefix=f"voicebus:{name}",
        )


class Limits:
    """All of them."""

    def __init__(self, edge: Edge) -> None:
        self._own = _Windows(MemoryStore(options={"MAX_SIZE": ADDRESSES}), edge)
        self._shared = None if edge.redis is None else _Windows(_redis(edge.redis), edge)
        self._shared_again_at = 0.0
        self._places = edge.concurrency
        self.busy = 0

    async def admit(self, address: str, key: str = "", key_rpm: int | None = None) -> Share:
        """Count a request. Raises `OverLimit`, which says when there is room again."""
        return await self._counted(lambda windows: windows.count(address, key, key_rpm))

    async def _counted(self, count: Callable[[_Windows], Awaitable[Share]]) -> Share:
        if self._shared is not None and monotonic() >= self._shared_again_at:
            try:
                async with asyncio.timeout(REDIS_TIMEOUT_S):
                    return await count(self._shared)
            except RateLimited:
                raise
            except Exception as error:  # whatever redis-py raises, and its timeouts
                self._shared_again_at = monotonic() + REDIS_REST_S
                log.warning("Redis does not answer, this edge counts for itself: %s", error)
        return await count(self._own)

    async def admit_key(self, key: str, key_rpm: int | None) -> None:
        """Count a request whose key is known only now; its address was counted. Raises `OverLimit`."""
        if key_rpm is not None:
            await self._counted(lambda windows: windows.count_key(key, key_rpm))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """One of the places for what is done at once. Raises `Overloaded` where all are taken."""
        if self.busy >= self._places:
            raise Overloaded(
                f"{self._places} requests are being spoken at once, which is all this server takes",
                retry_after_s=COME_AGAIN_S,
            )
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1


async def _count(name: str, window: Throttled, key: str) -> Share:
    result = await window.limit(key)
    state = result.state
    share = Share(name, state.limit, state.remaining, round(state.reset_after))
    if result.limited:
        whose = "in all" if name == "all" else f"from one {name}"
        raise OverLimit(f"more than {state.limit} requests in a minute {whose}", state.retry_after, share)
    return share


def _redis(url: str) -> RedisStore:
    options: dict[str, Any] = {
        "CONNECTION_POOL_KWARGS": {
            "socket_connect_timeout": REDIS_TIMEOUT_S,
            "socket_timeout": REDIS_TIMEOUT_S,
        }
    }
    return RedisStore(server=url, options=options)
