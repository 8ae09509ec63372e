"""What may come in: how many jobs, how many bytes, and how long to stay away when there is no room.

Everything the broker holds is bounded here, at the door: queues grow in nobody's memory but ours, and a
transport's high-water mark counts messages, not bytes. A refusal says when to come back: as long as the bus
needs, at its present pace, to end what is too much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..common.errors import Overloaded
from ..common.messages import Submit
from ..common.wire import MAX_BUDGET_MS
from .ledger import Ledger
from .tables import Client

if TYPE_CHECKING:
    from ..common.config import Broker as Settings

SOONEST_S: Final = 0.1
LATEST_S: Final = 30.0
_SMOOTHING: Final = 0.2


class Admission:
    """The broker's limits against its ledger."""

    def __init__(self, settings: Settings, ledger: Ledger, now: float) -> None:
        self._settings = settings
        self._max_jobs = settings.max_jobs
        self._max_jobs_per_client = settings.max_jobs_per_client
        self._max_bytes = settings.max_queued_bytes
        self._max_bytes_per_client = settings.max_queued_bytes_per_client
        self._ledger = ledger
        self._pace = 0.0
        "Jobs that end in a second, smoothed."
        self._ended = 0
        self._measured_at = now

    def check(self, client: Client, size_bytes: int) -> None:
        """Raise `Overloaded` unless a job of this size may be taken from this client."""
        ledger = self._ledger
        if len(ledger.jobs) >= self._max_jobs:
            raise self._refusal(f"the bus holds {len(ledger.jobs):,} jobs, as many as it may")
        if len(client.jobs) >= self._max_jobs_per_client:
            raise self._refusal(f"{len(client.jobs):,} jobs of this client are open, as many as may be")
        if ledger.size_bytes + size_bytes > self._max_bytes:
            raise self._refusal(f"the bus holds {ledger.size_bytes:,} bytes of jobs, as many as it may")
        if client.size_bytes + size_bytes > self._max_bytes_per_client:
            raise self._refusal(f"{client.size_bytes:,} bytes of this client's jobs are open")

    def budget_s(self, submit: Submit, budget_ms: int) -> float:
        """How long a job may take: what it says, within a day, or the default of its kind."""
        if budget_ms:
            return min(budget_ms, MAX_BUDGET_MS) / 1000
        return self._settings.durable_deadline_s if submit.durable else self._settings.default_deadline_s

    def sweep(self, now: float) -> None:
        """Measure the pace."""
        totals = self._ledger.totals
        ended = totals["done"] + totals["failed"] + totals["cancelled"]
        elapsed_s = now - self._measured_at
        if elapsed_s > 0:
            pace = (ended - self._ended) / elapsed_s
            self._pace += _SMOOTHING * (pace - self._pace)
            self._ended, self._measured_at = ended, now

    def _refusal(self, why: str) -> Overloaded:
        # A twentieth of what is there: by then there is room for more than the one that asks.
        wait_s = len(self._ledger.jobs) / 20 / self._pace if self._pace > 0 else 1.0
        return Overloaded(why, retry_after_s=round(min(LATEST_S, max(SOONEST_S, wait_s)), 2))
