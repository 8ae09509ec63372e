"""A pass as a page of Markdown: the headline beside its budgets, then each stage with least, middle and most.

Who was the limit stands in each row. A rate that the client or the machine limits says nothing about what
stands behind them, and a table that does not say so invites the wrong conclusion.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from .brokers.stands import PROXY
from .headline import BUDGETS, Headline
from .peers import report
from .peers.runner import FULL_SHARE

NONE: Final = "–"
BUSY_CORES: Final = 0.85
"""A broker whose threads together used this much had little time left."""
Row = Mapping[str, Any]
Found = Mapping[str, Any]


def page(found: Found) -> str:
    """The whole page."""
    stages: Mapping[str, Found] = found["stages"]
    parts = [
        "# What was measured",
        f"Written by `{found['command']}` on {found['date']}; every row is in `results.json` beside it. "
        "Ratios are of figures of the same pass: they transfer to other machines, the figures do not. "
        "Where three figures stand, they are least – **middle** – most.",
        *_machine(found),
        *_section("Headline", headline(found["headline"])),
    ]
    if "hot" in stages:
        rows = stages["hot"]["rows"]
        parts += ["## Brokers", BROKERS]
        for cell in dict.fromkeys(row["cell"] for row in rows):
            parts += [f"### {cell}", *_joined(brokers([row for row in rows if row["cell"] == cell]))]
        parts += _picture(found, "brokers.png")
    if "peers" in stages:
        parts += ["## Peers", PEERS, *_joined(report.table(stages["peers"]["rows"]))]
        parts += _picture(found, "peers.png")
    if "scale" in stages:
        parts += _section("Scale", scale(stages["scale"]["rows"]))
    if "interactive" in stages:
        parts += ["## Interactive beside bulk", INTERACTIVE]
        parts += _joined(interactive(stages["interactive"]["rows"]))
    if "counts" in stages:
        parts += _section("Calls for one request", counts(stages["counts"]))
    if "bus" in stages:
        parts += _section("The bus", pairs(stages["bus"]))
    parts += _section("Left out, and why", reasons(found["skipped"]))
    parts += _section("What went wrong", reasons(dict(enumerate(found["wrong"], 1))))
    return "\n\n".join(parts) + "\n"


BROKERS: Final = (
    "Load generator and workers are the same compiled programs for all (`python -m bench.hot`). `holds`: "
    "requests that a worker may hold. `of zmq.proxy`: rate by that of zmq.proxy in the same round. `cores`: "
    f"what all threads of the broker used. Limit: the *broker* if that was {BUSY_CORES:g} of a core or more, "
    "the *round trip* where one request is under way at a time, the *offered* rate in an open loop, else the "
    "*ends*, or the cores that they share with the broker."
)
PEERS: Final = (
    "One client and one worker each, in Python (`python -m bench.peers`). Limit: whose busiest thread had no "
    "time left; *cores*: all cores were in use; *waits*: they waited for each other."
)
INTERACTIVE: Final = (
    "One client asks for sentences while others pull results of 2 MB (`python -m bench.interactive`). Where "
    "all processors are busy, by whomever, the *cores* are the limit; how long the sentence's processes "
    "waited for one stands in the last column. Elsewhere one *waits* for the other."
)


def headline(figures: Headline) -> list[str]:
    """Every figure; those with a budget first."""
    lines = ["| figure | measured | budget | |", "|---|---|---|---|"]
    for budget in BUDGETS:
        if budget.key in figures:
            value = figures[budget.key]
            verdict = "" if value is None else "kept" if budget.holds(value) else "**missed**"
            shown = number(value) if value is None else f"{number(value)} {budget.unit}"
            lines.append(f"| {budget.what} | {shown} | {budget.shown} | {verdict} |")
    judged = {budget.key for budget in BUDGETS}
    lines += [f"| `{key}` | {number(value)} | | |" for key, value in figures.items() if key not in judged]
    return lines


def brokers(rows: Sequence[Row]) -> list[str]:
    """The parties of a cell."""
    lines = [
        "| broker | holds | answers/s | of zmq.proxy | CPU µs a request | p50 µs | p99 µs | cores | limit "
        "| other work, cores | errors |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    base = {row["repetition"]: row["rate_per_s"] for row in rows if row["broker"] == PROXY.name}
    parties: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        parties.setdefault((row["broker"], row["credit"]), []).append(row)
    for (name, credit), turns in parties.items():
        ratios = [row["rate_per_s"] / base[row["repetition"]] for row in turns if base.get(row["repetition"])]
        cells = [
            f"**{name}**" if name.startswith("voicebus") else name,
            str(credit or NONE),
            spread((row["rate_per_s"] for row in turns), ",.0f"),
            spread(ratios, ".2f"),
            spread((row["cpu_us_per_request"] for row in turns), ".1f"),
            spread((row["p50_us"] for row in turns), ",.0f"),
            spread((row["p99_us"] for row in turns), ",.0f"),
            f"{statistics.median(map(cores, turns)):.2f}",
            limit(turns),
            f"{statistics.median(row['background_cores'] for row in turns):.2f}",
            str(sum(row["errors"] for row in turns)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def cores(row: Row) -> float:
    """How many cores a broker used."""
    return row["rate_per_s"] * row["cpu_us_per_request"] / 1e6


def limit(turns: Sequence[Row]) -> str:
    """What kept a broker's rate from being higher."""
    if turns[0]["offered_per_s"]:
        return "offered"
    if turns[0]["window"] == 1:
        return "round trip"
    return "broker" if statistics.median(map(cores, turns)) >= BUSY_CORES else "ends"


