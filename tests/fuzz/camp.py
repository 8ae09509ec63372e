"""Runs targets in child processes, watches them from outside, and writes down what they find."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

from tests.fuzz import guided
from tests.fuzz.target import CORPUS

ROOT: Final = Path(__file__).parents[2]
FOUND: Final = ROOT / "out" / "fuzz"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one target. `kind` is empty where nothing was found."""

    name: str
    way: str
    executions: int
    seconds: float
    base_bytes: int
    peak_bytes: int
    kind: str = ""
    said: str = ""
    file: Path | None = None


def run_targets(
    names: Sequence[str],
    seconds: float,
    seed: int,
    *,
    plain: bool = False,
    grow: bool = False,
    plant: str = "",
) -> list[Outcome]:
    """Run targets one after the other, each for so long. A process that dies or hangs is a finding.

    `grow`: what reached new code goes into the corpus,
    merged with what is there into the fewest and smallest.
    """
    way = "guided" if guided.AVAILABLE and not plain else "plain"
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="voicebus-fuzz-") as scratch:
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.child",
            ",".join(names),
            str(seconds),
            str(seed),
            scratch,
            way,
            plant,
        ]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        for line in done.stdout.splitlines():
            said: dict[str, Any] = json.loads(line)
            name: str = said["name"]
            if grow and not said.get("kind"):
                merge(name, Path(scratch, "grown", name))
            file = _keep(name, bytes.fromhex(said["data"])) if "data" in said else None
            outcomes.append(
                Outcome(
                    name, way, said["executions"], said.get("seconds", seconds), said.get("base_bytes", 0),
                    said.get("peak_bytes", 0), said.get("kind", ""), said.get("said", ""), file,
                )
            )  # fmt: skip
    return outcomes


def _keep(name: str, data: bytes) -> Path:
    FOUND.mkdir(parents=True, exist_ok=True)
    file = FOUND / f"{name}-{sha1(data, usedforsecurity=False).hexdigest()[:12]}"
    file.write_bytes(data)
    return file


def merge(name: str, grown: Path) -> None:
    """Put into a target's corpus what reaches code that nothing in it reaches yet."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.guided", name, "-merge=1", str(folder), str(grown)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def table(outcomes: Sequence[Outcome]) -> str:
    """What was run, line by line."""
    rows = [f"{'target':<16}{'way':<8}{'executions':>12}{'a second':>10}{'peak MiB':>10}{'grown':>8}  found"]
    for outcome in outcomes:
        a_second = outcome.executions / max(0.001, outcome.seconds)
        grown = (outcome.peak_bytes - outcome.base_bytes) >> 20
        rows.append(
            f"{outcome.name:<16}{outcome.way:<8}{outcome.executions:>12,}{a_second:>10,.0f}"
            f"{outcome.peak_bytes >> 20:>10,}{grown:>8,}  {outcome.kind or '-'}"
        )
    return "\n".join(rows)
