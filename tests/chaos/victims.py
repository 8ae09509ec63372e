"""Processes that are stopped and killed by handle, so that no signal ever reaches a stranger.

A process id may be used again as soon as its process was waited for, by its agent for instance. A descriptor
(`pidfd`) names the very process for as long as it is held.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType


class Victim:
    """A process by its id, held by descriptor. Raises `ProcessLookupError` if there is none."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False if it has ended."""
        try:
            signal.pidfd_send_signal(self._handle, number)
        except ProcessLookupError:
            return False
        return True

    def stop(self, seconds: float) -> bool:
        """SIGSTOP, and SIGCONT after a while."""
        if not self.signal(signal.SIGSTOP):
            return False
        time.sleep(seconds)
        self.signal(signal.SIGCONT)
        return True

    def __enter__(self) -> Victim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)


@contextmanager
def child_of(pid: int, choose: int) -> Generator[Victim | None]:
    """One of the children of a process, chosen by a number; None if it has none."""
    pids = _children(pid)
    if not pids:
        yield None
        return
    try:
        victim = Victim(pids[choose % len(pids)])
    except ProcessLookupError:
        yield None
        return
    with victim:
        # It still is a child of that one: the id was not used again before we held it.
        yield victim if victim.pid in _children(pid) else None


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        return []
    return sorted(found)
