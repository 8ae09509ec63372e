"""What each strategy means, on workers that take and end jobs in an order Hypothesis chooses."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.broker.scheduling import STRATEGIES, Selector, Tier
from voicebus.broker.states import WorkerState


@dataclass(eq=False)
class Hand:
    """As much of a worker as scheduling looks at."""

    name: str
    slots: int = 1
    most_slots: int = 0
    state: int = WorkerState.READY
    inflight: dict[bytes, None] = field(default_factory=dict)
    tier: Tier | None = None
    turn: int = 0
    bucket: float = -1.0


class Desk:
    """A selector and its workers; `waiting` is always plenty unless said."""

    def __init__(self, strategy: str, *slots: int) -> None:
        self.selector = Selector(strategy, random.Random(5).randrange)
        self.hands = [Hand(f"w{number}", count) for number, count in enumerate(slots)]
        self.jobs = 0
        for hand in self.hands:
            self.selector.join(hand)  # pyright: ignore[reportArgumentType] - a stand-in with the same fields

    def give(self, waiting: int = 1000) -> str | None:
        worker = self.selector.pick(waiting)
        if worker is None:
            return None
        self.jobs += 1
        worker.inflight[self.jobs.to_bytes(18)] = None
        self.selector.given(worker)
        return worker.name  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]

    def end(self, number: int) -> None:
        hand = self.hands[number]
        hand.inflight.pop(next(iter(hand.inflight)))
        self.selector.freed(hand)  # pyright: ignore[reportArgumentType] - as above


def test_lru_gives_to_whoever_has_waited_longest() -> None:
    desk = Desk("lru", 1, 1, 1)
    assert [desk.give(0) for _ in range(4)] == ["w0", "w1", "w2", None]
    desk.end(2)
    desk.end(0)
    assert [desk.give(0) for _ in range(3)] == ["w2", "w0", None]


def test_round_robin_keeps_the_turn_however_long_jobs_take() -> None:
    desk = Desk("round_robin", 1, 1, 1)
    assert [desk.give(0) for _ in range(3)] == ["w0", "w1", "w2"]
    desk.end(2)
    desk.end(0)
    assert desk.give(0) == "w0", "w0's turn is before w2's, though w2 was free first"


def test_least_load_fills_the_emptiest_by_share_of_its_slots() -> None:
    desk = Desk("least_load", 1, 4)
    assert Counter(desk.give(0) for _ in range(5)) == {"w0": 1, "w1": 4}
    desk.end(1)
    desk.end(1)
    assert desk.give(0) == "w1"


def test_random_reaches_everyone() -> None:
    desk = Desk("random", *[64] * 4)
    counts = Counter(desk.give() for _ in range(200))
    assert len(counts) == 4
    assert min(counts.values()) > 20


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=200))
def test_no_strategy_invents_or_loses_a_credit(strategy: str, steps: list[tuple[bool, int]]) -> None:
    desk = Desk(strategy, 1, 2, 3)
    for give, number in steps:
        if give:
            idle = [hand for hand in desk.hands if len(hand.inflight) < hand.slots]
            room = [hand for hand in desk.hands if len(hand.inflight) <= hand.slots]
            name = desk.give()
            assert (name is None) == (not room)
            if idle and name:
                assert name in {hand.name for hand in idle}, "an idle slot anywhere goes first"
        elif desk.hands[number].inflight:
            desk.end(number)
        for hand in desk.hands:
            assert len(hand.inflight) <= hand.slots + 1


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_whoever_leaves_is_never_picked(strategy: str) -> None:
    desk = Desk(strategy, 2, 2)
    gone = desk.hands[0]
    desk.selector.leave(gone)  # pyright: ignore[reportArgumentType] - as above
    assert [desk.give() for _ in range(4)] == ["w1", "w1", "w1", None]
    assert desk.selector.slots == 2
