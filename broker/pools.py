"""The pools, one an engine: which exists, which may be waited for, and which has something to hand out.

A name that nobody serves or expects must not create a pool, or typing errors would wait for ever. But a
broker that has just started knows nobody: it waits until workers that were there before could be back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from ..common.errors import BusError, NoWorker, Overloaded, UnknownEngine
from ..common.messages import Accepted, encode
from .affinity import Affinity
from .lanes import Lanes
from .scheduling import Selector
from .tables import Pool

if TYPE_CHECKING:
    from ..common.config import Broker as Settings

SETTLE_S: Final = 5.0
"""A broker that has just started waits so long, at least, before it calls an engine unknown."""
RETRY_AFTER_S: Final = 1.0
MOST_ENGINES: Final = 1000
"""A pool stays for good, and peers name engines as they like: memory and each sweep must not pay for that."""


class Pools:
    """All pools. `expected` names engines that may be waited for before a worker has come."""

    def __init__(
        self, settings: Settings, rand_below: Callable[[int], int], now: float, expected: Iterable[str]
    ) -> None:
        self.by_engine: dict[str, Pool] = {}
        self._settings = settings
        self._rand_below = rand_below
        self._expected = {settings.default_engine, *expected}
        self._dirty: list[Pool] = []
        # A worker that was beating needs up to a whole liveness span to notice a new broker and register.
        self._settled_at = now + max(SETTLE_S, 2 * settings.liveness * settings.heartbeat_interval_s)

    def of(self, engine: str, now: float) -> Pool:
        """The pool of an engine, made if need be."""
        pool = self.by_engine.get(engine)
        if pool is None:
            selector = Selector(self._settings.strategy, self._rand_below)
            queue = Lanes(self._settings.ageing_s)
            affinity = Affinity(self._settings.affinity_wait_s, queue)
            pool = self.by_engine[engine] = Pool(
                engine, selector, queue, affinity, empty_since=now, promise=encode(Accepted(engine))
            )  # fmt: skip
        return pool

    def admit(self, engine: str, now: float) -> Pool:
        """The same for an engine that a peer has named. Raises `Overloaded` where there are too many."""
        if engine not in self.by_engine and len(self.by_engine) >= MOST_ENGINES:
            raise Overloaded(f"this broker knows {MOST_ENGINES:,} engines already, which is all it keeps")
        return self.of(engine, now)

    def choose(self, engine: str, now: float) -> Pool:
        """The pool a job goes to. Raises `UnknownEngine` and `Overloaded`."""
        pool = self.by_engine.get(engine)
        if pool is None or pool.info is None:
            if engine not in self._expected and now >= self._settled_at:
                raise self._unknown(engine)
            return self.admit(engine, now)
        return pool

    def hopeless(self, pool: Pool, now: float) -> BusError | None:
        """Why the jobs of a pool without workers need wait no longer; None while they may."""
        if pool.info is None and pool.engine not in self._expected:
            return self._unknown(pool.engine) if now >= self._settled_at else None
        if now - pool.empty_since < self._settings.no_worker_grace_s:
            return None
        return NoWorker(
            f"no worker serves `{pool.engine}`: start one with `vc-worker {pool.engine}`",
            retry_after_s=RETRY_AFTER_S,
        )

    def waiting(self) -> int:
        """Jobs that wait for a worker, of all engines."""
        return sum(pool.queue.size for pool in self.by_engine.values())

    def next_deadline(self) -> float | None:
        """When a job has waited for its voice long enough."""
        first: float | None = None
        for pool in self.by_engine.values():
            if pool.affinity.held:
                at = pool.affinity.next_deadline()
                if at is not None and (first is None or at < first):
                    first = at
        return first

    def touch(self, pool: Pool) -> None:
        """Note that a job or a credit of this pool has come."""
        if not pool.dirty:
            pool.dirty = True
            self._dirty.append(pool)

    def take_touched(self) -> list[Pool]:
        """The pools touched since the last call."""
        dirty, self._dirty = self._dirty, []
        for pool in dirty:
            pool.dirty = False
        return dirty

    def _unknown(self, engine: str) -> UnknownEngine:
        served = ", ".join(sorted(name for name, pool in self.by_engine.items() if pool.info)) or "none yet"
        return UnknownEngine(f"no worker ever registered the engine `{engine}`; the bus has: {served}")
