"""What an engine process finds in its environment: what libraries read once, when they are loaded.

That is too early for a message to tell them, so the agent says it when it starts the process. Whoever has
set one of these variables for the agent knows why, and keeps it; only `threads` is a setting of the worker.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from .engines.threads import default_threads, usable_cores

THREADS: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
WAIT_POLICY: Final = "OMP_WAIT_POLICY"
SPIN_COUNT: Final = "GOMP_SPINCOUNT"
SHORT_SPIN: Final = "10000"
"""Some hundred microseconds: between two operators of a step, but not from one job to the next."""
TUNABLES: Final = "GLIBC_TUNABLES"
HUGE_PAGES: Final = "glibc.malloc.hugetlb"
"""1: by madvise(2), as far as the kernel has them at hand. Before glibc 2.35 nobody knows it, nor minds."""


def engine_environment(threads: int | None, slots: int = 1) -> dict[str, str]:
    """Variables for each engine process of a worker with so many, beside those of the agent itself.

    `threads` limits the numeric libraries of each. OpenMP's threads wait for each other by spinning, for
    milliseconds. Where others want their cores that is a disaster; where the cores are theirs, threads that
    sleep at once are slower by what it takes to wake them. So they spin shortly if this worker's engines
    have a core for each thread, and else not at all. Figures: `bench/README.md`, "Engines"; so for huge
    pages for what glibc allocates, weights above all.
    """
    chosen: dict[str, str] = {}
    if threads is not None:
        chosen |= dict.fromkeys(THREADS, str(threads))
    if WAIT_POLICY not in os.environ and SPIN_COUNT not in os.environ:
        chosen[WAIT_POLICY] = "passive"
        if slots * (threads or default_threads()) <= usable_cores():
            chosen[SPIN_COUNT] = SHORT_SPIN  # which libgomp takes for more than the policy
    others = os.environ.get(TUNABLES, "")
    if sys.platform == "linux" and HUGE_PAGES not in others:
        chosen[TUNABLES] = f"{others}:{HUGE_PAGES}=1" if others else f"{HUGE_PAGES}=1"
    return chosen
