"""How fast the broker is, beside brokers that promise less: the same compiled ends ask all of them.

    python -m bench.hot [--quick] [--only CELL]... [--json FILE]

A cell of the grid is a size of answer, a number of workers, what each may hold, and how the requests come. In
each cell all brokers stand at once and are asked in turns, A B C A B C, so that whatever else the machine
does meets them alike. What is compared is the ratio of two turns of the same round; a figure by itself says
little on another machine. A request of voicebus is a whole job with all its promises, SUBMIT to DONE: the
client is sent four messages and the worker one; with bundles two travel together, ACCEPTED and SPOKEN. The
others pass on one message there and one back, but for the line that says "4 messages", where so many come
back: what this much talk costs the transport alone.

There are two limits. zmq.proxy is the transport alone: no worker is chosen, nothing is remembered. The C
broker chooses as voicebus does, so beside it one sees what the promises cost, and Python. A worker of
voicebus holds one job more than it has slots, two at least: where the grid says credit 1, the C broker is
measured with 1 and with 2.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click

from .brokers.stands import (
    BUNDLED,
    C_BROKER,
    PIRATE,
    PROXY,
    PROXY_CURVE,
    PROXY_ONE_FRAME,
    PROXY_PARTS,
    VOICEBUS,
    Party,
    Stand,
)
from .native import CannotBuildError, Programs, build
from .processes import load_average, machine_busy_s

REQUEST_BYTES: Final = 200
PATIENCE_S: Final = 5.0
"""How long the last answers may take; what has not come by then is an error."""
GRACE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Contestant:
    """A party in a cell. `credit` instead of the cell's own."""

    party: Party
    credit: int | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A place in the grid. `rate_per_s` 0: a closed loop, with `window` requests always under way."""

    name: str
    size_bytes: int
    workers: int
    credit: int
    window: int
    contestants: tuple[Contestant, ...]
    rate_per_s: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """What one turn of one broker gave."""

    cell: str
    broker: str
    dialect: str
    size_bytes: int
    workers: int
    credit: int
    "What a worker may really hold; 0 where the broker knows no such thing."
    window: int
    offered_per_s: int
    repetition: int
    rate_per_s: float
    cpu_us_per_request: float
    p50_us: float
    p99_us: float
    max_us: float
    per_bundle: float
    "Messages in a bundle that the client received; 0 if none came."
    errors: int
    background_cores: float
    "How many cores others used meanwhile."


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and how often each is asked."""

    repetitions: int
    warmup_s: float
    span_s: float


FULL: Final = Pace(repetitions=5, warmup_s=0.2, span_s=1.0)
QUICK: Final = Pace(repetitions=3, warmup_s=0.07, span_s=0.25)


def _all(*parties: Party) -> tuple[Contestant, ...]:
    return tuple(Contestant(party) for party in parties)


_MANY: Final = (*_all(BUNDLED, VOICEBUS, C_BROKER), Contestant(C_BROKER, 2), *_all(PROXY, PIRATE))
_FEW: Final = (Contestant(BUNDLED), Contestant(C_BROKER), Contestant(C_BROKER, 2))
_PIPELINED: Final = (
    *_all(BUNDLED, VOICEBUS, PROXY, PROXY_PARTS, PROXY_ONE_FRAME, PROXY_CURVE, C_BROKER),
    Contestant(PIRATE, 1),
)
_ONE_BY_ONE: Final = (*_all(BUNDLED, VOICEBUS, PROXY, PROXY_PARTS, C_BROKER), Contestant(PIRATE, 1))
_BIG: Final = _all(BUNDLED, VOICEBUS, PROXY, PROXY_CURVE, C_BROKER)

PIPELINED_64: Final = "200 B, window 64"
PIPELINED_256: Final = "200 B, window 256"
EIGHT: Final = "8 workers, credit 1"
SIXTY_FOUR: Final = "64 workers, credit 1"
BIG: Final = "200 KB"
SINGLE: Final = "one at a time"
OPEN: Final = "open loop"

