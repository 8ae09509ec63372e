"""Jobs spoken together, with an engine that does to a batch what the test tells it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from tests.workers.fakes import FakeCatalogue, FakeEngine, FakeLink
from voicebus.common import wire
from voicebus.common.errors import BadRequest, Cancelled
from voicebus.common.messages import Submit, encode
from voicebus.common.wire import pack_envelope
from voicebus.workers.attempt import Host
from voicebus.workers.checking import Checker
from voicebus.workers.choir import RECOVERY_ROUNDS, Choir
from voicebus.workers.engine import Part, Request, Row
from voicebus.workers.voicecache import VoiceCache

ROOM = 3


class Batching(FakeEngine):
    """Yields, for each row, a sample per letter: the letter's code."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = ROOM
        self.calls: list[list[str]] = []
        self.before: Callable[[Sequence[Row[str]]], None] = lambda rows: None
        self.between: Callable[[Sequence[Row[str]], int], None] = lambda rows, letter: None
        self.after: Callable[[], None] = lambda: None

    def check(self, request: Request) -> None:
        if request.options:
            raise BadRequest("no options")

    def speak_batch(self, rows: Sequence[Row[str]]) -> Iterator[Part]:
        self.calls.append([row.request.text for row in rows])
        self.before(rows)
        left = set(range(len(rows)))
        letter = 0
        while left:
            self.between(rows, letter)
            for place in sorted(left):
                text = rows[place].request.text
                if letter < len(text) and not rows[place].stopped:
                    yield place, np.full(1, ord(text[letter]) / 1000, np.float32)
                else:
                    left.remove(place)
                    yield place, None
            letter += 1
        self.after()


class Stage:
    """A choir, and the messages of each job by its number."""

    def __init__(self, checker: Checker | None = None) -> None:
        self.engine = Batching()
        self.link = CancellingLink()
        voices = VoiceCache(self.engine, FakeCatalogue(amber="aa"), "amber", None)
        self.inbox: deque[list[Any]] = deque()
        self.leaving = False
        self.now = 0.0
        self.round_s = 1.0
        self.engine.after = self.pass_time
        self.waits: list[int] = []
        host = Host("fake", "w", self.engine, voices, self.link, checker or Checker())
        self.choir = Choir(host, self, 0.01, lambda: self.now)

    def pass_time(self) -> None:
        self.now += self.round_s

    def take(self, timeout_ms: int | None) -> list[Any] | None:
        if self.inbox:
            return self.inbox.popleft()
        self.waits.append(timeout_ms or 0)
        self.now += (timeout_ms or 0) / 1000
        return None

    def give(self, job: int, text: str, *, flags: int = 0, **submit: Any) -> None:
        envelope = pack_envelope(wire.JOB, bytes([job]) * 16, 1, flags)
        self.inbox.append([envelope, encode(Submit(**submit)), text.encode()])

    def run(self) -> None:
        self.choir.gather()
        while not self.choir.is_empty:
            self.choir.sing()
            self.choir.gather()

    def names(self, job: int) -> list[str]:
        return [message.name for message in self.link.messages if message.job == bytes([job]) * 16]

    def heard(self, job: int) -> str:
        """What was said of a job, which must have been done."""
        messages = [message for message in self.link.messages if message.job == bytes([job]) * 16]
        assert [messages[0].name, messages[-1].name] == ["STARTED", "DONE"]
        pcm = b"".join(message.payload for message in messages if message.name == "CHUNK")
        return "".join(chr(round(sample / 32.767)) for sample in np.frombuffer(pcm, "<i2"))

    def code(self, job: int) -> str:
        message = [message for message in self.link.messages if message.job == bytes([job]) * 16][-1]
        assert message.name == "FAILED"
        return message.header[0]


class CancellingLink(FakeLink):
    def __init__(self) -> None:
        super().__init__()
        self.cancelled: set[bytes] = set()

    def check(self, key: bytes) -> None:
        if key[:16] in self.cancelled:
            raise Cancelled("the job was cancelled")

    def cancel(self, job: int) -> None:
        self.cancelled.add(bytes([job]) * 16)


def test_jobs_are_spoken_together_each_with_its_own_audio() -> None:
    stage = Stage()
    for job, text in enumerate(["ab|cde", "fghij", "k|l|m"]):
        stage.give(job, text)
    stage.run()
    assert [stage.heard(job) for job in range(3)] == ["abcde", "fghij", "klm"]
    assert stage.engine.calls == [["ab", "fghij", "k"], ["cde", "l"], ["m"]]


def test_a_job_joins_between_segments_and_leaves_when_it_is_done() -> None:
    stage = Stage()
    stage.give(0, "aa|bb|cc")

    def arrive(rows: Sequence[Row[str]], letter: int) -> None:
        if len(stage.engine.calls) == 1 and letter == 1:
            stage.give(1, "x")

    stage.engine.between = arrive
    stage.run()
    assert stage.engine.calls == [["aa"], ["bb", "x"], ["cc"]]
    assert (stage.heard(0), stage.heard(1)) == ("aabbcc", "x")


def test_the_wait_for_others_is_bounded_and_none_where_it_is_full() -> None:
    stage = Stage()
    for job in range(ROOM):
        stage.give(job, "a")
    stage.choir.gather()
    assert stage.waits == []
    stage.run()
    stage.waits.clear()
    stage.give(9, "b")
    began = stage.now
    stage.choir.gather()
    assert stage.waits == [10]
    assert stage.now - began == pytest.approx(0.01)


