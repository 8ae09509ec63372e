"""What the brokers counted, over all their lives: read before each kill and at the end.

A broker that is killed forgets its totals; they are asked for just before. What it counts in the blink
between is missed, so these numbers are a description, not an account.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from voicebus.client import Client
from voicebus.common.errors import BusError


class Totals:
    """Sums over lives of brokers."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.unread = 0
        "Lives whose totals could not be read."

    def add(self, frontend: str) -> None:
        """Add what the broker at this address has counted since its start."""
        try:
            with Client(frontend, connect_timeout_s=5.0) as client:
                status: dict[str, Any] = client.status()
        except BusError:
            self.unread += 1
            return
        self.totals.update(status["totals"])
        self.failures.update(status["failures"])
