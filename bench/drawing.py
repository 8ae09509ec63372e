"""What the pictures show, taken out of the rows. `plots.py` draws it, in the environment with matplotlib."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from . import hot
from .peers.plan import SINGLE, TEXT_BYTES, WINDOWED
from .peers.report import values
from .tools import NoToolsError, tools

DRAW_S: Final = 120
OURS: Final = "voicebus"
LABELS: Final[Mapping[str, str]] = {
    "voicebus": "voicebus, Client.map",
    "voicebus-bare": "voicebus, bare client",
    "voicebus-unbundled": "voicebus, no bundles",
    "voicebus-tone": "voicebus, real worker",
}
"""Our rows by what tells them apart; all others bear their own names."""
Bar = dict[str, Any]


def bars(figures: Iterable[tuple[str, Sequence[float]]], *, least_first: bool) -> list[Bar]:
    """A bar for each name that has values: the middle, its extremes, whether it is ours. The best first."""
    found = [
        {
            "name": name,
            "least": min(given),
            "middle": statistics.median(given),
            "most": max(given),
            "ours": name.startswith(OURS),
        }
        for name, given in figures
        if given
    ]
    return sorted(found, key=lambda bar: bar["middle"], reverse=not least_first)


def panel(title: str, unit: str, drawn: list[Bar], *, log: bool = False) -> dict[str, Any]:
    """One half of a picture."""
    return {"title": title, "unit": unit, "bars": drawn, "log": log}


def brokers_picture(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rate and processor time of every broker, small and pipelined."""
    taken = [row for row in rows if row["cell"] == hot.PIPELINED_64]
    names = list(dict.fromkeys(str(row["broker"]) for row in taken))

    def of(what: str) -> list[tuple[str, list[float]]]:
        return [(name, [row[what] for row in taken if row["broker"] == name]) for name in names]

    return {
        "title": "What a broker costs: 200 bytes, 64 requests under way, one worker",
        "note": "The same compiled client and worker for all. Bars: median of the turns; whiskers: least and "
        "most. A request of voicebus is a whole job with all its promises; the others pass a message on.",
        "panels": [
            panel(
                "Requests a second (more is better)", "requests/s", bars(of("rate_per_s"), least_first=False)
            ),
            panel(
                "Broker's processor time a request (less is better)",
                "µs of CPU",
                bars(of("cpu_us_per_request"), least_first=True),
            ),
        ],
    }


def peers_picture(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rate and latency of every system, small answers."""
    names = list(dict.fromkeys(str(row["system"]) for row in rows))

    def of(mode: str, what: str) -> list[tuple[str, list[float]]]:
        return [(LABELS.get(name, name), values(rows, name, mode, TEXT_BYTES, what)) for name in names]

    return {
        "title": "voicebus and other ways to ask a worker: one client, one worker, in Python",
        "note": "200 bytes there and back. Bars: median of the repetitions; whiskers: least and most. "
        "Both axes are logarithmic.",
        "panels": [
            panel(
                "Requests a second, 64 under way (more is better)",
                "requests/s",
                bars(of(WINDOWED, "rate_per_s"), least_first=False),
                log=True,
            ),
            panel(
                "Round trip, one at a time, p50 (less is better)",
                "µs",
                bars(of(SINGLE, "p50_us"), least_first=True),
                log=True,
            ),
        ],
    }


class NotDrawnError(RuntimeError):
    """There are no pictures; the message says why."""


def draw(stages: Mapping[str, Mapping[str, Any]], folder: Path, say: Callable[[str], None]) -> list[str]:
    """Draw what there are rows for into a folder; the files' names. Raises `NotDrawnError`."""
    pictures = {
        f"{name}.png": picture(stages[stage]["rows"])
        for name, stage, picture in (
            ("brokers", "hot", brokers_picture),
            ("peers", "peers", peers_picture),
        )
        if stage in stages and stages[stage]["rows"]
    }
    if not pictures:
        return []
    try:
        python = tools(say) / "python"
    except NoToolsError as error:
        raise NotDrawnError(str(error)) from error
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(python), str(Path(__file__).with_name("plots.py")), str(folder)]
    done = subprocess.run(
        command, input=json.dumps(pictures), capture_output=True, text=True, timeout=DRAW_S, check=False
    )
    if done.returncode:
        raise NotDrawnError(f"matplotlib did not draw: {done.stderr.strip()[-500:]}")
    return list(pictures)
