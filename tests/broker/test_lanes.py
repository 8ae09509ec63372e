"""Who goes first: interactive before batch, tenants by characters, nobody never. Driven through the core."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.broker.model import Bus
from voicebus.broker.fairness import MOST_TURNS, QUANTUM
from voicebus.broker.lanes import PATIENCE
from voicebus.common import wire
from voicebus.common.messages import Submit, encode


def serve(bus: Bus, times: int) -> list[bytes]:
    """Have the one worker end its jobs, one after the other; the jobs in the order of their giving out."""
    for _ in range(times):
        held = bus.open(b"w")
        if not held:
            break
        bus.finish(b"w", held[0])
    return [key[:16] for key in bus.given(b"w")]


def test_ten_thousand_jobs_of_one_tenant_delay_another_by_one() -> None:
    bus = Bus()
    bus.ready(b"w")
    for number in range(1, 10_001):
        bus.core.submit(*_request(number, "many"), bus.now)
    bus.settle()
    serve(bus, 5)
    wanted = bus.submit(b"d", tenant="few", lane="interactive")
    # One runs and one stands ahead of it: that one is asked back.
    running, ahead = bus.open(b"w")
    cancel = bus.sent.to_worker[b"w"][-1][0]
    assert (cancel[3], cancel[4:22], cancel[23]) == (wire.CANCEL, ahead, wire.UNBEGUN)
    bus.returned(b"w", ahead)
    assert bus.open(b"w")[1][:16] == wanted
    bus.finish(b"w", running)
    assert bus.open(b"w")[0][:16] == wanted
    assert bus.core.ledger.totals["retried"] == 0
    # What was asked back is next, in its old place, and never asked back again.
    bus.finish(b"w", bus.open(b"w")[0])
    assert bus.open(b"w")[0][:16] == ahead[:16]


def _request(number: int, tenant: str) -> tuple[bytes, bytes, bytes, bytes]:
    envelope = wire.pack_envelope(wire.SUBMIT, number.to_bytes(16, "little"))
    return b"c", envelope, encode(Submit(tenant=tenant)), b"hi"


def test_an_attempt_that_began_while_it_was_asked_back_goes_on() -> None:
    bus = Bus()
    bus.ready(b"w")
    jobs = [bus.submit() for _ in range(4)]
    bus.submit(lane="interactive")
    running, ahead = bus.open(b"w")
    bus.finish(b"w", running)
    bus.started(b"w", ahead)
    bus.chunk(b"w", ahead)
    bus.done(b"w", ahead)
    assert [bus.answer(job) for job in jobs[:2]] == ["done", "done"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3000)), min_size=1, max_size=60))
def test_tenants_with_work_get_equal_shares_of_characters(rows: list[tuple[str, int]]) -> None:
    """The bound of deficit round robin: while two tenants both wait, no more than a turn and a job apart."""
    bus = Bus()
    bus.ready(b"w")
    first = bus.submit(tenant="z")
    second = bus.submit(tenant="z")
    cost: dict[bytes, tuple[str, int]] = {}
    for tenant, characters in rows:
        cost[bus.submit(tenant=tenant, characters=characters)] = (tenant, characters)
    left = Counter(tenant for tenant, _ in rows)
    served: Counter[str] = Counter()
    order = serve(bus, len(rows) + 2)
    assert order[:2] == [first, second]
    assert len(order) == len(rows) + 2
    for job in order[2:]:
        tenant, characters = cost[job]
        served[tenant] += characters
        left[tenant] -= 1
        waiting = [other for other in left if left[other]]
        for other in waiting:
            if left[tenant]:
                assert abs(served[tenant] - served[other]) <= 2 * (QUANTUM + 3000)


def test_nobody_pays_less_than_a_quarter_of_his_bytes() -> None:
    bus = Bus()
    bus.ready(b"w")
    for _ in range(2):
        bus.submit(tenant="z")
    liar = [bus.submit(tenant="liar", characters=1, text=b"x" * 1600) for _ in range(4)]
    honest = [bus.submit(tenant="honest", characters=400, text=b"x" * 400) for _ in range(4)]
    order = serve(bus, 10)[2:]
    assert order.index(honest[2]) < order.index(liar[3])
    assert order.index(liar[1]) < order.index(honest[3])


def test_a_job_costs_a_bounded_number_of_turns() -> None:
    bus = Bus()
    bus.ready(b"w")
    for _ in range(2):
        bus.submit(tenant="z")
    huge = bus.submit(tenant="huge", text=b"x" * 200_000)
    small = [bus.submit(tenant="small", characters=QUANTUM) for _ in range(4 * MOST_TURNS)]
    order = serve(bus, 60)[2:]
    assert MOST_TURNS - 2 <= order.index(huge) <= MOST_TURNS + 2
    assert len(order) == len(small) + 1


@pytest.mark.parametrize(("waited_s", "passes"), [(0.0, PATIENCE), (15.0, PATIENCE // 2), (300.0, 1)])
def test_the_longer_a_batch_has_waited_the_more_often_it_passes(waited_s: float, passes: int) -> None:
    bus = Bus(progress_lease_s=1000.0)
    bus.ready(b"w")
    blockers = [bus.submit(lane="interactive") for _ in range(2)]
    batch = [bus.submit() for _ in range(4)]
    bus.pass_time(waited_s, b"w")
    quick = [bus.submit(lane="interactive") for _ in range(40)]
    order = serve(bus, 46)
    assert order[: len(blockers)] == blockers
    places = [order.index(job) for job in batch]
    assert {later - earlier for earlier, later in pairwise(places)} == {passes + 1}
    assert [job for job in order if job in quick] == quick


def test_jobs_of_no_tenant_belong_to_their_connection() -> None:
    bus = Bus()
    bus.ready(b"w")
    for _ in range(8):
        bus.submit(b"c", characters=QUANTUM)
    late = bus.submit(b"d", characters=QUANTUM)
    assert serve(bus, 9).index(late) <= 4
