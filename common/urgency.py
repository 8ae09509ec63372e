"""How urgently threads want a processor: what somebody waits for goes before what nobody does.

On a machine whose processors are all busy, a message waits longer for a turn of the process that carries it
than for anything the bus does. So whoever works on an interactive job asks the kernel for short turns soon,
and whoever works on a batch job lets others go first. Three things are asked of Linux, each as far as it
grants it: a short time slice, which since 6.12 brings the turn forward (a deadline of EEVDF) and needs no
right; the policy SCHED_BATCH, whose threads interrupt nobody when they wake, and which needs none either; and
niceness. That one may always grow, but to take it back a process needs CAP_SYS_NICE or a limit
(RLIMIT_NICE): where it could not, it stays as it is. On other systems only a higher niceness is set.

Source: sched(7), sched_setattr(2), and "EEVDF Scheduler" in the kernel's documentation.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

log = logging.getLogger(__name__)

BATCH_STEP: Final = 15
"""So much nicer is a thread while it works on batch jobs."""
NICEST: Final = 19
SHORT_SLICE_NS: Final = 100_000
"""The shortest that Linux grants."""
OFF: Final = "VOICEBUS_URGENCY"
"""An environment variable: `off` leaves all threads as the system started them."""

_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQII")
"""struct sched_attr: size, policy, flags, nice, priority, runtime (the slice), deadline, period, clamps."""
_CALL: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""sched_setattr's number: the C library has no name for it everywhere."""


class Urgency:
    """The urgency of this process's threads, or of the calling thread alone: urgent at first.

    `nice` is the niceness of urgent work. A value below that of the start takes effect where it is allowed.
    Where no niceness can be taken back, all work is done at `fixed` above it.
    """

    def __init__(self, nice: int, *, fixed: int = 0, thread_only: bool = False) -> None:
        self._thread = threading.get_native_id() if thread_only else None
        self._patient: bool | None = None
        number = _CALL.get(platform.machine()) if sys.platform == "linux" else None
        self._call = None if number is None or sys.maxsize < 2**32 else _system_call(number)
        started, floor = os.getpriority(os.PRIO_PROCESS, 0), lowest_nice()
        self.nice = min(NICEST, nice if nice >= started else min(started, max(nice, floor)))
        if floor <= self.nice:
            self.batch_nice = min(NICEST, self.nice + BATCH_STEP)
        else:
            self.nice = self.batch_nice = min(NICEST, self.nice + fixed)
        if os.environ.get(OFF) == "off":
            self._call = None
            return
        self.prefer(patient=False)
        if self._call is None and not thread_only:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, self.nice)

    def prefer(self, *, patient: bool) -> None:
        """Be patient, or urgent again. Costs nothing if that is what it is."""
        if patient is self._patient or self._call is None:
            return
        self._patient = patient
        policy = os.SCHED_BATCH if patient else os.SCHED_OTHER
        nice, slice_ns = (self.batch_nice, 0) if patient else (self.nice, SHORT_SLICE_NS)
        wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, 0, nice, 0, slice_ns, 0, 0, 0, 0)
        threads = [self._thread] if self._thread else map(int, os.listdir("/proc/self/task"))
        for thread in threads:
            problem = self._call(thread, wanted)
            # A thread may have ended; a sandbox may forbid the call, now and for ever.
            if problem and os.path.exists(f"/proc/self/task/{thread}"):
                log.info("threads keep their place in the line for a processor: %s", os.strerror(problem))
                self._call = None
                return


def lowest_nice() -> int:
    """The lowest niceness that threads of this process may take: -20 with the right to any.

    20, which is none at all, where they may only become nicer.
    """
    found = NICEST + 1

    def probe() -> None:
        nonlocal found
        import resource

        with suppress(OSError, AttributeError):
            found = NICEST + 1 - resource.getrlimit(resource.RLIMIT_NICE)[0]
        # On Linux niceness is a thread's: whether it works is tried where it does no harm.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)
            found = -20

    if sys.platform == "linux":
        thread = threading.Thread(target=probe, name="nice")
        thread.start()
        thread.join()
    return found


def _system_call(number: int) -> Callable[[int, bytes], int]:
    library = ctypes.CDLL(None, use_errno=True)

    def call(thread: int, attributes: bytes) -> int:
        return 0 if library.syscall(number, thread, attributes, 0) == 0 else ctypes.get_errno()

    return call
