"""Ratios and the headline, on made-up rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from bench import hot
from bench.brokers.stands import BUNDLED, C_BROKER, PROXY, VOICEBUS


def row(cell: str, broker: str, repetition: int, rate: float, credit: int = 0, **more: Any) -> dict[str, Any]:
    base = hot.Row(
        cell=cell, broker=broker, dialect="echo", size_bytes=200, workers=1, credit=credit, window=64,
        offered_per_s=0, repetition=repetition, rate_per_s=rate, cpu_us_per_request=1.0, p50_us=100.0,
        p99_us=200.0, max_us=300.0, per_bundle=0.0, errors=0, background_cores=0.0,
    )  # fmt: skip
    return asdict(base) | more


def test_ratios_are_of_the_same_round() -> None:
    """The machine halves its pace in the second round: the ratio does not feel it."""
    rows = [
        row(hot.PIPELINED_64, BUNDLED.name, 0, 50),
        row(hot.PIPELINED_64, PROXY.name, 0, 100),
        row(hot.PIPELINED_64, BUNDLED.name, 1, 25),
        row(hot.PIPELINED_64, PROXY.name, 1, 50),
        row(hot.PIPELINED_64, BUNDLED.name, 2, 1),  # its counterpart did not answer
        row(hot.PIPELINED_64, PROXY.name, 2, 0),
        row(hot.PIPELINED_256, BUNDLED.name, 0, 7),
    ]
    assert hot.ratios(rows, hot.PIPELINED_64, BUNDLED, PROXY, "rate_per_s") == [0.5, 0.5]


def test_the_headline_tells_one_credit_from_two() -> None:
    rows = [
        row(hot.EIGHT, BUNDLED.name, 0, 60, 2),
        row(hot.EIGHT, C_BROKER.name, 0, 80, 1),
        row(hot.EIGHT, C_BROKER.name, 0, 120, 2),
        row(hot.SIXTY_FOUR, BUNDLED.name, 0, 50, 2),
        row(hot.SIXTY_FOUR, C_BROKER.name, 0, 200, 1),
        row(hot.SIXTY_FOUR, C_BROKER.name, 0, 500, 2),
        row(hot.PIPELINED_64, BUNDLED.name, 0, 50, cpu_us_per_request=12.0),
        row(hot.PIPELINED_64, VOICEBUS.name, 0, 30, cpu_us_per_request=30.0),
        row(hot.PIPELINED_64, PROXY.name, 0, 100),
    ]
    figures = hot.headline(rows)
    assert figures["ratio_to_c_broker_credit1"] == pytest.approx((0.75 + 0.25) / 2)
    assert figures["ratio_to_c_broker_same_credit"] == pytest.approx((0.5 + 0.1) / 2)
    assert figures["broker_us_per_request"] == 12.0
    assert figures["broker_us_per_request_unbundled"] == 30.0
    assert figures["ratio_to_proxy_200B"] == 0.5
    assert figures["ratio_to_proxy_200KB"] is None


def test_the_table_has_a_line_for_each_broker_and_credit() -> None:
    rows = [
        row(hot.EIGHT, C_BROKER.name, turn, 100 * (1 + turn), credit)
        for turn in range(3)
        for credit in (1, 2)
    ]
    lines = hot.table(rows)
    assert len(lines) == 3
    assert "200 (100 - 300)" in lines[1]
    assert hot.table([]) == []


def test_every_cell_of_the_quick_grid_stands_in_the_full_one() -> None:
    """Otherwise the two passes would call different things by the same name."""
    full = {cell.name: cell for cell in hot.GRID}
    assert len(full) == len(hot.GRID)
    for cell in hot.QUICK_GRID:
        other = full[cell.name]
        assert (cell.size_bytes, cell.workers, cell.credit, cell.window, cell.rate_per_s) == (
            other.size_bytes, other.workers, other.credit, other.window, other.rate_per_s
        )  # fmt: skip
        assert set(cell.contestants) <= set(other.contestants)
