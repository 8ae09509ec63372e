"""The budget of second tries: a share of what is under way, and the rest wait for their turn."""

from __future__ import annotations

import pytest

from tests.broker.model import Bus

WORKERS = [f"w{number}".encode() for number in range(20)]


def crash(bus: Bus, peer: bytes) -> None:
    """The engine of a worker dies in the middle of its job."""
    (key,) = bus.open(peer)
    bus.started(peer, key)
    bus.failed(peer, key, "worker_lost")


@pytest.mark.parametrize(("floor", "ratio", "at_once"), [(3, 0.0, 3), (1, 0.5, 10)])
def test_a_batch_that_brings_everything_down_is_tried_again_a_few_at_a_time(
    floor: int, ratio: float, at_once: int
) -> None:
    bus = Bus(retry_floor=floor, retry_ratio=ratio)
    for worker in WORKERS:
        bus.ready(worker)
    jobs = [bus.submit() for _ in WORKERS]
    busy = [worker for worker in WORKERS if bus.open(worker)]
    assert len(busy) == 20
    for worker in busy:
        crash(bus, worker)
    retried = [worker for worker in WORKERS if bus.open(worker)]
    assert 0 < len(retried) <= at_once
    assert [bus.answer(job) for job in jobs] == ["open"] * 20
    # Each that ends lets another go, and in the end none was given up.
    for _ in range(100):
        for worker in WORKERS:
            for key in bus.open(worker):
                bus.finish(worker, key)
                assert sum(len(bus.open(other)) for other in WORKERS) <= at_once
    assert [bus.answer(job) for job in jobs] == ["done"] * 20
    assert bus.core.ledger.totals["retried"] == 20


def test_a_retry_that_waits_can_be_cancelled_and_expires() -> None:
    bus = Bus(retry_floor=1, retry_ratio=0.0)
    for worker in WORKERS[:3]:
        bus.ready(worker)
    first, cancelled, late = bus.submit(), bus.submit(), bus.submit(ms=1000)
    for worker in WORKERS[:3]:
        crash(bus, worker)
    assert sum(len(bus.open(worker)) for worker in WORKERS[:3]) == 1
    bus.cancel(cancelled)
    bus.pass_time(1.5, *WORKERS[:3])
    assert [bus.answer(job) for job in (first, cancelled, late)] == ["open", "cancelled", "deadline_exceeded"]


def test_handing_back_is_no_retry_and_needs_no_budget() -> None:
    bus = Bus(retry_floor=1, retry_ratio=0.0)
    for worker in WORKERS[:4]:
        bus.ready(worker)
    for _ in range(4):
        bus.submit()
    for worker in WORKERS[:2]:
        for key in bus.open(worker):
            bus.returned(worker, key)
    assert sum(len(bus.open(worker)) for worker in WORKERS[:4]) == 4
    assert (bus.core.ledger.totals["returned"], bus.core.ledger.totals["retried"]) == (2, 0)
    assert not bus.core.attempts.budget.active


def test_a_job_that_waited_behind_a_wedged_one_is_not_held_guilty() -> None:
    """Caught: both lost an attempt, so three such neighbours made poison of an innocent job."""
    bus = Bus(progress_lease_s=5.0, max_attempts=1)
    bus.ready(b"w1")
    jobs = [bus.submit() for _ in range(4)]
    wedged, behind = bus.open(b"w1")
    bus.started(b"w1", wedged)
    bus.pass_time(6.0, b"w1")
    assert bus.answer(jobs[0]) == "poison_job"
    assert bus.answer(jobs[1]) == "open"
    assert behind[:16] == jobs[1]
