"""The interactive benchmark on a small scale: the loads are what they say, and what is read is what it is."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench import interactive
from bench.interactive import Load, Size


def test_bulk_is_pulled_under_each_load_but_none_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive, "BULK_WORKERS", 1)
    monkeypatch.setattr(interactive, "PINGS", 10)
    found = interactive.measure(Size(rounds=1, sentences=5, round_s=10.0), clients=2)
    assert (found["failed"], found["wrong_bulk_results"]) == (0, 0)
    rows = found["rows"]
    assert [row["sentences"] for row in rows] == [5] * 8
    for row in rows:
        assert (row["bulk_mb_per_s"] == 0) == row["load"].startswith("none"), row
    assert rows[0]["p99_to_unloaded"] == rows[4]["p99_to_unloaded"] == 1.0
    assert sum(1 for _ in interactive.shown(found)) == 3 + 2 * len(rows)


def test_a_family_is_a_process_and_what_it_started() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        give_up_at = time.monotonic() + 20
        while len(interactive.family(child.pid)) < 2:
            assert time.monotonic() < give_up_at
        assert child.pid in interactive.family(os.getpid())
        child.communicate(b"\n")


def test_a_ratio_is_of_the_99th_percentiles() -> None:
    load = Load(
        "some", [0.001] * 98 + [0.004] * 2, [0.001], 2.5, 4_000_000, 2.0, 1.0, {"broker": 100_000_000}
    )
    row = load.row(0.002)
    assert row["p99_to_unloaded"] == 2.0
    assert row["bulk_mb_per_s"] == 2.0
    assert row["waited_for_a_processor_ms"] == {"broker": 1.0}
