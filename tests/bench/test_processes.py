"""What the benchmarks know of processes: their time, their ends, and that none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.processes import (
    Running,
    cpu_ns,
    free_port,
    machine_busy_s,
    percentile,
    rss_bytes,
    until,
    wait_listening,
)

DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
SPAWNS = (
    "import subprocess, time; child = subprocess.Popen(['sleep', '60']);"
    "print(child.pid, flush=True); time.sleep(60)"
)


def test_processor_time_counts_all_threads() -> None:
    before, machine_before = cpu_ns(os.getpid()), machine_busy_s()
    begun = time.thread_time_ns()
    while time.thread_time_ns() - begun < 50_000_000:
        pass
    used = cpu_ns(os.getpid()) - before
    # The kernel brings its account up to date at every tick, 10 ms at most.
    assert used >= 30_000_000
    assert machine_busy_s() - machine_before >= 0.03
    assert rss_bytes(os.getpid()) > 1_000_000


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile([7], 0.01) == 7
    assert percentile([1, 2, 3], 1) == 3
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_child_that_does_not_hear_sigterm_is_killed() -> None:
    with Running([sys.executable, "-c", DEAF], output=subprocess.PIPE, end_s=0.3) as child:
        assert child.line("deaf", 10) == "deaf"
    assert child.process.returncode == -signal.SIGKILL


def test_a_group_leaves_no_grandchild() -> None:
    with Running([sys.executable, "-c", SPAWNS], output=subprocess.PIPE, group=True) as child:
        grandchild = int(child.line("", 10))
        assert Path(f"/proc/{grandchild}").exists()

    def gone() -> bool:
        try:
            return ") Z " in Path(f"/proc/{grandchild}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    until(gone, 5, "the grandchild's end")


def test_waiting_for_a_line_ends_when_the_child_does_or_time_is_up() -> None:
    with (
        Running([sys.executable, "-c", "print('other')"], output=subprocess.PIPE) as child,
        pytest.raises(RuntimeError, match="ended with 0"),
    ):
        child.line("ready", 10)
    with Running(["sleep", "60"], output=subprocess.PIPE) as child:
        with pytest.raises(TimeoutError, match="ready"):
            child.line("ready", 0.05)
        child.check()
    with pytest.raises(RuntimeError, match="ended with"):
        child.check()


def test_a_port_is_free_until_somebody_listens() -> None:
    port = free_port()
    with pytest.raises(TimeoutError):
        wait_listening(port, 0.02)
    with Running([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]):
        assert wait_listening(port, 10) >= 0
