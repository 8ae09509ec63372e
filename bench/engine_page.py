"""The engines' figures as a page of Markdown, with a verdict on each row that has a budget."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any, Final

from .tables import spread

BUDGET: Final = 1.02
"""Time over the bus by time of the engine alone."""


def page(found: Mapping[str, Any]) -> str:
    """The figures, and how they were got."""
    before, after = found["load_average"]
    host = found["machine"]
    lines = [
        "# Engines: what they speak in a second, and what the bus costs",
        "",
        f"Written by `{found['command']}` on {found['date']}. {host['cpu']}, {host['cores']} cores, "
        f"{host['system']}, Python {host['python']}, {host['gpu'] or 'no GPU'}; load average {before:.2f} "
        f"before and {after:.2f} after. Where three figures stand, they are least – **middle** – most.",
        "",
        f"XTTS-v2: {found['xtts']}, {found['tokens']} tokens a row{found['settings']}. "
        f"Threads: {found['threads']}. *Over the bus by alone*: the time of the same work through broker, "
        "worker and client by that of the engine called in a process of its own, pair by pair in one run, "
        "with all processes started anew after every few pairs. One that is called alone is started as "
        "anybody would start it; a worker gives its engines huge pages, and other ways for threads to wait. "
        "*Outside the engine*: what of the time over the bus the engine's process did not spend on the jobs. "
        "*Middle, 95 %*: where it would lie with other starts of the same kind. "
        "The host's look at each segment's sound is in Kokoro's figures; at the babble of random weights it "
        "is off.",
        "",
        "| engine | | pairs | audio s a round | audio s per s, alone | over the bus | over the bus by alone "
        "| middle, 95 % | budget | | processor time over the bus by alone | outside the engine, ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        low, high = row["middle"]
        kept = statistics.median(row["ratio"]) <= BUDGET
        lines.append(
            f"| {row['engine']} | {row['form']} | {len(row['ratio'])} | {row['audio_s']:.1f} "
            f"| {spread(row['direct_rate'], '.3f')} | {spread(row['bus_rate'], '.3f')} "
            f"| {spread(row['ratio'], '.3f')} | {low:.3f} – {high:.3f} | ≤ {BUDGET:g} "
            f"| {'kept' if kept else '**missed**'} "
            f"| {spread(row['processor'], '.3f')} | {spread(row['outside_ms'], '.1f')} |"
        )
    lines += [f"\n{sentence}" for sentence in found["notes"]]
    lines.append("\nOn a GPU: [engines-gpu.md](engines-gpu.md).")
    return "\n".join(lines) + "\n"