GRID: Final = (
    Cell(PIPELINED_64, 200, 1, 64, 64, _PIPELINED),
    Cell(PIPELINED_256, 200, 1, 64, 256, _PIPELINED[:-1]),
    Cell(EIGHT, 200, 8, 1, 256, _MANY),
    Cell(SIXTY_FOUR, 200, 64, 1, 256, _MANY),
    Cell("8 workers, credit 16", 200, 8, 16, 256, _all(BUNDLED, VOICEBUS, C_BROKER, PROXY)),
    Cell(BIG, 200_000, 1, 16, 64, _BIG),
    Cell("200 KB, 8 workers", 200_000, 8, 2, 64, _BIG),
    Cell("2 MB", 2_000_000, 1, 2, 16, _BIG),
    Cell(SINGLE, 200, 1, 2, 1, _ONE_BY_ONE),
    Cell("one at a time, 200 KB", 200_000, 1, 2, 1, _all(BUNDLED, PROXY)),
    Cell(OPEN, 200, 1, 64, 64, _all(BUNDLED, VOICEBUS, PROXY, C_BROKER), rate_per_s=5000),
)
QUICK_GRID: Final = (
    Cell(PIPELINED_64, 200, 1, 64, 64, _all(BUNDLED, VOICEBUS, PROXY)),
    Cell(PIPELINED_256, 200, 1, 64, 256, _all(BUNDLED, PROXY)),
    Cell(EIGHT, 200, 8, 1, 256, _FEW),
    Cell(SIXTY_FOUR, 200, 64, 1, 256, _FEW),
    Cell(BIG, 200_000, 1, 16, 64, _all(BUNDLED, PROXY)),
    Cell(SINGLE, 200, 1, 2, 1, _all(BUNDLED, PROXY)),
)


class RunFailedError(RuntimeError):
    """The load generator could not do its work."""


