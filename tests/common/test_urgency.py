"""Threads ask the kernel for their turn, and it grants what they may have."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from voicebus.common.urgency import BATCH_STEP, NICEST, OFF, SHORT_SLICE_NS, Urgency, lowest_nice

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux's scheduler is asked")

SEEN = """
import os, threading
from voicebus.common.urgency import Urgency
held = threading.Event()
other = threading.Thread(target=held.wait)
other.start()
threads = (other.native_id, threading.get_native_id())
def seen():
    return {(os.sched_getscheduler(n), os.getpriority(os.PRIO_PROCESS, n)) for n in threads}
urgency = Urgency(%d, fixed=%d)
found = [seen()]
urgency.prefer(patient=True)
found.append(seen())
urgency.prefer(patient=False)
found.append(seen())
held.set()
print(found)
"""
"""What a process of two threads is at first, on batch jobs, and again for a listener."""


def processes(nice: int, before: str = "", *, fixed: int = 0) -> list[set[tuple[int, int]]]:
    code = [sys.executable, "-c", before + SEEN % (nice, fixed)]
    found = subprocess.run(code, capture_output=True, text=True, check=True)
    return ast.literal_eval(found.stdout)


def slice_ns(thread: int) -> int | None:
    """What the kernel grants; None for one that does not say."""
    for line in Path(f"/proc/self/task/{thread}/sched").read_text().splitlines():
        if line.startswith("se.slice"):
            return int(line.split(":")[1])
    return None


def test_a_process_is_urgent_and_patient_with_all_its_threads() -> None:
    started = os.getpriority(os.PRIO_PROCESS, 0)
    changes = lowest_nice() <= started
    nice = started if changes else min(NICEST, started + 5)
    patient = min(NICEST, nice + BATCH_STEP) if changes else nice
    urgent = {(os.SCHED_OTHER, nice)}
    assert processes(started, fixed=5) == [urgent, {(os.SCHED_BATCH, patient)}, urgent]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_the_right_niceness_stays_what_cannot_be_taken_back() -> None:
    """Nicer for a batch job, an engine could never again be as urgent as a listener wants it."""
    drop = """
import os, resource
from voicebus.common import urgency
resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
os.setuid(65534)
"""
    started = os.getpriority(os.PRIO_PROCESS, 0)
    urgent = {(os.SCHED_OTHER, started)}
    assert processes(started - 10, drop) == [urgent, {(os.SCHED_BATCH, started)}, urgent]
    nicer = min(NICEST, started + 5)
    always = [{(policy, nicer)} for policy in (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_OTHER)]
    assert processes(started, drop, fixed=5) == always


def test_a_thread_can_be_urgent_alone() -> None:
    found: list[int | None] = []

    def work() -> None:
        thread = threading.get_native_id()
        urgency = Urgency(os.getpriority(os.PRIO_PROCESS, 0), thread_only=True)
        found.append(slice_ns(thread))
        urgency.prefer(patient=True)
        found.append(slice_ns(thread))
        found.append(os.sched_getscheduler(thread))

    before = (slice_ns(os.getpid()), os.sched_getscheduler(0))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (slice_ns(os.getpid()), os.sched_getscheduler(0)) == before
    assert found[2] == os.SCHED_BATCH
    if before[0] is not None:  # a kernel that has slices
        assert found[:2] == [min(before[0], SHORT_SLICE_NS), before[0]]


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFF, "off")
    found = processes(os.getpriority(os.PRIO_PROCESS, 0) + 1)
    assert found == [{(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))}] * 3


def test_where_the_call_is_forbidden_the_niceness_asked_for_still_counts() -> None:
    code = """
import errno, os
from voicebus.common import urgency
urgency._system_call = lambda number: lambda thread, attributes: errno.EPERM
started = os.getpriority(os.PRIO_PROCESS, 0)
urgency.Urgency(min(19, started + 2)).prefer(patient=True)
print(os.getpriority(os.PRIO_PROCESS, 0) - min(19, started + 2), os.sched_getscheduler(0))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["0", str(os.SCHED_OTHER)]
