"""The wheel against the obvious: a dictionary of deadlines, looked through whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voicebus.broker.deadlines import GRANULARITY_S, DeadlineWheel

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.floats(0, 50)),
        st.tuples(st.just("drop"), st.floats(0, 1)),
        st.tuples(st.just("wait"), st.floats(0, 20)),
    ),
    max_size=60,
)


@given(STEPS)
def test_everything_expires_once_never_early_and_never_late(steps: list[tuple[str, float]]) -> None:
    wheel, now, number = DeadlineWheel(), 1000.0, 0
    watched: dict[bytes, float] = {}
    buckets: dict[bytes, dict[bytes, None]] = {}
    for step, amount in steps:
        if step == "add":
            number += 1
            job = number.to_bytes(16)
            watched[job] = now + amount
            buckets[job] = wheel.add(job, watched[job])
        elif step == "drop" and watched:
            job = sorted(watched)[int(amount * (len(watched) - 1))]
            del watched[job], buckets[job][job]
        else:
            now += amount
            due = wheel.expired(now)
            assert len(due) == len(set(due))
            for job in due:
                assert watched.pop(job) <= now
            assert all(deadline > now - GRANULARITY_S for deadline in watched.values())
        assert len(wheel) == len(watched)
        upcoming = wheel.next_deadline()
        assert (upcoming is None) == (not watched)
        if upcoming is not None:
            assert min(watched.values()) <= upcoming <= min(watched.values()) + GRANULARITY_S + 1e-6


def test_finished_jobs_leave_nothing_behind() -> None:
    """A heap kept every finished job until its deadline: minutes of traffic."""
    wheel = DeadlineWheel()
    for number in range(10_000):
        del wheel.add(number.to_bytes(16), 600.0)[number.to_bytes(16)]
    assert len(wheel) == 0
    assert wheel.next_deadline() is None