def scale(rows: Iterable[Row]) -> list[str]:
    """What large numbers cost. Counts that have to be right show what they had to be."""
    lines = ["| what | measured | budget | |", "|---|---|---|---|"]
    for row in rows:
        value, wanted, most = row["value"], row.get("wanted"), row.get("budget")
        budget, verdict = "", row.get("note", "")
        if wanted is not None:
            budget, verdict = f"= {wanted:,}", "right" if value == wanted else "**wrong**"
        elif most is not None:
            budget, verdict = f"≤ {most:,g} {row['unit']}", "kept" if value <= most else "**missed**"
        shown = f"{number(value)} {row['unit']}".strip()
        lines.append(f"| {row['what']} | {shown} | {budget} | {verdict} |")
    return lines


def interactive(rows: Iterable[Row]) -> list[str]:
    """The first audio under each load."""
    lines = [
        "| bulk | MB/s | processors busy | first audio p50 / p99 ms | p99 by unloaded | PING p50 / p99 ms "
        "| limit | ready but waiting for a processor, ms a sentence |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        waits = ", ".join(f"{who} {ms:.2f}" for who, ms in row["waited_for_a_processor_ms"].items())
        lines.append(
            f"| {row['load']} | {row['bulk_mb_per_s']:,.0f} | {row['processors_busy_percent']:.0f} % "
            f"| {row['first_audio_p50_ms']:.2f} / {row['first_audio_p99_ms']:.2f} "
            f"| {row['p99_to_unloaded']:.2f} "
            f"| {row['ping_p50_ms']:.2f} / {row['ping_p99_ms']:.2f} "
            f"| {'cores' if row['processors_busy_percent'] >= 100 * FULL_SHARE else 'waits'} | {waits} |"
        )
    return lines


def counts(ways: Mapping[str, Row]) -> list[str]:
    """Calls and bytes, way by way."""
    return [
        "| way | calls of Python | calls of C | bytes while open | bytes kept after |",
        "|---|---|---|---|---|",
        *(
            f"| {way} | {row['python_calls']:.1f} | {row['c_calls']:.1f} "
            f"| {row['open_bytes']:,} | {row['kept_bytes']:,} |"
            for way, row in ways.items()
        ),
    ]


def pairs(found: Mapping[str, Row]) -> list[str]:
    """What has no table of its own."""
    return [
        "| what | figures |",
        "|---|---|",
        *(
            f"| {what} | {', '.join(f'{key} {number(value)}' for key, value in figures.items())} |"
            for what, figures in found.items()
        ),
    ]


def reasons(given: Mapping[Any, str]) -> list[str]:
    """What was left out, each with its reason on one line."""
    return [f"- {what}: {' '.join(reason.split())}" for what, reason in given.items()]


def spread(values: Iterable[float], form: str) -> str:
    """Least, middle and most."""
    ordered = sorted(values)
    if not ordered:
        return NONE
    least, middle, most = (format(v, form) for v in (ordered[0], statistics.median(ordered), ordered[-1]))
    return f"{least} – **{middle}** – {most}"


def number(value: float | None) -> str:
    """Three digits, or all of a whole number."""
    if value is None:
        return NONE
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _machine(found: Found) -> list[str]:
    machine = found["machine"]
    before, after = found["load_average"]
    return [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
        f"pyzmq {machine['pyzmq']} with libzmq {machine['libzmq']}. Load average {before:.2f} before and "
        f"{after:.2f} after, {found['seconds']:.0f} s, installs apart."
    ]


def _picture(found: Found, file: str) -> list[str]:
    return [f"![{file}]({file})"] if file in found["pictures"] else []


def _section(title: str, lines: Sequence[str]) -> list[str]:
    """A heading and what stands under it; nothing where there is nothing."""
    return [f"## {title}", *_joined(lines)] if lines else []


def _joined(lines: Sequence[str]) -> list[str]:
    return ["\n".join(lines)] if lines else []
