"""A middle is known as well as its groups are many, not as its figures are."""

from __future__ import annotations

import random
import statistics

import pytest

from bench.intervals import of_middle


def test_figures_that_agree_leave_no_doubt() -> None:
    assert of_middle([[1.0, 1.0], [1.0]]) == (1.0, 1.0)


def test_the_middle_lies_in_its_interval_which_is_the_same_each_time() -> None:
    chance = random.Random(7)
    groups = [[chance.gauss(1, 0.05) for _ in range(4)] for _ in range(12)]
    low, high = of_middle(groups)
    assert low < statistics.median([figure for group in groups for figure in group]) < high
    assert (low, high) == of_middle(groups)


def test_more_figures_of_the_same_groups_do_not_make_them_more() -> None:
    few = [[figure] for figure in (0.95, 0.98, 1.0, 1.03, 1.04, 1.07)]
    many = [group * 50 for group in few]
    assert of_middle(many) == pytest.approx(of_middle(few), abs=0.02)


def test_it_holds_what_it_promises() -> None:
    """Most of a hundred experiments have their true middle in it; if all had, it would be too wide.

    Twelve groups are few, so somewhat fewer than 95 do.
    """
    chance = random.Random(3)
    held = 0
    for _ in range(100):
        lucks = [chance.gauss(0, 0.03) for _ in range(12)]
        low, high = of_middle([[1 + luck + chance.gauss(0, 0.03) for _ in range(3)] for luck in lucks])
        held += low <= 1 <= high
    assert 85 <= held <= 98


def test_no_figures_have_no_middle() -> None:
    for nothing in ([], [[]]):
        with pytest.raises(ValueError, match="no figures"):
            of_middle(nothing)
