"""What is told of a pass: a table with every system, and how many times faster voicebus is, or is not.

Some systems stand there twice: as their documentation has it, and as fast as it could be made. Ratios to both
are given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Final

from .plan import LARGE_BYTES, SINGLE, TEXT_BYTES, WINDOWED

OURS: Final = ("voicebus", "voicebus-bare")
PEERS: Final[Mapping[str, str]] = {
    "ratio_to_nats": "nats",
    "ratio_to_nats_inbox": "nats-inbox",
    "ratio_to_redis": "redis",
    "ratio_to_redis_batched": "redis-batched",
    "ratio_to_http_gateway": "http-gateway",
    "ratio_to_http_gateway_tuned": "http-gateway-tuned",
    "ratio_to_zmq_proxy": "zmq.proxy",
}

Rows = Sequence[Mapping[str, Any]]


def values(rows: Rows, system: str, mode: str, size_bytes: int, what: str) -> list[float]:
    """A figure of all repetitions."""
    return [
        row[what]
        for row in rows
        if (row["system"], row["mode"], row["size_bytes"]) == (system, mode, size_bytes)
        and row[what] is not None
    ]


def headline(rows: Rows) -> dict[str, dict[str, float]]:
    """For the real client and for the bare one: the median rate, small and 64 under way, over that of a peer.

    A peer that was not measured has no ratio.
    """

    def rate(system: str) -> float:
        found = values(rows, system, WINDOWED, TEXT_BYTES, "rate_per_s")
        return median(found) if found else 0.0

    return {
        ours: {name: rate(ours) / rate(peer) for name, peer in PEERS.items() if rate(peer)}
        for ours in OURS
        if rate(ours)
    }


def table(rows: Rows) -> list[str]:
    """The pass as lines of a Markdown table."""
    systems = list(dict.fromkeys(row["system"] for row in rows))
    lines = [
        "| system | answers/s, 64 under way (min–max) | one at a time p50 / p99 µs | 200 KB MB/s "
        "| µs a request: middle / client / worker | limit | other work, cores | errors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for system in systems:
        rates = values(rows, system, WINDOWED, TEXT_BYTES, "rate_per_s")
        used = [
            _middle(values(rows, system, WINDOWED, TEXT_BYTES, f"{who}_us_per_request"), ".1f")
            for who in ("middle", "client", "worker")
        ]
        single = [
            _middle(values(rows, system, SINGLE, TEXT_BYTES, what), ".0f") for what in ("p50_us", "p99_us")
        ]
        large = _middle(values(rows, system, WINDOWED, LARGE_BYTES, "mb_per_s"), ".0f")
        mine = [row for row in rows if row["system"] == system]
        errors = sum(row["errors"] for row in mine)
        spread = f"{min(rates):,.0f}–{max(rates):,.0f}" if rates else "–"
        others = _middle([row["background_cores"] for row in mine], ".1f")
        limit = _usual(
            row["limit"] for row in mine if (row["mode"], row["size_bytes"]) == (WINDOWED, TEXT_BYTES)
        )
        lines.append(
            f"| {system} | {_middle(rates, ',.0f')} ({spread}) | {' / '.join(single)} | {large} "
            f"| {' / '.join(used)} | {limit} | {others} | {errors} |"
        )
    return lines


def _middle(found: Sequence[float], form: str) -> str:
    return format(median(found), form) if found else "–"


def _usual(limits: Iterable[str]) -> str:
    """The limit of most repetitions."""
    counted = Counter(limits).most_common(1)
    return (counted[0][0] or "waits") if counted else "–"
