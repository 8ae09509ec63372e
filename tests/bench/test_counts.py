"""A request must not come to need more Python than it did: the one figure that is the same everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import counts

GROWTH = 1.10


@pytest.mark.parametrize("name", counts.WAYS)
def test_a_request_takes_no_more_calls_than_were_recorded(name: str) -> None:
    """A tenth is allowed: what a fault costs that is worth mending. More slows every request there will be.

    Should it be worth that, `python -m bench.counts --record` writes the new numbers down. Do so only after a
    look at where they come from, and say in the commit why they had to grow: each recording forgives all that
    has crept in since the last one.
    """
    recorded = counts.recorded(counts.version())
    if not recorded:
        pytest.skip(f"no counts were recorded for Python {counts.version()}: python -m bench.counts --record")
    python, c = counts.count_calls(way := counts.WAYS[name](counts.FULL_CACHE_BYTES))
    way.close()
    assert python + c <= GROWTH * recorded[name].calls, (
        f"{name}: a request takes {python + c:.1f} calls, {recorded[name].calls:.1f} were recorded; "
        "if there is no way around it: python -m bench.counts --record, and say why"
    )


@pytest.mark.parametrize("name", counts.WAYS)
def test_counts_are_the_same_every_time(name: str) -> None:
    """They were not when the collector came in between, after tests that leave things to be ended."""

    def once() -> tuple[float, float]:
        way = counts.WAYS[name](counts.FULL_CACHE_BYTES)
        found = counts.count_calls(way)
        way.close()
        return found

    assert once() == once()


def test_only_what_is_done_inside_is_counted() -> None:
    def work() -> None:
        str.upper("a")
        inner()

    def inner() -> None:
        len("a")

    assert counts.counted(work) == (1, 2)
    assert counts.counted(lambda: None) == (0, 0)


def test_jobs_that_go_another_way_are_no_count() -> None:
    way = counts.CoreWay(counts.FULL_CACHE_BYTES)
    way.core.begin_drain()
    with pytest.raises(counts.MiscountError):
        counts.count_calls(way)


def test_what_was_recorded_for_other_versions_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "RECORDED", tmp_path / "counts.json")
    figures = counts.Figures(10.0, 5.0, 1, 2.0, 3, 4.0, 5)
    counts.record("3.12", {"core": figures})
    counts.record("3.11", {"core": replace(figures, c_calls=6.0)})
    assert counts.recorded("3.12") == {"core": figures}
    assert counts.recorded("3.11")["core"].calls == 16.0
    assert counts.recorded("3.10") == {}
