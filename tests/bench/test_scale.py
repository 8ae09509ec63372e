"""The scale benchmark on a small scale: what it counts is counted right, and no job is lost on the way."""

from __future__ import annotations

from typing import Any

import pytest

from bench import scale, scale_core
from bench.scale import Report, Size
from bench.scale_core import LostJobError, Simulation

SMALL = Size(workers=20, jobs=400, clients=5, placed=100, beat_s=0.3, core_jobs=1000)


def rows(report: Report) -> dict[str, Any]:
    return {row["what"]: row["value"] for row in report.rows}


def test_a_small_herd_registers_beats_and_is_given_jobs() -> None:
    report = Report(say=lambda _line: None)
    scale.many_workers(report, SMALL, scale.one_worker(report, SMALL))
    assert report.wrong == []
    found = rows(report)
    assert found["still registered after that"] == 20
    assert found["jobs answered"] == found["jobs given to workers"] == 110
    assert found["memory of one worker"] > 0


def test_what_waited_is_answered_once_by_workers_that_appear() -> None:
    report = Report(say=lambda _line: None)
    scale.deep_queue(report, SMALL)
    assert report.wrong == []
    answered = [row["value"] for row in report.rows if row["what"] == "jobs answered"]
    assert answered[0] + answered[1] == pytest.approx(400, abs=10)
    assert answered[1] == 5


def test_a_wrong_count_is_told() -> None:
    report = Report(say=lambda _line: None)
    report.must("jobs answered", 99, 100)
    assert report.wrong == ["jobs answered: 99, not 100"]


@pytest.mark.parametrize(("workers", "queued"), [(1, 0), (30, 0), (1, 50), (30, 50)])
def test_simulated_jobs_use_all_workers_and_leave_the_queue_as_deep_as_it_was(
    workers: int, queued: int
) -> None:
    simulation = Simulation(workers, queued)
    simulation.fill()
    waiting = simulation.core.pools.waiting()
    simulation.run(500)
    simulation.check()
    assert simulation.ended == 500
    assert waiting == simulation.core.pools.waiting() == queued
    assert all(worker.jobs_done > 0 for worker in simulation.core.members.by_peer.values())
    simulation.core.check_invariants()


def test_a_simulated_job_that_is_lost_is_noticed() -> None:
    simulation = Simulation(2, 0)
    simulation.fill()
    simulation.run(10)
    simulation.submitted += 1
    with pytest.raises(LostJobError):
        simulation.check()


def test_a_row_for_each_decade_of_jobs() -> None:
    found = list(scale_core.measure(3, 0, 20_000))
    assert [(row.first, row.last) for row in found] == [(0, 1000), (1000, 10_000), (10_000, 20_000)]
