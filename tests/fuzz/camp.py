"""Runs targets in child processes, watches them from outside, and writes down what they find."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

from tests.fuzz import guided
from tests.fuzz.targets import TARGETS

ROOT: Final = Path(__file__).parents[2]
FOUND: Final = ROOT / "out" / "fuzz"
START_S: Final = 60.0
"""Beside its time: what loading, instrumented code and shrinking a finding may take."""


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


def run_target(name: str, seconds: float, seed: int, *, plain: bool = False, plant: str = "") -> Outcome:
    """Run one target in a process of its own. A process that dies or hangs is a finding."""
    way = "guided" if guided.AVAILABLE and not plain else "plain"
    with tempfile.TemporaryDirectory(prefix="voicebus-fuzz-") as scratch:
        command = [sys.executable, "-m", "tests.fuzz.child", name, str(seconds), str(seed), scratch, way, plant]
        began = time.monotonic()
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        most_s = seconds + START_S + TARGETS[name].most_cpu_s
        try:
            lines, _ = child.communicate(timeout=most_s)
            how = "crash"
        except subprocess.TimeoutExpired:
            child.kill()
            lines, _ = child.communicate()
            how = "hang"
        took_s = time.monotonic() - began
        said: dict[str, Any] = json.loads(lines.splitlines()[-1]) if lines.strip() else {}
        if not said:
            last = Path(scratch, f"{name}.now")
            data = last.read_bytes() if last.is_file() else bytes(4)
            ending = f"the process ended with {child.returncode}" if how == "crash" else f"no end after {most_s:.0f} s"
            said = {"executions": 0, "base_bytes": 0, "peak_bytes": 0, "kind": how, "said": ending}
            said["data"] = data[4 : 4 + int.from_bytes(data[:4])].hex()
    file = _keep(name, bytes.fromhex(said["data"])) if "data" in said else None
    return Outcome(
        name, way, said["executions"], said.get("seconds", took_s), said["base_bytes"], said["peak_bytes"], said.get("kind", ""),
        said.get("said", ""), file,
    )  # fmt: skip


def _keep(name: str, data: bytes) -> Path:
    FOUND.mkdir(parents=True, exist_ok=True)
    file = FOUND / f"{name}-{sha1(data, usedforsecurity=False).hexdigest()[:12]}"
    file.write_bytes(data)
    return file


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
