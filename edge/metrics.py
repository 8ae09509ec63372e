"""`/metrics`: the edge's own figures, and what the broker says of the bus, in Prometheus's words.

Names have a unit and end as Prometheus asks (`_total`, `_seconds`). Labels are few and bounded: a route's
pattern and never its path, an engine and never a voice or a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from .service import engines_of

if TYPE_CHECKING:
    from .news import Happening

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
CHILDREN: Final = 1024
METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
"""As labels; there are forty others, and a parser may let any word through."""
MEDIA_TYPE: Final = CONTENT_TYPE_LATEST


class Figures:
    """The edge's figures since it started."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = Gauge(
            "voicebus_http_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self._children = lru_cache(CHILDREN)(self._found)
        self._requests = Counter(
            "voicebus_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "voicebus_http_request_seconds",
            "From a request's header to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._first_audio = Histogram(
            "voicebus_http_first_audio_seconds",
            "From a request to its first audio.",
            ("engine",),
            buckets=SECONDS,
            registry=self.registry,
        )

        self._audio = Counter(
            "voicebus_http_audio_seconds", "Seconds of speech sent.", ("engine",), registry=self.registry
        )

    def happened(self, _tenant: str, happening: Happening) -> None:
        """A listener of `News`."""
        if happening.kind == "speech" and happening.engine:
            if happening.state == "begun":
                self._first_audio.labels(happening.engine).observe(happening.first_audio_s)
            else:
                self._audio.labels(happening.engine).inc(happening.audio_s)

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        count, took = self._children(method if method in METHODS else "other", route, status)
        count.inc()
        took.observe(seconds)

    def _found(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """The figures of one row, which prometheus-client would look for anew each time."""
        return self._requests.labels(method, route, str(status)), self._seconds.labels(route)

    def text(self, status: Mapping[str, Any] | None) -> bytes:
        """Everything; without the bus's figures where its broker does not answer."""
        bus = CollectorRegistry()
        bus.register(_Fixed(bus_metrics(status)))
        return generate_latest(self.registry) + generate_latest(bus)


class _Fixed:
    """A collector of what is known already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics

    def describe(self) -> Iterable[Metric]:
        return []


def bus_metrics(status: Mapping[str, Any] | None) -> Iterable[Metric]:
    """What the broker counts."""
    up = GaugeMetricFamily("voicebus_broker_up", "Whether the broker answers.")
    up.add_metric((), 0.0 if status is None else 1.0)
    yield up
    if status is None:
        return
    jobs = CounterMetricFamily("voicebus_jobs", "Jobs by how they ended.", labels=("outcome",))
    totals: Mapping[str, object] = status.get("totals") or {}
    for outcome, count in totals.items():
        if isinstance(count, int):
            jobs.add_metric((outcome,), count)
    yield jobs
    held: Mapping[str, int] = status.get("jobs") or {}
    for name, about in (
        ("queued", "Jobs that wait."),
        ("running", "Jobs under way."),
        ("open", "Jobs held."),
    ):
        gauge = GaugeMetricFamily(f"voicebus_jobs_{name}", about)
        gauge.add_metric((), float(held.get(name, 0)))
        yield gauge
    workers = GaugeMetricFamily("voicebus_workers", "Workers connected.", labels=("engine",))
    slots = GaugeMetricFamily("voicebus_worker_slots", "Jobs that workers take at once.", labels=("engine",))
    for engine, known in engines_of(status).items():
        workers.add_metric((engine,), float(known.get("workers", 0)))
        slots.add_metric((engine,), float(known.get("slots", 0)))
    yield workers
    yield slots
