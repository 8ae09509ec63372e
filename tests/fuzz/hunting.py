"""One target, many inputs: run, measured, and stopped at the first promise that is broken.

The loop changes inputs at random and keeps those that were refused in a way, or led to a state, not seen
before: a poor man's coverage that needs no instrumented code. Atheris (`guided.py`) does it properly, where
there is one. Time is the processor's, so a busy machine makes no hang of a slow input.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from types import FrameType
from typing import Final

from tests.fuzz.target import Target

MAX_POOL: Final = 2000
_UNIT: Final = 1 if sys.platform == "darwin" else 1024


class HangError(Exception):
    """An input takes more processor time than it may."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise that an input breaks. `kind` is crash, hang or memory."""

    kind: str
    said: str
    data: bytes


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def try_once(target: Target, data: bytes) -> Finding | None:
    """Run one input. What breaks a promise comes back, and what ends processes goes through."""
    before, began = peak_bytes(), time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, target.most_cpu_s)
    try:
        target.run(data)
    except HangError:
        return Finding("hang", traceback.format_exc(), data)
    except Exception:
        # Code under test may take the alarm for an error of its own.
        late = time.process_time() - began > target.most_cpu_s
        return Finding("hang" if late else "crash", traceback.format_exc(), data)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    took_s = time.process_time() - began
    if took_s > target.most_cpu_s:
        return Finding(
            "hang", f"took {took_s:.1f} s of the processor, {target.most_cpu_s:g} s are allowed", data
        )
    grown = peak_bytes() - before
    if grown > target.most_growth_bytes:
        said = f"took {grown >> 20} MiB of memory, {target.most_growth_bytes >> 20} are allowed"
        return Finding("memory", said, data)
    return None


def arm() -> None:
    """Let a virtual alarm raise `HangError`, wherever Python code is at that moment."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise HangError("this takes too long")

    signal.signal(signal.SIGVTALRM, ring)


def hunt(
    target: Target,
    seed: int,
    *,
    seconds: float = float("inf"),
    executions: int = 1 << 62,
    before: Callable[[bytes], None] = lambda _data: None,
) -> tuple[int, Finding | None]:
    """Run seeds, then changes of them, until time or number is used up or something is found.

    `before` is told each input before it is run, in case it is the last.
    """
    arm()
    dice = Random(seed)
    pool = target.inputs()
    until = time.monotonic() + seconds
    count = 0
    for data in pool:
        before(data)
        count += 1
        finding = try_once(target, data)
        if finding is not None:
            return count, finding
    while count < executions and time.monotonic() < until:
        data = dice.choice(pool)
        for _ in range(dice.choice((1, 1, 1, 2, 2, 4))):
            data = target.mutate(data, dice)[: target.max_bytes]
        if dice.random() < 0.02:
            other = dice.choice(pool)
            data = (data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other) + 1) :])[
                : target.max_bytes
            ]
        before(data)
        count += 1
        finding = try_once(target, data)
        if finding is not None:
            return count, finding
        if dice.random() < 0.01 and len(pool) < MAX_POOL:
            pool.append(data)
    return count, None


def shrunk(target: Target, finding: Finding, seconds: float = 10.0) -> Finding:
    """A smaller input that breaks a promise in the same way: pieces are left out for as long as it does."""
    until = time.monotonic() + seconds
    best = finding
    size = max(1, len(best.data) // 2)
    while size and time.monotonic() < until:
        at = 0
        while at < len(best.data) and time.monotonic() < until:
            smaller = try_once(target, best.data[:at] + best.data[at + size :])
            if smaller is not None and (smaller.kind, _last(smaller)) == (best.kind, _last(best)):
                best = smaller
            else:
                at += size
        size //= 2
    return best


def _last(finding: Finding) -> str:
    return finding.said.strip().splitlines()[-1][:60]
