"""A text heard piece by piece: order, look-ahead, joins, and what an error in the middle does."""

from __future__ import annotations

import numpy as np
import pytest

from voicebus.client.reading import FADE_S, Reading, joined
from voicebus.client.task import Task
from voicebus.common.errors import WorkerLost
from voicebus.common.text import Piece

from .fakes import RATE_HZ, FakeLink, chunk, end, started

FADE = int(FADE_S * RATE_HZ)


def loud(samples: int, value: int = 8000) -> bytes:
    return np.full(samples, value, dtype="<i2").tobytes()


def reading(pieces: int, ahead: int = 2) -> tuple[FakeLink, Reading]:
    link = FakeLink()
    texts = [Piece(f"Piece {number}.", 0.1 if number < pieces - 1 else 0.0) for number in range(pieces)]

    def make(piece: Piece, listening: bool) -> Task:
        return Task(piece.text.encode(), b"", None, listening=listening)

    return link, Reading(link, texts, make, ahead=ahead)


def test_the_first_piece_is_heard_while_it_is_spoken_and_later_ones_wait_their_turn() -> None:
    link, text = reading(3)
    assert text.step() == []
    assert len(link.submitted) == 2, "the look-ahead is bounded"
    first, second = link.submitted
    started(second, "fast")
    chunk(second, loud(400))
    end(second)
    assert text.step() == []
    started(first)
    chunk(first, loud(400))
    heard = text.step()
    assert [part.piece for part in heard] == [0]
    chunk(first, loud(100))
    end(first)
    heard = text.step()
    assert [part.piece for part in heard] == [0, 0, 1, 1]
    assert len(link.submitted) == 3
    third = link.submitted[2]
    assert third.listening, "it became the one that is heard"
    started(third)
    chunk(third, loud(10))
    end(third)
    assert {part.piece for part in text.step()} == {2}
    assert text.finished


def test_nothing_is_lost_at_the_joins_and_nothing_jumps() -> None:
    link, text = reading(3, ahead=3)
    text.step()
    parts = [loud(1000), loud(3), loud(500)]
    for task, pcm in zip(link.submitted, parts, strict=True):
        started(task)
        chunk(task, pcm)
        end(task)
    chunks = text.step()
    assert [part.last for part in chunks] == [False] * (len(chunks) - 1) + [True]
    samples = np.concatenate([part.samples for part in chunks]).astype(int)
    assert len(samples) == 1503 + 2 * int(0.1 * RATE_HZ)
    steps = np.abs(np.diff(samples))
    assert steps[:-1].max() <= 8000 // min(FADE, 3) + 1
    assert samples[0] == samples[-1] == 8000, "the ends of the text are as the engine made them"
    tasks = [Task(b"", b"", None) for _ in parts]
    for task, pcm in zip(tasks, parts, strict=True):
        started(task)
        chunk(task, pcm)
        end(task)
    whole = joined(tasks, [Piece("a", 0.1), Piece("b", 0.1), Piece("c")])
    assert np.array_equal(whole.samples, samples), "what is said at once and what is streamed are the same"


def test_one_piece_passes_through_untouched() -> None:
    link, text = reading(1)
    text.step()
    (task,) = link.submitted
    started(task)
    chunk(task, loud(5))
    assert [(part.pcm, part.last) for part in text.step()] == [(loud(5), False)]
    chunk(task, loud(7))
    end(task)
    assert [(part.pcm, part.last) for part in text.step()] == [(loud(7), True)]


def test_an_error_is_raised_when_its_piece_is_due_and_the_rest_is_cancelled() -> None:
    link, text = reading(3, ahead=3)
    text.step()
    first, second, third = link.submitted
    end(second, WorkerLost("gone"))
    assert text.step() == []
    started(first)
    chunk(first, loud(100))
    end(first)
    with pytest.raises(WorkerLost):
        text.step()
    text.close()
    assert link.cancelled == [third]
    assert text.finished


def test_what_a_worker_calls_itself_is_harmless_where_it_is_shown() -> None:
    """Its name goes to terminals and into HTTP headers, and a worker that lies may name itself anything."""
    link, text = reading(1)
    text.step()
    (task,) = link.submitted
    started(task, "w\r\nSet-Cookie: a\x1b[2J\u202e")
    chunk(task, loud(5))
    (part,) = text.step()
    assert part.worker == "w\\u000d\\u000aSet-Cookie: a\\u001b[2J\\u202e"
