"""What `vc bench` makes of answers, without a bus."""

from __future__ import annotations

import math
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from voicebus.client import benchmark
from voicebus.client.benchmark import Batch, Singles, Wishes
from voicebus.client.speech import Chunk, Result, Speech
from voicebus.common.errors import BusError, EngineError, UnknownVoice

WISHES = Wishes("Hello.", "tone", "amber")
SECOND = bytes(2 * 8000)


class FakeBus:
    """Answers each job with the next of a list: chunks, or an error."""

    def __init__(self, answers: list[list[bytes] | BusError]) -> None:
        self.answers = answers
        self.asked: list[dict[str, Any]] = []
        self.closed = False

    def stream(self, text: str, **wanted: Any) -> Iterator[Chunk]:
        self.asked.append({"text": text, **wanted})
        answer = self.answers.pop(0)
        if isinstance(answer, BusError):
            raise answer
        for pcm in answer:
            yield Chunk(pcm, 8000, "tone", "w")

    def map(self, lines: Iterator[str], **wanted: Any) -> Iterator[Result]:
        for index, line in enumerate(lines):
            self.asked.append({"text": line, **wanted})
            answer = self.answers.pop(0)
            if isinstance(answer, BusError):
                yield Result(index, line, None, answer)
            else:
                speech = Speech(b"".join(answer), 8000, "tone", "w", engine_s=0.5)
                yield Result(index, line, speech, None)

    def close(self) -> None:
        self.closed = True


def never_looked(_done: int) -> None: ...


def test_percentiles_are_values_that_came() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [benchmark.percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert benchmark.percentile([3.0], 0.5) == 3.0
    assert math.isnan(benchmark.percentile([], 0.5))


def test_the_first_job_stands_apart_and_all_are_asked_alike() -> None:
    bus: Any = FakeBus([[SECOND, SECOND]] * 3)
    singles = Singles()
    now = monotonic()
    benchmark.one_at_a_time(bus, WISHES, singles, 3, now + 60, now + 60, never_looked)
    assert singles.done == 3
    assert singles.audio_s == [2.0, 2.0]
    assert singles.cold_s > 0
    assert {(asked["text"], asked["voice"], asked["lane"]) for asked in bus.asked} == {
        ("Hello.", "amber", "interactive")
    }


def test_after_three_failures_in_a_row_the_single_jobs_are_over() -> None:
    bus: Any = FakeBus([EngineError("once"), [SECOND], *(UnknownVoice("nobody") for _ in range(9))])
    singles = Singles()
    now = monotonic()
    benchmark.one_at_a_time(bus, WISHES, singles, 9, now + 60, now + 60, never_looked)
    assert len(bus.asked) == 5
    assert singles.figures()["errors"] == {"engine_error": 1, "unknown_voice": 3}


def test_a_batch_counts_audio_streams_and_errors() -> None:
    bus: Any = FakeBus([[SECOND], EngineError("broken"), [SECOND, SECOND]])
    batch = Batch(window=7)
    looks: list[int] = []
    benchmark.all_at_once(bus, WISHES, batch, 3, monotonic() + 60, looks.append)
    assert (batch.done, batch.audio_s, batch.stream_factors) == (2, 3.0, [0.5, 0.25])
    assert batch.figures()["errors"] == {"engine_error": 1}
    assert bus.asked[0]["window"] == 7
    assert looks == [1, 3], "at most four times a second, and at the end"
    assert not bus.closed


def test_when_the_time_is_over_nothing_is_begun_and_what_is_cut_off_is_no_error() -> None:
    bus: Any = FakeBus([])
    batch = Batch(window=1)
    benchmark.all_at_once(bus, WISHES, batch, 1000, monotonic() - 1, never_looked)
    assert bus.asked == []
    assert batch.figures()["jobs_per_s"] is None


def test_figures_without_a_value_are_null_in_json() -> None:
    assert Singles().figures()["first_audio"] == {"p50_s": None, "p95_s": None, "p99_s": None}
    assert Batch(1).figures()["stream_real_time_factor_p50"] is None


@pytest.mark.parametrize("times", [0, 1])
def test_a_broker_that_is_not_there_loses_pings_and_ends_in_time(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "PING_LIMIT_S", 0.05)
    pings = benchmark.Pings("tcp://127.0.0.1:1")
    benchmark.ping(pings, times, monotonic() + 10, never_looked)
    assert (pings.spans_s, pings.lost) == ([], times)
