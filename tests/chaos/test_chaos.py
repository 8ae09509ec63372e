"""A short round of chaos with every run of the tests; `make chaos` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROUND = ("--jobs", "300", "--faults", "19", "--longest", "1.2", "--workers", "2", "--seed", "11")


@pytest.mark.timeout(300)
def test_nothing_is_lost_while_everything_is_broken_once() -> None:
    """Each kind of fault that this machine allows; the order is fixed, the timing is not."""
    command = [sys.executable, "-m", "tests.chaos", *ROUND]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.partition("\nfault ")[2].partition("\nin all")[0].splitlines()[1:]
    missing = [row for row in table if int(row[18:24]) == 0 and "skipped: " not in row]
    assert len(table) == 19
    assert missing == []
    totals = [row.split() for row in done.stdout.splitlines() if row.startswith("in all")][-1]
    jobs, acknowledged, recovered, *wrong = totals[2:]
    assert int(jobs) >= 300
    assert int(jobs) == int(acknowledged) + int(recovered)
    assert wrong == ["0", "0", "0"]
