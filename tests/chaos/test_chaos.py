"""A short round of chaos with every run of the tests; `make chaos` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_is_lost_while_everything_is_killed_once() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--jobs", "800", "--faults", "12", "--seed", "11"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost                              0" in done.stdout
