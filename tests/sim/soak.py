"""Many histories on all cores for a given time, summed up; and histories under a mutation until it shows."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.sim.mutations import MUTATIONS
from tests.sim.world import Outcome, World

SEEDS_A_CORE: Final = 10_000_000
MOST_FAILURES: Final = 5
"""Failing histories a core reports before it stops."""
MUTATION_HISTORIES: Final = 300
"""A mutation must be caught within so many."""
COLLECT_EVERY: Final = 50


@dataclass
class Sum:
    """What many histories came to."""

    histories: int = 0
    seconds: float = 0.0
    accepted: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    failures: list[tuple[int, list[str]]] = field(default_factory=list[tuple[int, list[str]]])
    longest: tuple[float, int] = (0.0, 0)
    "Virtual seconds that the slowest history needed after its last fault, and its seed."

    def add(self, outcome: Outcome) -> None:
        """Count a history."""
        self.histories += 1
        self.accepted += outcome.accepted
        self.counts += outcome.counts
        self.faults += outcome.faults
        self.longest = max(self.longest, (outcome.healed_s, outcome.seed))
        if outcome.complaints:
            self.failures.append((outcome.seed, outcome.complaints))

    def merge(self, other: Sum) -> None:
        """Count what another core has done at the same time."""
        self.histories += other.histories
        self.seconds = max(self.seconds, other.seconds)
        self.accepted += other.accepted
        self.counts += other.counts
        self.faults += other.faults
        self.failures += other.failures
        self.longest = max(self.longest, other.longest)

    def complaints(self, *beginnings: str) -> int:
        """How many complaints there are of some kinds."""
        said = [line.partition(": ")[2] for _, lines in self.failures for line in lines]
        return sum(line.startswith(beginnings) for line in said)


def quiet() -> None:
    """The cores log each fault they meet; here that would be all they do."""
    logging.disable(logging.CRITICAL)


def run(seeds: Iterable[int], until: float, *, strict: bool = False) -> Sum:
    """Run histories until a time on the monotonic clock."""
    quiet()
    total = Sum()
    began = time.monotonic()
    gc.disable()  # a history is one heap of cycles, gone as a whole
    try:
        for seed in seeds:
            total.add(World(seed, strict=strict).run())
            if total.histories % COLLECT_EVERY == 0:
                gc.collect()
            if time.monotonic() >= until or len(total.failures) >= MOST_FAILURES:
                break
    finally:
        gc.enable()
    total.seconds = time.monotonic() - began
    return total


def _core(first: int, seconds: float, strict: bool) -> Sum:
    seeds = range(first, first + SEEDS_A_CORE)
    return run(seeds, time.monotonic() + seconds, strict=strict)


def soak(first: int, seconds: float, *, strict: bool = False, cores: int | None = None) -> Sum:
    """Run histories on all cores, each with its own range of seeds from `first` on."""
    cores = cores or os.cpu_count() or 1
    tasks = [(first + core * SEEDS_A_CORE, seconds, strict) for core in range(cores)]
    total = Sum()
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        for part in pool.starmap(_core, tasks):
            total.merge(part)
    return total


def hunt(mutation: str, histories: int = MUTATION_HISTORIES, first: int = 0) -> Outcome | None:
    """Run histories under a mutation until one notices; None if none does."""
    quiet()
    with MUTATIONS[mutation]():
        for seed in range(first, first + histories):
            outcome = World(seed).run()
            if outcome.complaints:
                return outcome
    return None
