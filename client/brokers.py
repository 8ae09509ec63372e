"""The lines to the brokers: which of them is alive, when to ask, when to dial again.

A line is CLOSED (no socket; dialled again after a pause), OPENING (a socket, not a word yet) or UP. Life is
judged by unanswered PINGs and not by the clock, so a client that was itself stopped for a while does
not take a healthy broker for dead. Pauses grow with each failure and are drawn at random over
their whole length, so that the clients of a restarted broker do not come back in step. Sans-IO, like
the core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Final

from ..common import wire

if TYPE_CHECKING:
    from ..common.errors import BusError
    from .task import Task

SILENT_INTERVALS: Final = 3
REDIAL_FIRST_S: Final = 0.1
REDIAL_MOST_S: Final = 2.0

Frames = tuple[bytes, ...]


class LineState(IntEnum):
    """What is known of a broker."""

    CLOSED = 0
    OPENING = 1
    UP = 2


class Line:
    """One broker. `heard` and `sent` are set on the hot path and looked at once an interval.

    `out` is what the link must send; `dial` and `hang_up` ask it to make or drop the socket.
    """

    __slots__ = (
        "address",
        "beat_at",
        "cut_short",
        "dial",
        "hang_up",
        "heard",
        "interval_s",
        "missed",
        "number",
        "out",
        "pings",
        "redial_at",
        "refusal",
        "rejections",
        "sent",
        "state",
    )

    def __init__(self, number: int, address: str, interval_s: float) -> None:
        self.number = number
        self.address = address
        self.interval_s = interval_s
        self.state = LineState.CLOSED
        self.heard = False
        self.sent = False
        self.missed = 0
        self.pings = 0
        self.rejections = 0
        "Times in a row that this broker did not come up."
        self.refusal: BusError | None = None
        "Why the broker does not let us in, as it was last heard."
        self.cut_short = 0
        "Handshakes in a row that broke off without a word."
        self.beat_at = inf
        self.redial_at = 0.0
        self.out: list[Frames] = []
        self.dial = False
        self.hang_up = False

    def open(self, now: float) -> None:
        """Ask for a fresh socket and greet the broker."""
        self.state = LineState.OPENING
        self.refusal = None
        self.dial = True
        self.redial_at = inf
        self.missed = 0
        self.heard = False
        self.out.clear()
        self.ping(now)

    def ping(self, now: float) -> None:
        """Ask for a sign of life and note when to look for it."""
        self.pings = (self.pings + 1) & 0xFFFFFFFF
        self.out.append((wire.pack_envelope(wire.PING, sequence=self.pings),))
        self.beat_at = now + self.interval_s

    def beat(self, now: float) -> bool:
        """An interval has passed: PING where silence calls for it. False: the broker is gone."""
        heard, sent = self.heard, self.sent
        self.heard = self.sent = False
        if heard:
            self.missed = 0
        else:
            self.missed += 1
            if self.missed >= SILENT_INTERVALS:
                return False
        if heard and sent:
            self.beat_at = now + self.interval_s
        else:
            # Also when the broker speaks and we do not: it must hear that its listener is alive.
            self.ping(now)
        return True

    def wake(self, now: float) -> None:
        """There is work again after a quiet time in which nobody beat."""
        self.missed = 0
        self.beat_at = now + self.interval_s

    def close(self, now: float, random: Callable[[], float]) -> None:
        """Drop the socket and everything queued in it; come back after a random pause."""
        self.state = LineState.CLOSED
        self.hang_up = True
        self.dial = False
        self.out.clear()
        self.beat_at = inf
        longest_s = min(REDIAL_MOST_S, REDIAL_FIRST_S * 2 ** min(self.rejections, 16))
        self.rejections += 1
        self.redial_at = now + random() * longest_s

    def up(self, now: float) -> None:
        """The broker has spoken."""
        self.state = LineState.UP
        self.refusal = None
        self.cut_short = 0
        self.rejections = 0
        self.missed = 0
        self.beat_at = now + self.interval_s


def ranked(lines: Sequence[Line], job: bytes) -> list[Line]:
    """All lines, best first for this job: rendezvous hashing.

    Every client ranks a job's brokers alike, and a lost broker moves only its own jobs.
    """
    if len(lines) == 1:
        return list(lines)
    return sorted(
        lines,
        key=lambda line: blake2b(line.address.encode(), key=job, digest_size=8).digest(),
        reverse=True,
    )


def place(lines: Sequence[Line], task: Task) -> Line:
    """The broker for a task: its home, else the best for its job among those in the best state.

    Brokers that do not know the job are left out; at least one must not have been asked yet.
    """
    if len(lines) == 1:
        return lines[0]
    if task.home >= 0:
        return lines[task.home]
    untried = [line for line in ranked(lines, task.job) if not task.tried >> line.number & 1]
    return max(untried, key=lambda line: line.state)
