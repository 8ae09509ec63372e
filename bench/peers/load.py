"""The client's side of a measurement, the same for every system: ask, keep the window full, check, account.

A system gives its way of asking in one of two shapes. A `Link` sends many requests in one burst and hands
over what has been answered in one burst: for clients that poll. `in_tasks` has as many asyncio tasks as the
window is wide, each awaiting its own answer: for clients made of coroutines. In both every request is timed
by itself and every byte of its answer is compared; an answer that is wrong, missing or comes twice is an
error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final, Protocol

from ..processes import percentile
from .accounts import Account
from .plan import Assignment, Phase, answer_of, text_of

ANSWER_S: Final = 15.0
"""An answer that takes longer is missing."""


class Link(Protocol):
    """A client that sends and reads in bursts."""

    def ask(self, texts: Sequence[tuple[int, bytes]]) -> None:
        """Send requests, each a number and its text."""
        ...

    def answers(self) -> Sequence[tuple[int, bytes]]:
        """Wait for an answer at least, and give all that are here. Raises `TimeoutError`."""
        ...


class Tally:
    """What was asked in one phase, when, and what came back."""

    def __init__(self, phase: Phase, seconds: float, numbers: Iterator[int]) -> None:
        self.phase = phase
        self.errors = 0
        self.reason = ""
        self._numbers = numbers
        self._asked: dict[int, tuple[int, bytes]] = {}
        self._taken_ns: list[int] = []
        self._begun_ns = self._last_ns = time.perf_counter_ns()
        self._until_ns = self._begun_ns + int(seconds * 1e9)

    @property
    def open(self) -> bool:
        """Whether more may be asked."""
        return time.perf_counter_ns() < self._until_ns

    @property
    def waiting(self) -> int:
        """Requests not answered yet."""
        return len(self._asked)

    def request(self) -> tuple[int, bytes]:
        """One more request. Its clock runs from here."""
        number = next(self._numbers)
        text = text_of(number, self.phase.size_bytes)
        self._asked[number] = time.perf_counter_ns(), text
        return number, text

    def answered(self, number: int, answer: bytes, expected: bytes | None = None) -> None:
        """Note an answer. `expected`: where the worker makes something else of the text than `answer_of`."""
        now = time.perf_counter_ns()
        asked = self._asked.pop(number, None)
        if asked is None:
            self.failed(number, f"request {number} was answered twice, or never asked")
            return
        begun, text = asked
        if answer != (answer_of(text) if expected is None else expected):
            self.failed(number, f"request {number} was answered wrongly: {answer[:60]!r}")
            return
        self._taken_ns.append(now - begun)
        self._last_ns = now

    def failed(self, number: int, reason: str) -> None:
        """Note that a request failed."""
        self._asked.pop(number, None)
        self.errors += 1
        self.reason = self.reason or reason

    def lost(self, reason: str) -> None:
        """Give up what is still waiting."""
        for number in list(self._asked):
            self.failed(number, reason)

    def figures(self) -> dict[str, Any]:
        """Rate and latency, for the runner."""
        seconds = (self._last_ns - self._begun_ns) / 1e9
        taken = self._taken_ns
        return {
            "mode": self.phase.mode,
            "size_bytes": self.phase.size_bytes,
            "answers": len(taken),
            "seconds": seconds,
            "p50_us": percentile(taken, 0.5) / 1000 if taken else None,
            "p99_us": percentile(taken, 0.99) / 1000 if taken else None,
            "errors": self.errors,
            "reason": self.reason,
        }


def in_bursts(link: Link) -> Callable[[Tally], None]:
    """Take a phase over a link: as many new requests as there were answers."""

    def run(tally: Tally) -> None:
        link.ask([tally.request() for _ in range(tally.phase.window)])
        while tally.waiting:
            try:
                found = link.answers()
            except TimeoutError as error:
                tally.lost(str(error) or "no answer")
                return
            for number, answer in found:
                tally.answered(number, answer)
            if tally.open:
                link.ask([tally.request() for _ in found])

    return run


async def in_tasks(ask: Callable[[bytes], Awaitable[bytes]], tally: Tally) -> None:
    """Take a phase with a task for each place in the window."""

    async def place() -> None:
        while tally.open:
            number, text = tally.request()
            try:
                tally.answered(number, await ask(text))
            except Exception as error:
                tally.failed(number, repr(error))

    try:
        async with asyncio.timeout(tally.phase.seconds + ANSWER_S):
            await asyncio.gather(*(place() for _ in range(tally.phase.window)))
    except TimeoutError:
        tally.lost("no answer")


def take(assignment: Assignment, run: Callable[[Tally], None]) -> None:
    """Take every phase, warm, and print a line of JSON for each."""
    numbers = count()
    for phase in assignment.phases:
        if phase.warm_s:
            run(Tally(phase, phase.warm_s, numbers))
        account = Account(assignment)
        tally = Tally(phase, phase.seconds, numbers)
        run(tally)
        print(json.dumps({**tally.figures(), **account.used()}), flush=True)


def play(roles: Mapping[str, Callable[..., None]]) -> None:
    """Be one of a system's ends, as the command line says: ROLE ARGUMENT…"""
    roles[sys.argv[1]](*sys.argv[2:])
