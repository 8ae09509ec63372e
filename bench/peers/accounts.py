"""Who used the processors during a phase, and who had no time left.

The kernel accounts for each thread both the time it ran and the time it was ready and waited for a core.
A process one of whose threads did one or the other all the time is the limit of what was measured: where
that is the client, nothing was learned of what stands behind it. Counting the wait makes that true of a
busy machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..processes import NoSchedulerAccountsError, machine_busy_s
from .plan import Assignment

Threads = dict[tuple[int, str], tuple[int, int]]
"""By process and thread: nanoseconds run, and waited for a core."""


def threads_of(pids: Sequence[int]) -> Threads:
    """The accounts of all living threads of some processes. Raises `NoSchedulerAccountsError`."""
    found: Threads = {}
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                ran, waited, _ = (task / "schedstat").read_text().split()
            except ProcessLookupError:
                continue  # a thread that ended just now
            except FileNotFoundError:
                if task.exists():
                    raise NoSchedulerAccountsError("this kernel has no /proc/PID/task/*/schedstat") from None
                continue
            found[pid, task.name] = int(ran), int(waited)
    return found


class Account:
    """What was used from its making on."""

    def __init__(self, assignment: Assignment) -> None:
        self._pids: Mapping[str, Sequence[int]] = {
            "client": [os.getpid()],
            "middle": assignment.middle,
            "worker": assignment.worker,
        }
        self._before = {who: threads_of(pids) for who, pids in self._pids.items()}
        self._machine_s = machine_busy_s()
        self._begun = time.monotonic()

    def used(self) -> dict[str, Any]:
        """Of each party the nanoseconds it ran, and its busiest thread's share; None where it has no process.

        `background_cores` is what all others used meanwhile, to some hundredths of a second.
        """
        seconds = time.monotonic() - self._begun
        others_s = machine_busy_s() - self._machine_s
        found: dict[str, Any] = {}
        for who, pids in self._pids.items():
            before = self._before[who]
            ran = busiest = 0
            for thread, (ran_ns, waited_ns) in threads_of(pids).items():
                ran_before, waited_before = before.get(thread, (0, 0))
                ran += ran_ns - ran_before
                busiest = max(busiest, ran_ns - ran_before + waited_ns - waited_before)
            others_s -= ran / 1e9
            found[f"{who}_ns"] = ran if pids else None
            found[f"{who}_busy"] = busiest / 1e9 / seconds if pids else None
        found["background_cores"] = max(0.0, others_s / seconds)
        return found
