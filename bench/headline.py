"""The few figures by which voicebus is judged, out of all stages of a pass, each beside its budget.

A figure that could not be taken stands there as None: a missing key would look as if nobody had asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import hot, interactive
from .peers import report

BARE: Final = "voicebus-bare"
CLIENT_MAP: Final = "voicebus"
Stages = Mapping[str, Mapping[str, Any]]
Headline = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a figure may be at most, or has to be at least."""

    key: str
    what: str
    limit: float
    at_least: bool
    unit: str = "×"

    def holds(self, value: float) -> bool:
        """Whether a value keeps to it."""
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def shown(self) -> str:
        """For people."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}"


def _peer(key: str, name: str, limit: float) -> tuple[Budget, Budget]:
    what = f"rate by that of {name}, window 64"
    return (
        Budget(key, f"{what}: bare client", limit, True),
        Budget(f"{key}_client_map", f"{what}: `Client.map`", limit, True),
    )


BUDGETS: Final = (
    Budget("broker_us_per_request", "broker's processor time a job, 200 B, 64 under way", 12, False, "µs"),
    Budget("ratio_to_proxy_200B", "rate by zmq.proxy's, 200 B, 64 under way", 0.5, True),
    Budget("ratio_to_proxy_200KB", "rate by zmq.proxy's, 200 KB", 0.9, True),
    Budget("ratio_to_c_broker_credit1", "rate by the C broker's, 8 and 64 workers, credit 1", 0.8, True),
    Budget("latency_ratio_to_proxy_p50", "one at a time, p50 by zmq.proxy's", 1.2, False),
    Budget("latency_ratio_to_proxy_p99", "one at a time, p99 by zmq.proxy's", 2, False),
    *_peer("ratio_to_nats", "NATS", 2),
    *_peer("ratio_to_redis", "Redis", 10),
    *_peer("ratio_to_http_gateway", "the HTTP gateway", 100),
    Budget("first_audio_added_ms", "added to the first audio, engine `tone`", 5, False, "ms"),
    Budget(
        "interactive_p99_ratio",
        "first audio's p99 by that without bulk, under the worst load",
        interactive.BUDGET,
        False,
    ),
)


def merged(stages: Stages, asked: Collection[str], taken: Collection[str]) -> Headline:
    """The headline of a pass.

    `asked`: the stages that it was to have, and `taken` the peers, whether they could be measured or not.
    """
    found: Headline = {}

    def rows(stage: str) -> Sequence[dict[str, Any]]:
        return stages.get(stage, {}).get("rows", ())

    if "hot" in asked:
        # Of the rows, and not what the stage says itself: that is empty where nothing could be built.
        found |= hot.headline(rows("hot"))
    if "peers" in asked:
        ratios = report.headline(rows("peers"))
        for key, system in report.PEERS.items():
            if system in taken:
                found[key] = ratios.get(BARE, {}).get(key)
                found[f"{key}_client_map"] = ratios.get(CLIENT_MAP, {}).get(key)
    if "interactive" in asked:
        found["interactive_p99_ratio"] = max(
            (row["p99_to_unloaded"] for row in rows("interactive") if row["urgency"]), default=None
        )
    for way, figures in stages.get("counts", {}).items():
        found[f"calls_per_request_{way}"] = figures["calls"]
    if "bus" in asked:
        bus = stages.get("bus", {})
        found["first_audio_added_ms"] = bus.get("latency_tone", {}).get("added_p50_ms")
        found["map_jobs_per_s"] = bus.get("throughput", {}).get("jobs_per_s")
    return found
