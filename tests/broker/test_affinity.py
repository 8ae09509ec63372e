"""Jobs and the workers that know their voice, driven through the core."""

from __future__ import annotations

from typing import Any

from tests.broker.model import Bus
from voicebus.common import wire

LEARN_S = 4.0
SPEAK_S = 1.0


def taught(*workers: bytes, **settings: Any) -> Bus:
    """A bus where w1 knows amber and the cost of learning is known: about `LEARN_S`."""
    bus = Bus(**settings)
    bus.ready(b"w1", learns=True)
    for first_audio_s in (LEARN_S + SPEAK_S, SPEAK_S):
        bus.submit(voice="amber")
        (key,) = bus.open(b"w1")
        bus.finish(b"w1", key, first_audio_s=first_audio_s)
    for worker in workers:
        bus.ready(worker, learns=True)
    return bus


def jobs_of(bus: Bus, peer: bytes) -> list[bytes]:
    return [key[:16] for key in bus.open(peer)]


def test_a_job_goes_to_an_idle_worker_that_knows_its_voice() -> None:
    bus = taught(b"w2", b"w3")
    for _ in range(3):
        job = bus.submit(voice="amber")
        assert jobs_of(bus, b"w1") == [job]
        bus.finish(b"w1", bus.open(b"w1")[0], first_audio_s=SPEAK_S)
    assert not bus.given(b"w2")


def test_a_short_wait_for_a_busy_one_beats_learning_and_a_long_one_does_not() -> None:
    bus = taught(b"w2", b"w3")
    first = bus.submit(voice="amber")
    waiting = [bus.submit(voice="amber") for _ in range(2)]
    assert jobs_of(bus, b"w1") == [first]
    assert not bus.given(b"w2")
    # Each of these would wait a second longer; the one whose wait is as long as learning goes elsewhere.
    more = [bus.submit(voice="amber") for _ in range(3)]
    assert len(bus.open(b"w2")) + len(bus.open(b"w3")) == 1
    bus.finish(b"w1", bus.open(b"w1")[0], first_audio_s=SPEAK_S)
    assert jobs_of(bus, b"w1") == waiting[:1]
    assert jobs_of(bus, b"w2") == more[1:2]


def test_other_voices_pass_the_jobs_that_wait() -> None:
    bus = taught(b"w2")
    bus.submit(voice="amber")
    bus.submit(voice="amber")
    other = bus.submit(voice="basil")
    assert jobs_of(bus, b"w2") == [other]


def test_the_wait_is_bounded() -> None:
    bus = taught(b"w2", affinity_wait_s=2.0)
    bus.submit(voice="amber")
    waiting = bus.submit(voice="amber")
    bus.pass_time(1.9, b"w1", b"w2")
    assert not bus.given(b"w2")
    bus.pass_time(0.2, b"w1", b"w2")
    assert jobs_of(bus, b"w2") == [waiting]


def test_a_voice_is_learnt_by_one_worker_at_a_time() -> None:
    """A hundred lines in a new voice must not have every worker learn it at once."""
    bus = Bus()
    for worker in (b"w1", b"w2", b"w3", b"w4"):
        bus.ready(worker, learns=True)
    for _ in range(20):
        bus.submit(voice="amber")
    assert [len(bus.open(worker)) for worker in (b"w1", b"w2", b"w3", b"w4")] == [1, 0, 0, 0]
    key = bus.open(b"w1")[0]
    bus.started(b"w1", key)
    bus.now += LEARN_S
    bus.chunk(b"w1", key)
    bus.now += SPEAK_S
    bus.done(b"w1", key)
    bus.pass_time(1.0, b"w1", b"w2", b"w3", b"w4")
    # It is known there now, and 19 jobs are too much for one worker: a second one learns it, and no third.
    assert [len(bus.open(worker)) for worker in (b"w1", b"w2", b"w3", b"w4")] == [1, 1, 0, 0]


def test_whoever_waits_for_a_learning_that_fails_goes_on_at_once() -> None:
    bus = Bus()
    bus.ready(b"w1", learns=True)
    bus.ready(b"w2", learns=True)
    first, second = bus.submit(voice="amber"), bus.submit(voice="amber")
    bus.started(b"w1", bus.open(b"w1")[0])
    bus.failed(b"w1", bus.open(b"w1")[0], "engine_error")
    assert bus.answer(first) == "engine_error"
    assert second in jobs_of(bus, b"w1") + jobs_of(bus, b"w2")


def test_a_worker_that_leaves_keeps_nobody_waiting() -> None:
    bus = taught(b"w2")
    bus.submit(voice="amber")
    waiting = bus.submit(voice="amber")
    assert not bus.open(b"w2")
    bus.core.worker_leaves(b"w1", "gone", bus.now)
    bus.settle()
    bus.finish(b"w2", bus.open(b"w2")[0], first_audio_s=LEARN_S)
    assert jobs_of(bus, b"w2") == [waiting]


def test_what_a_heartbeat_says_counts() -> None:
    bus = taught(b"w2")
    bus.beat(b"w1", warm=())
    bus.beat(b"w2", warm=("amber",))
    job = bus.submit(voice="amber")
    assert jobs_of(bus, b"w2") == [job]


def test_held_jobs_can_be_cancelled_expire_and_are_answered_when_the_broker_stops() -> None:
    bus = taught(b"w2", affinity_wait_s=60.0)
    bus.submit(voice="amber")
    cancelled, late, stopped = (
        bus.submit(voice="amber"),
        bus.submit(voice="amber", ms=500),
        bus.submit(voice="amber"),
    )
    bus.cancel(cancelled)
    assert bus.answer(cancelled) == "cancelled"
    bus.pass_time(0.8, b"w1", b"w2")
    assert bus.answer(late) == "deadline_exceeded"
    bus.core.begin_drain()
    bus.settle()
    assert bus.answer(stopped) == "overloaded"


def test_engines_that_learn_nothing_are_not_waited_for() -> None:
    bus = Bus()
    for worker in (b"w1", b"w2"):
        bus.ready(worker)
    for _ in range(2):
        bus.submit(voice="amber", flags=wire.STREAM)
    assert [len(bus.open(worker)) for worker in (b"w1", b"w2")] == [1, 1]


def test_an_interactive_job_is_not_kept_from_a_free_worker_by_a_held_batch_job() -> None:
    bus = taught()
    bus.submit(voice="amber")
    bus.submit(voice="amber")
    quick = bus.submit(voice="basil", lane="interactive")
    bus.finish(b"w1", bus.open(b"w1")[0], first_audio_s=SPEAK_S)
    assert jobs_of(bus, b"w1")[0] == quick
