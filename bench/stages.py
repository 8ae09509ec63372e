"""The stages of a pass. Each measures with a module of its own, and says what was wrong and what left out.

Wrong is an answer that was missing or not what was asked for, or a part of voicebus that broke: then the pass
ends with 1. A slow figure is never wrong. A peer that does not start here is left out, with its last words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from voicebus.common.errors import BusError

from . import bus, counts, hot, interactive, scale
from .peers import runner
from .peers.catalogue import SYSTEMS
from .peers.install import place

Say = Callable[[str], None]
VOICE: Final = "amber"


@dataclass
class Outcome:
    """What a stage found."""

    found: dict[str, Any]
    wrong: list[str] = field(default_factory=list[str])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    setup_s: float = 0.0
    "What was spent on fetching and building, before anything was measured."


def take_hot(quick: bool, say: Say) -> Outcome:
    """The broker beside other brokers."""
    begun = time.monotonic()
    try:
        hot.build()
    except hot.CannotBuildError as error:
        return Outcome({"rows": []}, skipped={"brokers": str(error)})
    setup_s = time.monotonic() - begun
    found = hot.measure(quick, say=say)
    wrong = [f"{cell}: {reason}" for cell, reason in found["failed"].items()]
    return Outcome(found, wrong + mistakes(found["rows"], "broker"), setup_s=setup_s)


def peers_taken(quick: bool) -> list[str]:
    """The names of all systems that the pass is to have."""
    return [system.name for system in SYSTEMS if system.quick or not quick]


def take_peers(quick: bool, say: Say) -> Outcome:
    """voicebus beside other systems."""
    begun = time.monotonic()
    taken = peers_taken(quick)
    missing = runner.fetch([system for system in SYSTEMS if system.name in taken], place(), say)
    setup_s = time.monotonic() - begun
    # Named, so that what cannot be had is not tried for again.
    found = runner.measure(quick, [name for name in taken if name not in missing], say)
    return Outcome(found, *judged(found, missing), setup_s=setup_s)


def judged(found: Mapping[str, Any], missing: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """What was wrong in a pass over the peers, and what was left out of it."""
    failed: Mapping[str, str] = found["failed"]
    wrong = [f"{name}: {reason}" for name, reason in failed.items() if name.startswith("voicebus")]
    others = {name: reason for name, reason in failed.items() if not name.startswith("voicebus")}
    return wrong + mistakes(found["rows"], "system"), {**missing, **found["skipped"], **others}


def take_scale(quick: bool, say: Say) -> Outcome:
    """Large numbers."""
    report = scale.measure(quick=quick, say=say)
    return Outcome({"rows": report.rows}, report.wrong)


def take_interactive(quick: bool, say: Say) -> Outcome:
    """A listener beside bulk."""
    found = interactive.measure(interactive.QUICK if quick else interactive.FULL)
    for line in interactive.shown(found):
        say(line)
    wrong = [f"interactive: {what} {found[what]}" for what in ("failed", "wrong_bulk_results") if found[what]]
    return Outcome(found, wrong)


def take_counts(_quick: bool, _say: Say) -> Outcome:
    """How much Python runs for one request."""
    figures = {way: counts.measure(way) for way in counts.WAYS}
    return Outcome({way: asdict(found) | {"calls": round(found.calls, 2)} for way, found in figures.items()})


def take_bus(quick: bool, say: Say) -> Outcome:
    """What the bus adds to the engines."""
    found: dict[str, Any] = {"latency_tone": bus.latency("tone", VOICE, 30 if quick else 300)}
    outcome = Outcome(found)
    try:
        found["latency_kokoro"] = bus.beside_engine("kokoro", VOICE, 3 if quick else 20)
    except BusError as error:
        outcome.skipped["the bus beside kokoro"] = str(error)
    found["throughput"] = bus.throughput(1000 if quick else 5000, 1)
    if found["throughput"]["errors"]:
        outcome.wrong.append(f"bus: {found['throughput']['errors']:.0f} jobs failed")
    for what, figures in found.items():
        say(f"{what}: {bus.shown(figures)}")
    return outcome


STAGES: Final[Mapping[str, Callable[[bool, Say], Outcome]]] = {
    "hot": take_hot,
    "peers": take_peers,
    "scale": take_scale,
    "interactive": take_interactive,
    "counts": take_counts,
    "bus": take_bus,
}
QUICK: Final = ("hot", "peers", "counts")
"""What fits into a minute and is compared with others."""


def mistakes(rows: Sequence[Mapping[str, Any]], who: str) -> list[str]:
    """Missing or wrong answers of voicebus. What others lose stands in their rows: zmq.proxy may drop."""
    found: dict[str, int] = {}
    for row in rows:
        found[row[who]] = found.get(row[who], 0) + row["errors"]
    return [
        f"{name}: {errors} answers were missing or wrong"
        for name, errors in found.items()
        if errors and name.startswith("voicebus")
    ]