def run_load(
    programs: Programs, stand: Stand, *, window: int, answer_bytes: int, warmup_s: float, span_s: float,
    rate_per_s: int = 0, connections: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Ask a stand for a while; what load.c prints. Raises `RunFailedError`."""
    party = stand.party
    command = [
        *(str(programs.load), "--connect", stand.frontend, "--dialect", party.load_dialect),
        *("--window", str(window), "--connections", str(connections), "--frames", str(party.frames)),
        *("--parts", str(party.parts)),
        *("--bytes", str(REQUEST_BYTES), "--answer", str(answer_bytes)),
        *("--warmup", str(warmup_s), "--seconds", str(span_s), "--patience", str(PATIENCE_S)),
        *("--watch", str(stand.broker_pid), *(("--bundle",) if party.bundles else ())),
        *(*stand.connecting, *(("--rate", str(rate_per_s)) if rate_per_s else ())),
    ]
    limit_s = warmup_s + span_s + PATIENCE_S + GRACE_S
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise RunFailedError(f"{party.name}: no figures within {limit_s:g} s") from None
    if done.returncode:
        raise RunFailedError(f"{party.name}: {done.stderr.strip() or f'ended with {done.returncode}'}")
    return json.loads(done.stdout)


def play(programs: Programs, cell: Cell, pace: Pace, say: Callable[[str], None]) -> Iterable[Row]:
    """All turns of a cell. Raises `RunFailedError`, and `RuntimeError` if a broker does not start."""
    with ExitStack() as stack:
        stands = [
            stack.enter_context(
                Stand(
                    contestant.party,
                    programs,
                    answer_bytes=cell.size_bytes,
                    workers=cell.workers,
                    credit=contestant.credit or cell.credit,
                )
            )
            for contestant in cell.contestants
        ]
        say(cell.name)
        for repetition in range(pace.repetitions):
            for stand in stands:
                begun, before_s = time.monotonic(), _others_s(stand)
                got = run_load(
                    programs,
                    stand,
                    window=cell.window,
                    answer_bytes=cell.size_bytes,
                    warmup_s=pace.warmup_s,
                    span_s=pace.span_s,
                    rate_per_s=cell.rate_per_s,
                )
                others = (_others_s(stand) - before_s) / (time.monotonic() - begun)
                yield row_of(cell, stand, repetition, got, max(0.0, others))


def _others_s(stand: Stand) -> float:
    """Processor time of the machine that neither a stand used nor a load generator that has ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return machine_busy_s() - stand.used_s - ended.ru_utime - ended.ru_stime


def row_of(cell: Cell, stand: Stand, repetition: int, got: dict[str, Any], background: float) -> Row:
    """A turn's figures as a row."""
    party, answers = stand.party, int(got["answers"])
    # Nothing answered, nothing to divide by; the requests that are missing stand among the errors.
    cpu_us = got["cpu_ns"] / answers / 1000 if answers else 0.0
    return Row(
        cell=cell.name,
        broker=party.name,
        dialect=party.load_dialect,
        size_bytes=cell.size_bytes,
        workers=cell.workers,
        credit=0 if party.worker_dialect == "echo" else party.held(stand.credit),
        window=0 if cell.rate_per_s else cell.window,
        offered_per_s=cell.rate_per_s,
        repetition=repetition,
        rate_per_s=got["rate_per_s"],
        cpu_us_per_request=cpu_us,
        p50_us=got["p50_us"],
        p99_us=got["p99_us"],
        max_us=got["max_us"],
        per_bundle=got["received_per_bundle"],
        errors=int(got["errors"]),
        background_cores=background,
    )


def measure(
    quick: bool, only: Sequence[str] = (), say: Callable[[str], None] = lambda _line: None
) -> dict[str, Any]:
    """Play the grid; `rows`, `headline`, and what was `failed` or `skipped`, each with its reason."""
    result: dict[str, Any] = {"cores": os.cpu_count(), "load_average_before": load_average()}
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    begun = time.monotonic()
    try:
        programs = build()
    except CannotBuildError as error:
        return {**result, "rows": rows, "headline": {}, "failed": failed, "skipped": str(error)}
    for cell in QUICK_GRID if quick else GRID:
        if only and cell.name not in only:
            continue
        try:
            for row in play(programs, cell, QUICK if quick else FULL, say):
                rows.append(asdict(row))
        except RuntimeError as error:
            failed[cell.name] = str(error)
            say(f"{cell.name}: {error}")
        for line in table([row for row in rows if row["cell"] == cell.name]):
            say(line)
    return {
        **result,
        "rows": rows,
        "headline": headline(rows),
        "failed": failed,
        "errors": sum(row["errors"] for row in rows),
        "load_average_after": load_average(),
        "seconds": time.monotonic() - begun,
    }


def ratios(
    rows: Iterable[dict[str, Any]], cell: str, party: Party, other: Party, field: str,
    other_credit: int | None = None,
) -> list[float]:  # fmt: skip
    """One party's figure by the other's, round by round."""
    mine: dict[int, float] = {}
    theirs: dict[int, float] = {}
    for row in rows:
        if row["cell"] != cell:
            continue
        if row["broker"] == party.name:
            mine[row["repetition"]] = row[field]
        elif row["broker"] == other.name and other_credit in (None, row["credit"]):
            theirs[row["repetition"]] = row[field]
    return [mine[turn] / theirs[turn] for turn in sorted(mine) if theirs.get(turn)]


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """The figures that are compared with budgets; None where their cell was not played.

    Voicebus is measured as its own ends use it, with bundles; the same without them is named `_unbundled`.
    """

    def middle(values: Sequence[float]) -> float | None:
        return statistics.median(values) if values else None

    def cost(cell: str, party: Party) -> float | None:
        return middle(
            [row["cpu_us_per_request"] for row in rows if row["cell"] == cell and row["broker"] == party.name]
        )

    def beside_proxy(cell: str, field: str, party: Party = BUNDLED) -> float | None:
        return middle(ratios(rows, cell, party, PROXY, field))

    def beside_c(credit: int) -> float | None:
        medians = [
            middle(ratios(rows, cell, BUNDLED, C_BROKER, "rate_per_s", credit))
            for cell in (EIGHT, SIXTY_FOUR)
        ]
        return middle([ratio for ratio in medians if ratio is not None])

    return {
        "broker_us_per_request": cost(PIPELINED_64, BUNDLED),
        "broker_us_per_request_unbundled": cost(PIPELINED_64, VOICEBUS),
        "broker_us_per_request_window_256": cost(PIPELINED_256, BUNDLED),
        "ratio_to_proxy_200B": beside_proxy(PIPELINED_64, "rate_per_s"),
        "ratio_to_proxy_200B_unbundled": beside_proxy(PIPELINED_64, "rate_per_s", VOICEBUS),
        "ratio_to_proxy_200B_window_256": beside_proxy(PIPELINED_256, "rate_per_s"),
        "ratio_to_proxy_200KB": beside_proxy(BIG, "rate_per_s"),
        "ratio_to_c_broker_credit1": beside_c(1),
        "ratio_to_c_broker_same_credit": beside_c(2),
        "latency_ratio_to_proxy_p50": beside_proxy(SINGLE, "p50_us"),
        "latency_ratio_to_proxy_p99": beside_proxy(SINGLE, "p99_us"),
    }


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A cell's turns as lines: each broker's middle, least and most. `others`: cores that other work used."""
    kept: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        kept.setdefault((row["broker"], row["credit"]), []).append(row)
    lines = [
        f"  {'broker':<23}{'holds':>6}{'answers/s (least - most)':>30}{'CPU µs (least - most)':>28}"
        f"{'p50 µs':>9}{'p99 µs':>9}{'bundle':>8}{'others':>8}{'errors':>8}"
    ]
    for (broker, credit), turns in kept.items():
        rates = [turn["rate_per_s"] for turn in turns]
        costs = [turn["cpu_us_per_request"] for turn in turns]
        rate = f"{statistics.median(rates):,.0f} ({min(rates):,.0f} - {max(rates):,.0f})"
        cost = f"{statistics.median(costs):.1f} ({min(costs):.1f} - {max(costs):.1f})"
        p50, p99, bundle, others = (
            statistics.median(turn[key] for turn in turns)
            for key in ("p50_us", "p99_us", "per_bundle", "background_cores")
        )
        lines.append(
            f"  {broker:<23}{credit or '-':>6}{rate:>30}{cost:>28}{p50:>9.0f}{p99:>9.0f}"
            f"{f'{bundle:.0f}' if bundle else '-':>8}{others:>8.2f}{sum(turn['errors'] for turn in turns):>8}"
        )
    return lines if kept else []


@click.command()
@click.option("--quick", is_flag=True, help="Three short turns in fewer cells, under half a minute.")
@click.option("--only", multiple=True, help="Only this cell, by its name; may be given several times.")
@click.option("--json", "file", type=click.Path(path_type=Path), default=Path("out/bench-hot.json"))
def main(quick: bool, only: tuple[str, ...], file: Path) -> None:
    """Print and save the figures; exits with 1 if an answer was wrong or a cell failed."""
    names = [cell.name for cell in (QUICK_GRID if quick else GRID)]
    for name in only:
        if name not in names:
            raise click.UsageError(f"no cell {name!r}; there are {', '.join(names)}")
    result = measure(quick, only, click.echo)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if result.get("skipped"):
        click.echo(f"skipped: {result['skipped']}")
        return
    for name, value in result["headline"].items():
        if value is not None:
            click.echo(f"{name:<36}{value:8.2f}")
    click.echo(
        f"load average {result['load_average_before']:.2f} before, {result['load_average_after']:.2f} after, "
        f"{result['seconds']:.0f} s, figures in {file}"
    )
    if result["failed"] or result["errors"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
