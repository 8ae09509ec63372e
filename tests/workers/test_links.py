from __future__ import annotations

from itertools import pairwise

import pytest

from voicebus.common.messages import Welcome
from voicebus.workers.links import Link, Timing, jittered, shares
from voicebus.workers.states import LinkState, Referee

TIMING = Timing(interval_s=1.0, liveness=3, backoff_base_s=0.25, backoff_cap_s=5.0)


def link(index: int = 0, state: LinkState = LinkState.IDLE, random: float = 1.0) -> Link:
    made = Link(index, f"tcp://b{index}", TIMING, Referee(strict=True), lambda: random)
    made.state = state
    return made


def test_backoff_doubles_up_to_its_cap_and_is_drawn_from_the_whole_range() -> None:
    waits = [jittered(0.25, 5.0, failures, lambda: 1.0) for failures in range(100)]
    assert waits[:5] == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert all(first <= second for first, second in pairwise(waits))
    assert waits[-1] == 5.0
    assert jittered(0.25, 5.0, 3, lambda: 0.0) == 0.0


def test_a_link_counts_silence_in_the_brokers_intervals() -> None:
    made = link()
    made.connect(10.0)
    assert not made.is_silent(12.9)
    assert made.is_silent(13.0)
    made.welcome(Welcome("b", 200, 4), 12.0)
    made.heard_at = 12.0
    assert made.next_deadline() == pytest.approx(12.2)
    assert not made.is_silent(12.7)
    assert made.is_silent(12.81)
    made.lose(13.0)
    assert made.interval_s == 1.0
    assert made.next_deadline() == 13.25


def test_slots_are_shared_by_those_that_can_use_them() -> None:
    registered = [link(index, LinkState.REGISTERED) for index in range(3)]
    assert shares(registered, 8) == {0: 3, 1: 3, 2: 2}
    assert shares(registered, 1) == {0: 1, 1: 1, 2: 1}
    registered[1].state = LinkState.LOST
    assert shares(registered, 8) == {0: 4, 2: 4}
    assert shares(registered, 8, registered[1]) == {0: 3, 1: 3, 2: 2}
    failing = link(3, LinkState.CONNECTING)
    failing.failures = 2
    assert shares([registered[0], failing], 8) == {0: 8}
