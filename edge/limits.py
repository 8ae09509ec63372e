"""How much the edge takes: requests of one address, of one key, of all, how many at once; and a key's text.

The windows are throttled-py's, in this process's memory or in a Redis that several edges share. An address
has a sliding window, which is what a person means by "a hundred a minute"; all together have a token bucket,
which lets a burst through and then evens out, and so have a key's characters, over a day. What is refused by
a narrow limit costs nothing of a wider one. While Redis does not answer, each edge counts for itself: limits
that are too wide for a while do less harm than an edge that refuses everybody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from throttled.asyncio import BaseStore, MemoryStore, RateLimiterType, RedisStore, Throttled, rate_limiter

from ..common.errors import Overloaded, RateLimited, TextTooLong

if TYPE_CHECKING:
    from ..common.config import Edge
    from .keys import Caller

log = logging.getLogger(__name__)

ADDRESSES: Final = 100_000
"""Addresses whose windows are kept in memory; more push out the least recently seen."""
KEYS: Final = 50_000
"""Places for keys' windows, several for each: strangers' addresses must not push these out."""
MINUTE_S: Final = 60
DAY_S: Final = 86_400
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
    window_s: int = MINUTE_S


class OverLimit(RateLimited):
    """A limit that is used up."""

    def __init__(self, message: str, retry_after_s: float, share: Share) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.share = share


class _Windows:
    """All windows, those of keys in a store of their own where it is bounded."""

    def __init__(self, store: BaseStore, of_keys: BaseStore, edge: Edge) -> None:
        self._store = store
        self._of_keys = of_keys
        self._address = self._window("address", edge.ip_rpm, store)
        self._all = Throttled(
            using=RateLimiterType.TOKEN_BUCKET.value,
            quota=rate_limiter.per_min(edge.global_rpm),
            store=store,
            key_prefix="voicebus:all",
        )
        self._keys: dict[int, Throttled] = {}
        self._characters: dict[int, Throttled] = {}

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
            window = self._keys[key_rpm] = self._window("key", key_rpm, self._of_keys)
        return await _count("key", window, key)

    async def count_characters(self, key: str, characters: int, per_day: int) -> Share:
        """Count a key's text. Raises `OverLimit`."""
        bucket = self._characters.get(per_day)
        if bucket is None:
            # No sliding window: throttled-py counts a refused text in one that has just begun.
            bucket = self._characters[per_day] = Throttled(
                using=RateLimiterType.TOKEN_BUCKET.value,
                quota=rate_limiter.per_day(per_day),
                store=self._of_keys,
                key_prefix="voicebus:characters",
            )
        result = await bucket.limit(key, characters)
        state = result.state
        share = Share("characters", state.limit, state.remaining, round(state.reset_after), DAY_S)
        if result.limited:
            raise OverLimit(
                f"this API key may have {per_day:,} characters spoken a day: {state.remaining:,} are left, "
                f"this text has {characters:,}",
                state.retry_after,
                share,
            )
        return share

    def _window(self, name: str, rpm: int, store: BaseStore) -> Throttled:
        return Throttled(
            using=RateLimiterType.SLIDING_WINDOW.value,
            quota=rate_limiter.per_min(rpm),
            store=store,
            key_prefix=f"voicebus:{name}",
        )


class Limits:
    """All of them."""

    def __init__(self, edge: Edge) -> None:
        self._own = _Windows(_memory(ADDRESSES), _memory(KEYS), edge)
        redis = None if edge.redis is None else _redis(edge.redis)
        self._shared = None if redis is None else _Windows(redis, redis, edge)
        self._given_back: dict[str, tuple[int, float]] = {}
        "Characters of keys that were paid for and not spoken, and when."
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

    async def pay(self, caller: Caller, characters: int) -> None:
        """Count a text that is about to be spoken. Raises `OverLimit`, or `TextTooLong` for one of days."""
        per_day = caller.chars_per_day
        if per_day is None:
            return
        if characters > per_day:
            raise TextTooLong(
                f"this API key may have {per_day:,} characters spoken a day, this text has {characters:,}"
            )
        left, at = self._given_back.pop(caller.key, (0, 0.0))
        if monotonic() - at > DAY_S:
            left = 0
        spent = min(left, characters)
        try:
            if spent < characters:
                due = characters - spent
                await self._counted(lambda windows: windows.count_characters(caller.key, due, per_day))
        except BaseException:
            spent = 0
            raise
        finally:
            if left > spent:
                self.give_back(caller, left - spent)

    def give_back(self, caller: Caller, characters: int) -> None:
        """What was paid for was not spoken: the key's next text is cheaper by so much."""
        if caller.chars_per_day is not None:
            left, _ = self._given_back.get(caller.key, (0, 0.0))
            self._given_back[caller.key] = min(left + characters, caller.chars_per_day), monotonic()

    async def admit_key(self, key: str, key_rpm: int | None) -> None:
        """Count a request whose key is known only now; its address was counted. Raises `OverLimit`."""
        if key_rpm is not None:
            await self._counted(lambda windows: windows.count_key(key, key_rpm))

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
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


def _memory(most: int) -> MemoryStore:
    return MemoryStore(options={"MAX_SIZE": most})


def _redis(url: str) -> RedisStore:
    options: dict[str, Any] = {
        "CONNECTION_POOL_KWARGS": {
            "socket_connect_timeout": REDIS_TIMEOUT_S,
            "socket_timeout": REDIS_TIMEOUT_S,
        }
    }
    return RedisStore(server=url, options=options)
