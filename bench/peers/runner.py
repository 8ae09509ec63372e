"""One pass over all systems: fetch what is missing, then each in turn, and all of them again.

A system is started anew for every repetition and ended before the next one begins, so that none runs beside
another. What cannot be had is skipped with its reason; what breaks is noted with its last words, and
the pass goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from ..processes import ROOT, Running, load_average
from .catalogue import SYSTEMS
from .install import Place, SkippedError, fetch_debian, fetch_python, place
from .load import ANSWER_S
from .plan import LARGE_BYTES, SINGLE, TEXT_BYTES, WINDOWED, Assignment, Phase
from .systems import START_S, System

# One at a time comes first: some clients keep a connection for each request that was ever under way at once,
# and look at all of them for the one.
FULL: Final = (
    Phase(SINGLE, TEXT_BYTES, 0.4, 0.2),
    Phase(WINDOWED, TEXT_BYTES, 0.8, 0.3),
    Phase(WINDOWED, LARGE_BYTES, 0.6, 0.2),
)
QUICK: Final = (
    Phase(SINGLE, TEXT_BYTES, 0.1, 0.05),
    Phase(WINDOWED, TEXT_BYTES, 0.25, 0.05),
    Phase(WINDOWED, LARGE_BYTES, 0.1, 0),
)
FULL_REPETITIONS: Final = 5
QUICK_REPETITIONS: Final = 3
BUSY: Final = 0.85
"""A party is the limit if its busiest thread ran, or waited for a core, for this share of the time."""
FULL_SHARE: Final = 0.95
"""The machine is, if this share of its cores was in use."""
PARTIES: Final = ("client", "middle", "worker")

Row = dict[str, Any]
Say = Callable[[str], None]


def measure(quick: bool, only: Sequence[str] = (), say: Say = lambda _: None) -> dict[str, Any]:
    """Take the pass: `rows`, and `skipped` and `failed` with the reason of each system.

    `only` names the systems to take, all that the pass has by default. Raises `ValueError` for unknown ones.
    """
    unknown = set(only) - {system.name for system in SYSTEMS}
    if unknown:
        raise ValueError(f"no such system: {', '.join(sorted(unknown))}")
    wanted = [system for system in SYSTEMS if (system.name in only if only else system.quick or not quick)]
    where = place()
    skipped = fetch(wanted, where, say)
    phases, repetitions = (QUICK, QUICK_REPETITIONS) if quick else (FULL, FULL_REPETITIONS)
    rows: list[Row] = []
    failed: dict[str, str] = {}
    before = load_average()
    for repetition in range(repetitions):
        for system in wanted:
            if system.name in skipped:
                continue
            say(f"{repetition + 1}/{repetitions} {system.name}")
            try:
                rows += [{**row, "repetition": repetition} for row in once(system, where, phases)]
            except SkippedError as error:
                skipped[system.name] = str(error)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                failed[system.name] = f"{error.__class__.__name__}: {error}"
    return {
        "quick": quick,
        "cores": os.cpu_count(),
        "load_average": [before, load_average()],
        "rows": rows,
        "skipped": skipped,
        "failed": failed,
    }


def fetch(systems: Iterable[System], where: Place, say: Say) -> dict[str, str]:
    """Fetch what the systems need; the reason for each that must do without."""
    skipped: dict[str, str] = {}
    tried: dict[tuple[str, ...], str] = {}

    def need(
        system: System, packages: tuple[str, ...], get: Callable[[tuple[str, ...], Place], None]
    ) -> None:
        if packages and packages not in tried:
            say(f"needs {', '.join(packages)}")
            try:
                get(packages, where)
                tried[packages] = ""
            except SkippedError as error:
                tried[packages] = str(error)
        if tried.get(packages):
            skipped.setdefault(system.name, tried[packages])

    for system in systems:
        need(system, system.python, fetch_python)
        need(system, system.debian, fetch_debian)
    return skipped


def once(system: System, where: Place, phases: Sequence[Phase]) -> list[Row]:
    """Start a system, have its client take the phases, end it. Raises what went wrong."""
    taken = [phase for phase in phases if system.large or phase.size_bytes == TEXT_BYTES]
    with ExitStack() as stack:
        started = system.start(stack, where)
        assignment = Assignment(started.address, started.middle, started.worker, taken, started.options)
        client = stack.enter_context(
            Running(
                [*started.client, assignment.to_json()],
                environ=started.environ,
                folder=ROOT,
                output=subprocess.PIPE,
                group=True,
            )
        )
        limit_s = START_S + sum(phase.warm_s + phase.seconds + 2 * ANSWER_S for phase in taken)
        said, _ = client.process.communicate(timeout=limit_s)
        lines = said.splitlines()
        rows = [row_of(system.name, json.loads(line)) for line in lines if line.startswith('{"mode"')]
        if len(rows) < len(taken):
            raise RuntimeError(f"its client took {len(rows)} of {len(taken)} figures: {lines[-1:]}")
    return rows


def row_of(system: str, figures: Mapping[str, Any]) -> Row:
    """A row of the table out of what a client printed."""
    answers, seconds = figures["answers"], figures["seconds"]
    used = {who: figures[f"{who}_ns"] for who in PARTIES if figures[f"{who}_ns"] is not None}
    busy = {who: figures[f"{who}_busy"] for who in used}
    cores_used = figures["background_cores"] + (sum(used.values()) / 1e9 / seconds if answers else 0.0)
    return {
        "system": system,
        "size_bytes": figures["size_bytes"],
        "mode": figures["mode"],
        "answers": answers,
        "rate_per_s": answers / seconds if answers else 0.0,
        "mb_per_s": answers * figures["size_bytes"] / 1e6 / seconds if answers else 0.0,
        "p50_us": figures["p50_us"],
        "p99_us": figures["p99_us"],
        **{
            f"{who}_us_per_request": used[who] / 1000 / answers if who in used and answers else None
            for who in PARTIES
        },
        **{f"{who}_busy": busy.get(who) for who in PARTIES},
        "limit": limit_of(busy, cores_used),
        "background_cores": figures["background_cores"],
        "errors": figures["errors"],
        "reason": figures["reason"],
    }


def limit_of(busy: Mapping[str, float], cores_used: float) -> str:
    """Whose busiest thread had no time left: client, middle or worker. Or all cores were in use, by whomever.

    Empty: they waited for each other.
    """
    most = max(busy, key=lambda who: busy[who], default="")
    if most and busy[most] >= BUSY:
        return most
    return "cores" if cores_used >= FULL_SHARE * (os.cpu_count() or 1) else ""
