"""What kind of history a seed makes: how many take part, how fast they are, and what goes wrong how often.

Each draw here is coarse on purpose. A bug shows where several unlikely things meet, so a history has either
none of a fault, some, or a great deal of it, and different histories have different mixtures.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import inf

from voicebus.common.config import Broker as Settings
from voicebus.workers.links import Timing

ENGINE = "tone"
INTERVAL_S = 1.0
PROCESS_FAULTS = (
    "broker crash", "broker pause", "broker drain", "broker disk lost", "agent crash", "agent pause",
    "agent drain", "agent leaves at once", "admin drain", "engine crash", "engine pause", "client crash",
    "client pause", "cut", "half-open", "partition", "clock jump", "disk full",
)  # fmt: skip
MESSAGE_FAULTS = ("drop", "delay", "duplicate", "replay")


@dataclass(frozen=True, slots=True)
class Plan:
    """One history, before anything has happened."""

    brokers: int
    workers: int
    slots: tuple[int, ...]
    batches: tuple[int, ...]
    "How many jobs each worker's engines speak together."
    clients: int
    jobs: int
    span_s: float
    "Jobs are submitted and faults strike for so long; then everything is left in peace."
    latency_s: float
    chunk_s: float
    "How long an engine needs for a chunk, on average."
    disk_s: float
    "How long the journal needs for a batch, on average."
    message_fault_every: float
    "Messages between two message faults, on average; inf for none."
    faults: tuple[tuple[float, str], ...]
    "(seconds after the begin, kind) of the faults that strike processes and connections."
    settings: Settings
    timing: Timing
    fates: tuple[int, int, int, int]
    "Weights of the fates of texts."
    unread_most: int
    "Messages a connection holds for a client that does not read."

    @property
    def shares_fate(self) -> bool:
        """Whether a text may take others with it: it is spoken beside them, and harms its engine."""
        return max(self.batches) > 1 and any(self.fates[1:3])

    @property
    def calm(self) -> bool:
        """Whether nothing goes wrong but what the texts themselves do."""
        return not self.faults and self.message_fault_every == inf


def draw(dice: random.Random) -> Plan:
    """Draw a history."""
    calm = dice.random() < 0.1
    span_s = dice.choice((4.0, 8.0, 16.0))
    kinds = [kind for kind in PROCESS_FAULTS if dice.random() < 0.4] or ["broker crash"]
    rate = 0.0 if calm else dice.choice((0.1, 0.4, 1.0))
    faults: list[tuple[float, str]] = []
    at = dice.expovariate(rate) if rate else span_s
    while at < span_s:
        faults.append((at, dice.choice(kinds)))
        at += dice.expovariate(rate)
    workers = dice.randint(2, 4)
    settings = Settings(
        strategy=dice.choice(("lru", "round_robin", "least_load", "random")),
        default_engine=ENGINE,
        heartbeat_interval_s=INTERVAL_S,
        client_timeout_s=5.0,
        progress_lease_s=4.0,
        no_worker_grace_s=8.0,
        drain_timeout_s=5.0,
        max_attempts=dice.choice((2, 3, 3, 4)),
        max_jobs_per_client=dice.choice((8, 20_000, 20_000)),
        max_unsent_bytes_per_client=dice.choice((3_000, 10_000, 1 << 25)),
        result_cache_bytes=dice.choice((8_000, 1 << 26, 1 << 26)),
        keep_fetched_s=7 * 86_400.0,
        journal="journal",
    )
    return Plan(
        brokers=dice.choice((1, 1, 2)),
        workers=workers,
        slots=tuple(dice.choice((1, 1, 2)) for _ in range(workers)),
        batches=tuple(dice.choice((1, 1, 2, 4)) for _ in range(workers)),
        clients=dice.randint(2, 4),
        jobs=dice.choice((12, 24, 36, 60)),
        span_s=span_s,
        latency_s=dice.choice((0.0003, 0.002, 0.02)),
        chunk_s=dice.choice((0.005, 0.03, 0.2)),
        disk_s=dice.choice((0.002, 0.02, 0.2)),
        message_fault_every=inf if calm else dice.choice((inf, 300.0, 100.0, 30.0)),
        faults=tuple(faults),
        settings=settings,
        timing=Timing(
            interval_s=INTERVAL_S,
            cancel_grace_s=2.0,
            stop_grace_s=1.0,
            restart_cap_s=3.0,
            backoff_cap_s=2.0,
            idle_unload_s=dice.choice((inf, inf, 0.5)),
        ),
        fates=dice.choice(((30, 0, 0, 1), (30, 1, 1, 1), (10, 2, 0, 0), (10, 0, 2, 1))),
        unread_most=dice.choice((8, 40, 1000)),
    )
