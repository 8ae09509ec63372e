"""A mistake is answered, a flood is not; and the log has room for other things than strangers."""

from __future__ import annotations

from voicebus.broker.manners import ALLOWANCE, LINES_PER_S, REMEMBERED, Manners


def test_mistakes_are_borne_and_one_too_many_is_not() -> None:
    manners = Manners()
    assert all(manners.offend(b"a", 100.0) for _ in range(ALLOWANCE))
    assert not manners.offend(b"a", 100.0)
    assert manners.offend(b"b", 100.0), "another's offences are not counted against it"


def test_what_was_long_ago_is_forgiven() -> None:
    manners = Manners()
    for second in range(10 * ALLOWANCE):
        assert manners.offend(b"a", 100.0 + second)
    assert all(manners.offend(b"a", 100.0 + 10 * ALLOWANCE) for _ in range(ALLOWANCE))


def test_the_memory_of_offences_is_bounded_and_of_the_newest() -> None:
    manners = Manners()
    for _ in range(ALLOWANCE):
        manners.offend(b"old", 0.0)
    for number in range(REMEMBERED):
        manners.offend(number.to_bytes(4), 0.0)
    newest = (REMEMBERED - 1).to_bytes(4)
    assert manners.offend(b"old", 0.0), "it was forgotten"
    for _ in range(ALLOWANCE - 1):
        manners.offend(newest, 0.0)
    assert not manners.offend(newest, 0.0)


def test_the_log_has_so_many_lines_a_second_for_strangers() -> None:
    manners = Manners()
    written = sum(manners.worth_a_line(100.0 + number / 1000) for number in range(3000))
    assert written == 3 * LINES_PER_S
    assert manners.untold() == f" (and {3000 - written} more like it)"
    assert manners.untold() == ""