def test_fast_rounds_are_not_held_up_by_waiting() -> None:
    """On a GPU each sentence of a lone job waited 10 ms for nobody, a tenth of what it takes to speak."""
    stage = Stage()
    stage.round_s = 0.15
    stage.give(0, "a|b|c|d")
    stage.run()
    assert [wait for wait in stage.waits if wait] == [10, 2]  # when it had come and, by then known, had gone
    stage.waits.clear()
    stage.give(1, "a|b")
    stage.give(2, "a")
    stage.run()
    assert [wait for wait in stage.waits if wait] == [2, 2, 2]


def test_more_jobs_than_rows_take_turns() -> None:
    stage = Stage()
    for job in range(ROOM):
        stage.give(job, "a|b")
    stage.engine.batch = ROOM
    stage.choir._most = 2  # as after a batch that did not fit
    stage.run()
    assert [len(call) for call in stage.engine.calls] == [2, 2, 2]
    assert [stage.heard(job) for job in range(ROOM)] == ["ab"] * ROOM


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost_or_said_twice() -> None:
    stage = Stage()

    def refuse(rows: Sequence[Row[str]]) -> None:
        if len(rows) > 1:
            raise MemoryError

    stage.engine.before = refuse
    for job, text in enumerate(["abc", "def", "ghi"]):
        stage.give(job, text)
    stage.run()
    assert [stage.heard(job) for job in range(3)] == ["abc", "def", "ghi"]
    assert stage.choir.figures()["batches_halved"] == 1


def test_after_rounds_that_fitted_larger_ones_are_tried_again() -> None:
    stage = Stage()
    stage.choir._most = 1
    for job in range(ROOM):
        stage.give(job, "|".join("a" * RECOVERY_ROUNDS))
    stage.run()
    assert [len(call) for call in stage.engine.calls][: RECOVERY_ROUNDS + 1] == [1] * RECOVERY_ROUNDS + [2]


def test_memory_that_ends_under_a_single_row_ends_its_job() -> None:
    stage = Stage()

    def refuse(rows: Sequence[Row[str]]) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    stage.engine.before = refuse
    stage.give(0, "abc")
    stage.run()
    assert stage.code(0) == "overloaded"


def test_a_row_that_breaks_the_batch_ends_alone() -> None:
    stage = Stage()

    def stumble(rows: Sequence[Row[str]]) -> None:
        if any(row.request.text == "bad" for row in rows):
            raise ValueError("that one")

    stage.engine.before = stumble
    for job, text in enumerate(["abc", "bad", "ghi"]):
        stage.give(job, text)
    stage.run()
    assert (stage.heard(0), stage.code(1), stage.heard(2)) == ("abc", "engine_error", "ghi")


def test_a_row_heard_in_part_is_never_heard_again() -> None:
    """Its listener has the first letters: to speak the segment again would repeat them."""
    stage = Stage()

    def stumble(rows: Sequence[Row[str]], letter: int) -> None:
        if letter == 2 and len(rows) > 1:
            raise MemoryError

    stage.engine.between = stumble
    stage.give(0, "abc", flags=wire.STREAM)
    stage.give(1, "def", flags=wire.STREAM)
    stage.run()
    assert stage.names(0) == ["STARTED", "CHUNK", "CHUNK", "FAILED"]
    assert stage.code(1) == "overloaded"


def test_the_link_is_looked_at_once_a_part_however_many_rows_there_are() -> None:
    """It was looked at for each row: 1,400 times in 50 steps of 32 rows, while the GPU had nothing to do."""
    stage = Stage()
    for job, text in enumerate(["abc", "def", "ghi"]):
        stage.give(job, text)
    stage.run()
    letters_and_ends = 3 * (3 + 1)
    assert stage.link.looks == letters_and_ends


def test_a_cancelled_row_leaves_and_the_others_go_on() -> None:
    stage = Stage()

    def cancel(rows: Sequence[Row[str]], letter: int) -> None:
        if letter == 1:
            stage.link.cancel(0)
        if letter == 2:
            assert rows[0].stopped

    stage.engine.between = cancel
    stage.give(0, "abcdef")
    stage.give(1, "ghijkl")
    stage.run()
    assert (stage.code(0), stage.heard(1)) == ("cancelled", "ghijkl")


def test_a_job_that_is_refused_never_joins() -> None:
    stage = Stage()
    stage.give(0, "abc", options={"nonsense": 1})
    stage.give(1, "def")
    stage.run()
    assert (stage.names(0), stage.code(0)) == (["FAILED"], "bad_request")
    assert stage.engine.calls == [["def"]]


def test_those_who_are_left_when_the_worker_ends_are_told() -> None:
    stage = Stage()
    stage.give(0, "abc|def")
    stage.choir.gather()
    stage.choir.sing()
    stage.choir.dismiss(Cancelled("the worker ends"))
    assert stage.code(0) == "cancelled"


def test_a_batch_is_patient_only_if_all_its_jobs_are() -> None:
    stage = Stage()
    stage.give(0, "abc", flags=wire.PATIENT)
    stage.choir.gather()
    assert stage.choir.is_patient
    stage.give(1, "def")
    stage.choir.gather()
    assert not stage.choir.is_patient
