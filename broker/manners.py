"""How long a peer that speaks no VB1 is answered: a mistake is, a flood is not.

Each malformed message gets one answer, which is what the author of a client needs, and costs us as much as a
good one. So a connection has an allowance, which comes back with time; once it is used up the peer is turned
away. What is written to the log about strangers is bounded as well, over all of them. Sans-IO.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

ALLOWANCE: Final = 32
FORGIVEN_PER_S: Final = 1.0
REMEMBERED: Final = 10_000
"""Connections whose offences are counted; the oldest of more are forgotten."""
LINES_PER_S: Final = 10


class Manners:
    """Offences by connection."""

    def __init__(self) -> None:
        self._offences: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._lines_in = 0
        "The second whose lines are counted."
        self._lines = 0
        self._untold = 0

    def offend(self, peer: bytes, now: float, weight: float = 1.0) -> bool:
        """Count an offence. False: it was one too many."""
        count, since = self._offences.pop(peer, (0.0, now))
        count = max(0.0, count - (now - since) * FORGIVEN_PER_S) + weight
        if count > ALLOWANCE:
            return False
        self._offences[peer] = count, now
        if len(self._offences) > REMEMBERED:
            self._offences.popitem(last=False)
        return True

    def worth_a_line(self, now: float) -> bool:
        """Whether the log has room for one more line about a stranger."""
        second = int(now)
        if second != self._lines_in:
            self._lines_in, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES_PER_S:
            self._untold += 1
            return False
        return True

    def untold(self) -> str:
        """What to put behind such a line: how many were not written since the last one that was."""
        untold, self._untold = self._untold, 0
        return f" (and {untold} more like it)" if untold else ""
