"""One broker's registration of this worker: when to speak, when to give it up, when to try again.

A link owns its clocks and its state and knows nothing of jobs. Backoff is exponential with full jitter, so
that the workers of a restarted broker do not come back in one herd; the jitter is injected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from ..common.messages import Welcome
from .states import LINK_MOVES, LinkState, Referee

if TYPE_CHECKING:
    from ..common.errors import BusError

OPEN_STATES: Final = frozenset({LinkState.CONNECTING, LinkState.REGISTERED, LinkState.DRAINING})
"""The states in which there is a socket."""
MAX_DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True)
class Timing:
    """All the spans of time a worker goes by, in seconds."""

    interval_s: float = 1.0
    "Between beats, until a broker's WELCOME says otherwise."
    liveness: int = 3
    "Silent intervals that mean the broker is gone, until a WELCOME says otherwise."
    backoff_base_s: float = 0.25
    backoff_cap_s: float = 5.0
    restart_base_s: float = 0.1
    restart_cap_s: float = 30.0
    cancel_grace_s: float = 20.0
    "How long an engine may take to notice that it was cancelled, before its process is ended."
    learn_grace_s: float = 300.0
    "How long learning a voice counts as progress; after that only audio does."
    stop_grace_s: float = 3.0
    "How long an engine process may take to end by itself."
    idle_unload_s: float = inf
    "How long an engine with nothing to do stays loaded."


def jittered(base_s: float, cap_s: float, failures: int, random: Callable[[], float]) -> float:
    """Draw a wait, uniform between 0 and base × 2^failures, at most cap: backoff with full jitter."""
    return min(cap_s, base_s * 2 ** min(failures, MAX_DOUBLINGS)) * random()


class Link:
    """The state and clocks of one registration."""

    __slots__ = (
        "_random",
        "_referee",
        "_timing",
        "address",
        "beat_at",
        "cut_short",
        "failures",
        "heard_at",
        "index",
        "interval_s",
        "liveness",
        "most_slots",
        "refusal",
        "refusals",
        "retry_at",
        "slots",
        "state",
    )

    def __init__(
        self, index: int, address: str, timing: Timing, referee: Referee, random: Callable[[], float]
    ) -> None:
        self.index = index
        self.address = address
        self.state = LinkState.IDLE
        self.interval_s = timing.interval_s
        self.liveness = timing.liveness
        self.heard_at = self.beat_at = self.retry_at = 0.0
        self.failures = 0
        "Losses in a row without a WELCOME between."
        self.refusals = 0
        "GOODBYEs in a row in answer to READY."
        self.refusal: BusError | None = None
        "Why the broker does not let this worker in, as it was last heard."
        self.cut_short = 0
        "Handshakes in a row that broke off without a word."
        self.slots = self.most_slots = 0
        "The share of the worker's slots this broker was told of, and the largest it ever was."
        self._timing = timing
        self._referee = referee
        self._random = random

    @property
    def is_open(self) -> bool:
        """Whether there is a socket to send on."""
        return self.state in OPEN_STATES

    def move(self, state: LinkState) -> None:
        """Take a state."""
        self.state = self._referee.judge(LINK_MOVES, self.state, state)

    def connect(self, now: float) -> None:
        """READY goes out now; the broker has its usual time to answer."""
        self.move(LinkState.CONNECTING)
        self.heard_at = now

    def welcome(self, header: Welcome, now: float) -> None:
        """Take the intervals the broker named, and register if that is news."""
        self.interval_s = header.interval_ms / 1000
        self.liveness = header.liveness
        self.failures = self.refusals = self.cut_short = 0
        self.refusal = None
        self.beat_at = min(self.beat_at, now + self.interval_s)
        if self.state is LinkState.CONNECTING:
            self.move(LinkState.REGISTERED)
            self.beat_at = now + self.interval_s

    def lose(self, now: float) -> float:
        """Give the socket up; return the seconds until the next try."""
        self.move(LinkState.LOST)
        wait_s = jittered(
            self._timing.backoff_base_s, self._timing.backoff_cap_s, self.failures, self._random
        )
        self.failures += 1
        self.retry_at = now + wait_s
        self.interval_s, self.liveness = self._timing.interval_s, self._timing.liveness
        return wait_s

    def is_silent(self, now: float) -> bool:
        """Whether the broker has been quiet for too long."""
        return self.is_open and now >= self.heard_at + self.interval_s * self.liveness

    def next_deadline(self) -> float:
        """When this link wants to be looked at."""
        if self.state is LinkState.LOST:
            return self.retry_at
        if not self.is_open:
            return inf
        silent_at = self.heard_at + self.interval_s * self.liveness
        return silent_at if self.state is LinkState.CONNECTING else min(silent_at, self.beat_at)


def shares(links: Sequence[Link], slots: int, joining: Link | None = None) -> dict[int, int]:
    """Split a worker's slots over the brokers that can use them: link index → slots, at least one each.

    Counted are the registered links, those on their first try, and `joining`. A broker gives a worker
    slots + 1 jobs, so with more brokers than slots a little more waits here than is ideal: one slot is the
    least that can be registered.
    """
    live = [
        link
        for link in links
        if link is joining
        or link.state is LinkState.REGISTERED
        or (link.state is LinkState.CONNECTING and not link.failures)
    ]
    if not live:
        return {}
    base, extra = divmod(slots, len(live))
    return {link.index: max(1, base + (place < extra)) for place, link in enumerate(live)}
