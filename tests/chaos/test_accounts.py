"""The accounting itself: books in which nothing could ever be wrong would show nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.accounts import Ear, Fate, account
from tests.chaos.diary import Diary, Row, read
from tests.chaos.report import faults_found
from tests.chaos.talker import text_of
from tests.chaos.totals import Totals

RIGHT = "right"
FULL = [(100.0, 110.0)]


def row(what: str, detail: str = "-", *, life: int = 1, at: float = 0.0) -> Row:
    return Row(at, life, what, 0, detail)


BEGUN, DONE = row("begun"), row("done", RIGHT)
SUBMITTED, ACCEPTED = row("submitted", "job"), row("accepted", "job")


@pytest.mark.parametrize(
    ("story", "fate"),
    [
        ([BEGUN, DONE], Fate.ACKNOWLEDGED),
        ([BEGUN, SUBMITTED, ACCEPTED, DONE], Fate.ACKNOWLEDGED),
        ([BEGUN, row("begun", life=2), row("done", RIGHT, life=2)], Fate.RECOVERED),
        ([BEGUN, row("refused", "storage_error", at=105), DONE], Fate.RECOVERED),
        ([BEGUN, row("refused", "overloaded", at=199), DONE], Fate.RECOVERED),
        ([BEGUN, row("refused", "storage_error", at=105), row("refused", "x", at=109), DONE], Fate.RECOVERED),
        ([], Fate.LOST),
        ([BEGUN], Fate.LOST),
        ([BEGUN, SUBMITTED, ACCEPTED, row("failed", "unknown_job", life=2)], Fate.LOST),
        ([BEGUN, DONE, DONE], Fate.DUPLICATED),
        ([BEGUN, DONE, row("done", RIGHT, life=2)], Fate.DUPLICATED),
        ([BEGUN, DONE, row("failed", "worker_lost")], Fate.DUPLICATED),
        ([BEGUN, row("done", "audio of another")], Fate.UNEXPECTED),
        ([BEGUN, row("failed", "worker_lost")], Fate.UNEXPECTED),
        ([BEGUN, SUBMITTED, row("failed", "unknown_job", life=2)], Fate.UNEXPECTED),
        ([BEGUN, row("refused", "storage_error", at=99), DONE], Fate.UNEXPECTED),
        ([row("begun", at=111), row("refused", "storage_error", at=112), DONE], Fate.UNEXPECTED),
        ([BEGUN, row("refused", "x", at=111), row("refused", "x", at=112), DONE], Fate.UNEXPECTED),
    ],
)
def test_each_job_has_one_fate(story: list[Row], fate: Fate) -> None:
    found = account(story, 1, lambda _: RIGHT, FULL)
    assert found.fates == {fate: 1}
    complaints = faults_found({"someone": found}, Totals(), [])
    assert bool(complaints) == (fate not in (Fate.ACKNOWLEDGED, Fate.RECOVERED))


def test_lines_beyond_the_least_number_count_as_well() -> None:
    rows = [Row(0, 1, "begun", index, "-") for index in range(5)]
    rows += [Row(0, 1, "done", index, RIGHT) for index in range(4)]
    found = account(rows, 3, lambda _: RIGHT, [])
    assert found.jobs == 5
    assert found.fates == {Fate.ACKNOWLEDGED: 4, Fate.LOST: 1}


def test_what_was_fetched_by_a_successor_is_known() -> None:
    fetched = [BEGUN, SUBMITTED, row("begun", life=2), row("done", RIGHT, life=2)]
    anew = [BEGUN, SUBMITTED, row("submitted", "other", life=2), row("done", RIGHT, life=2)]
    assert account(fetched, 1, lambda _: RIGHT, []).fetched == 1
    assert account(anew, 1, lambda _: RIGHT, []).fetched == 0


def test_deaths_and_what_the_brokers_should_never_count_are_complaints() -> None:
    totals = Totals()
    totals.totals["protocol_errors"] = 1
    assert len(faults_found({}, totals, ["tone-0 ended by itself"])) == 2


def test_a_torn_row_is_none_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    Diary(path, 1).write("done", 1, "abcdef")
    whole = path.read_bytes()
    for torn in range(1, len(whole)):
        path.write_bytes(whole + whole[:torn])
        Diary(path, 2).write("done", 2, "0123")
        rows = [(found.life, found.index, found.detail) for found in read(path)]
        if torn < len(whole) - 1:
            assert rows == [(1, 1, "abcdef"), (2, 2, "0123")], torn
        else:
            assert rows == [(1, 1, "abcdef")] * 2 + [(2, 2, "0123")]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_every_line_sounds_different() -> None:
    ear = Ear()
    digests = {
        ear.digest(text_of(name, index)) for name in ("plain-0", "plain-1", "named-3") for index in range(40)
    }
    assert len(digests) == 120
