"""Many lines under way: order, bounds, laziness and failures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.client.task import Task
from voicebus.client.window import HELD_WINDOWS, MOST_ADAPTED, Window
from voicebus.common.errors import BadRequest, BrokerUnreachable, UnknownVoice
from voicebus.common.text import Piece

from .fakes import FakeLink, chunk, end, started

Parts = tuple[list[Task], list[Piece]]


def window(size: int, *, in_order: bool = True, adapts: bool = False) -> tuple[FakeLink, Window]:
    link = FakeLink()

    def open_line(item: str) -> Parts:
        if not item:
            raise BadRequest("empty")
        return [Task(word.encode(), b"", None) for word in item.split()], [Piece(w) for w in item.split()]

    return link, Window(link, open_line, size, in_order=in_order, adapts=adapts)


def finish(rows: Window, task: Task) -> None:
    started(task)
    chunk(task, task.job * 2)
    end(task)
    rows.ended([task])


def test_an_endless_input_is_read_only_as_far_as_results_are_taken() -> None:
    link, rows = window(3)
    read = count()

    def endless() -> Iterator[str]:
        for number in read:
            yield f"l{number}"

    lines = endless()
    assert rows.fill(lines)
    assert len(link.submitted) == 3
    for _ in range(50):
        # The head never ends: the lines behind it go on for a while, then wait.
        busy = [task for task in link.submitted[1:] if not task.ended]
        for task in busy:
            finish(rows, task)
        rows.fill(lines)
    assert len(link.submitted) == 3 * HELD_WINDOWS
    finish(rows, link.submitted[0])
    assert [result.index for result in rows.ready()] == list(range(3 * HELD_WINDOWS))


@given(st.permutations(range(8)), st.booleans())
def test_every_line_comes_once_in_the_order_asked_for(order: list[int], in_order: bool) -> None:
    link, rows = window(8, in_order=in_order)
    rows.fill(iter([f"l{number}" for number in range(8)]))
    tasks = list(link.submitted)
    seen: list[int] = []
    for number in order:
        finish(rows, tasks[number])
        seen += [result.index for result in rows.ready()]
    assert seen == (list(range(8)) if in_order else order)
    assert rows.empty


def test_a_line_that_cannot_be_sent_is_a_result_like_any_other() -> None:
    link, rows = window(4)
    rows.fill(iter(["ab", "", "cd"]))
    finish(rows, link.submitted[1])
    assert rows.ready() == []
    finish(rows, link.submitted[0])
    results = rows.ready()
    assert [result.index for result in results] == [0, 1, 2]
    assert isinstance(results[1].error, BadRequest)
    assert results[1].speech is None
    assert results[0].error is None


def test_a_line_of_several_pieces_fails_once_and_stops_its_other_pieces() -> None:
    link, rows = window(4)
    rows.fill(iter(["ab cd ef"]))
    first, second, third = link.submitted
    end(second, UnknownVoice("who?"))
    rows.ended([second])
    assert link.cancelled == [first, third]
    assert rows.ready() == [], "it is over when all its pieces are"
    for task in (first, third):
        end(task)
        rows.ended([task])
    (result,) = rows.ready()
    assert isinstance(result.error, UnknownVoice)


def test_a_broker_that_is_away_is_no_reason_to_give_up_the_other_pieces_of_a_line() -> None:
    """A durable batch that was stopped by it is taken up: a cancelled piece would then be its failure."""
    link, rows = window(4)
    rows.fill(iter(["ab cd"]))
    first, second = link.submitted
    end(first, BrokerUnreachable("gone"))
    rows.ended([first])
    assert (link.cancelled, link.left) == ([], [second])


def test_closing_leaves_what_is_under_way_to_the_link_which_knows_what_is_durable() -> None:
    link, rows = window(4)
    rows.fill(iter(["ab", "cd"]))
    finish(rows, link.submitted[0])
    rows.close()
    assert (link.cancelled, link.left) == ([], [link.submitted[1]])


def test_a_result_names_its_jobs() -> None:
    link, rows = window(4)
    rows.fill(iter(["ab"]))
    finish(rows, link.submitted[0])
    (result,) = rows.ready()
    assert result.jobs == (b"ab".hex(),)


def rounds(link: FakeLink, rows: Window, times: int, queued_ahead: int, lines: Iterator[str]) -> int:
    """End what is under way, time and again, all of it accepted behind so many; what is then under way."""
    for _ in range(times):
        rows.fill(lines)
        for task in [task for task in link.submitted if not task.ended]:
            task.queued_ahead = queued_ahead
            finish(rows, task)
        rows.ready()
        link.submitted.clear()
    rows.fill(lines)
    return len(link.submitted)


def test_the_window_grows_while_the_bus_could_do_more_and_shrinks_when_others_wait() -> None:
    link, rows = window(4, adapts=True, in_order=False)
    lines = (f"l{number}" for number in count())
    assert rounds(link, rows, 1, 0, lines) == 5, "one for each time that others could have been under way"
    assert rounds(link, rows, 3000, 0, lines) == MOST_ADAPTED
    assert rounds(link, rows, 1, MOST_ADAPTED, lines) == MOST_ADAPTED, "as many wait as are ours: that is us"
    assert rounds(link, rows, 3, 10_000, lines) == 4
    fixed_link, fixed = window(4)
    assert rounds(fixed_link, fixed, 20, 0, lines) == 4


def test_a_window_that_is_not_full_says_nothing_of_the_bus() -> None:
    link, rows = window(4, adapts=True)
    assert not rows.fill(iter(["a", "b"]))
    for task in link.submitted:
        task.queued_ahead = 0
        finish(rows, task)
    assert not rows.fill(iter([]))
    link.submitted.clear()
    rows.fill(f"l{number}" for number in range(100))
    assert len(link.submitted) == 4


def test_a_line_is_sent_before_the_next_one_is_waited_for_unless_all_are_there() -> None:
    link, rows = window(4)
    sent: list[int] = []

    def slow() -> Iterator[str]:
        for number in range(3):
            sent.append(len(link.submitted))
            yield f"l{number}"

    rows.fill(slow())
    assert sent == [0, 1, 2]
    link, rows = window(4)
    rows.fill(iter(["a", "b", "c"]))
    assert link.calls == [3]


def test_lines_that_were_begun_are_sent_also_when_the_input_fails() -> None:
    link, rows = window(4)

    class Broken:
        left = 2

        def __iter__(self) -> Iterator[str]:
            return self

        def __length_hint__(self) -> int:
            return 10

        def __next__(self) -> str:
            if not self.left:
                raise OSError("the disk is gone")
            self.left -= 1
            return "line"

    with pytest.raises(OSError, match="gone"):
        rows.fill(Broken())
    assert len(link.submitted) == 2
