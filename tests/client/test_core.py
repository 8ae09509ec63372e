"""The client's core, rule by rule: what it sends, when it sends again, and how each job ends."""

from __future__ import annotations

import pytest

from voicebus.client.brokers import REDIAL_MOST_S, LineState, ranked
from voicebus.client.dispatch import BACKOFF_MOST_S, MOST_TORN
from voicebus.client.task import Phase, Task
from voicebus.common import wire
from voicebus.common.errors import (
    BrokerUnreachable,
    Cancelled,
    DeadlineExceeded,
    Overloaded,
    ProtocolError,
    Unauthorized,
    UnknownVoice,
    WorkerLost,
)
from voicebus.common.messages import Done, Failed, Spoken, Started, encode

from .model import Desk, true_audio


def up(brokers: int = 1) -> Desk:
    desk = Desk(brokers)
    for number in range(brokers):
        desk.deliver(number)
    assert all(line.state is LineState.UP for line in desk.core.lines)
    return desk


def flat(job: bytes) -> list[bytes]:
    return [chunk for segment in true_audio(job) for chunk in segment]


def run(desk: Desk) -> None:
    while desk.brokers[0].queue:
        desk.deliver(0)


def test_nothing_is_sent_before_a_broker_has_spoken() -> None:
    """A SUBMIT queued in the socket of a dead broker would carry a deadline long past when it arrives."""
    desk = Desk()
    task = desk.submit()
    assert task.phase is Phase.PARKED
    assert desk.brokers[0].submits == 0
    desk.deliver(0)
    assert task.phase is Phase.SENT
    assert desk.brokers[0].submits == 1


def test_a_job_ends_with_its_audio_and_the_broker_is_no_longer_asked_anything() -> None:
    desk = up()
    task = desk.submit()
    desk.settle()
    assert task.error is None
    assert desk.audio_of(task) == flat(task.job)
    assert desk.core.next_deadline() == float("inf")


def spoken(
    task: Task, attempt: int = 1, segment: int = 0, pcm: bytes = b"pcm!"
) -> tuple[bytes, bytes, bytes]:
    envelope = wire.pack_envelope(wire.SPOKEN, task.job, attempt, wire.SEGMENT_END, 0, segment)
    return envelope, encode(Spoken("w", "tone", 24_000, segment + 1, len(pcm) // 2, 0.5)), pcm


def test_a_job_that_comes_in_one_message_ends_like_any_other() -> None:
    desk = up()
    task = desk.submit()
    desk.core.receive(desk.core.lines[0], *spoken(task), desk.now)
    assert (task.ended, task.error, task.chunks, task.attempts) == (True, None, [b"pcm!"], 1)
    assert (task.started, task.done) == (Started("w", "tone", 24_000, 1), Done(1, 2, 0.5))


def test_half_a_sample_or_an_old_attempt_in_one_message_is_no_answer() -> None:
    desk = up()
    task = desk.submit()
    line = desk.core.lines[0]
    started = wire.pack_envelope(wire.STARTED, task.job, 2), encode(Started("w", "tone", 24_000, 1))
    desk.core.receive(line, *started, None, desk.now)
    desk.core.receive(line, *spoken(task), desk.now)
    assert not task.ended
    assert (desk.core.errors, desk.core.strays) == (0, 1)
    desk.core.receive(line, *spoken(task, attempt=2, pcm=b"odd"), desk.now)
    assert (desk.core.errors, task.phase) == (1, Phase.BACKOFF)


def test_an_answer_that_cannot_be_read_is_asked_for_again_and_then_given_up() -> None:
    """Caught: a worker whose DONE had a bad header left the client waiting for ever: the broker was done."""
    desk = up()
    task = desk.submit()
    line = desk.core.lines[0]
    for _ in range(MOST_TORN):
        assert not task.ended
        desk.core.receive(line, wire.pack_envelope(wire.DONE, task.job, 1), b"\xc1", None, desk.now)
        desk.tick(BACKOFF_MOST_S)
    assert isinstance(task.error, ProtocolError)


def test_whoever_is_let_in_nowhere_is_told_at_once() -> None:
    """Caught: a denied peer just hung until its connect timeout, and was told that nobody answers."""
    desk = Desk(2)
    task = desk.submit()
    first, second = desk.core.lines
    desk.core.refused(first, Unauthorized("not here"), desk.now)
    assert not task.ended
    desk.core.refused(second, Unauthorized("nor here"), desk.now)
    assert isinstance(task.error, Unauthorized)
    desk.core.check_invariants()


def test_a_broker_that_lets_us_in_again_is_used() -> None:
    desk = Desk()
    line = desk.core.lines[0]
    desk.core.refused(line, Unauthorized("not here"), desk.now)
    task = desk.submit()
    desk.tick(REDIAL_MOST_S)
    assert line.state is LineState.OPENING
    desk.core.receive(line, wire.pack_envelope(wire.PONG), None, None, desk.now)
    assert line.refusal is None
    assert not task.ended
    assert task.phase is Phase.SENT


def test_what_was_heard_is_not_spoken_again_in_one_message_either() -> None:
    desk = up()
    task = desk.submit(listening=True)
    line = desk.core.lines[0]
    for envelope, header, payload in (
        (wire.pack_envelope(wire.STARTED, task.job, 1), encode(Started("w", "tone", 24_000, 1)), None),
        (wire.pack_envelope(wire.CHUNK, task.job, 1), None, b"pcm!"),
        spoken(task, attempt=2),
    ):
        desk.core.receive(line, envelope, header, payload, desk.now)
    assert isinstance(task.error, WorkerLost)
    assert list(task.heard or ()) == [b"pcm!"]


def test_a_new_attempt_takes_back_its_first_segment_and_all_later_ones() -> None:
    desk = up()
    task = desk.submit()
    broker = desk.brokers[0]
    run(desk)
    started = encode(Started("w", "tone", 24_000))
    broker.send(wire.STARTED, task.job, started, attempt=1)
    for number, (segment, pcm, flags) in enumerate(
        [(0, b"a0", wire.SEGMENT_END), (1, b"b0", 0), (1, b"b1", 0)]
    ):
        broker.send(wire.CHUNK, task.job, None, pcm, attempt=1, flags=flags, sequence=number, value=segment)
    broker.send(wire.STARTED, task.job, started, attempt=2, sequence=1)
    broker.send(wire.CHUNK, task.job, None, b"old!", attempt=1, sequence=3, value=2)
    broker.send(wire.CHUNK, task.job, None, b"B0", attempt=2, sequence=0, value=1)
    broker.send(wire.DONE, task.job, encode(Done(1, 1)), attempt=2)
    run(desk)
    assert task.ended
    assert task.error is None
    assert b"".join(task.chunks) == b"a0B0"
    assert task.attempts == 2


def test_a_new_attempt_that_counts_on_audio_which_was_lost_makes_the_job_be_heard_anew() -> None:
    """Without the check the lost segment was missing from a job that ended well."""
    desk = up()
    task = desk.submit()
    broker = desk.brokers[0]
    run(desk)
    started = encode(Started("w", "tone", 24_000))
    broker.send(wire.STARTED, task.job, started, attempt=1)
    broker.send(wire.CHUNK, task.job, None, b"a0", attempt=1)
    broker.send(wire.STARTED, task.job, started, attempt=2, sequence=1)
    run(desk)
    assert task.phase is Phase.BACKOFF
    assert desk.audio_of(task) == []


def test_audio_of_a_lost_connection_is_not_given_to_one_who_listens_later() -> None:
    """It was: what had come before the connection broke was heard, and then spoken again from its start."""
    desk = up()
    task = desk.submit(stream=True)
    run(desk)
    desk.brokers[0].start(task.job)
    desk.brokers[0].speak(task.job)
    run(desk)
    desk.core.disconnected(desk.core.lines[0], desk.now)
    desk.core.listen(task)
    desk.flush()
    assert desk.audio_of(task) == []
    desk.settle()
    assert task.ended


def test_audio_that_was_heard_is_never_spoken_again() -> None:
    desk = up()
    task = desk.submit(listening=True)
    broker = desk.brokers[0]
    run(desk)
    started = encode(Started("w", "tone", 24_000))
    broker.send(wire.STARTED, task.job, started, attempt=1)
    broker.send(wire.CHUNK, task.job, None, b"a0", attempt=1)
    broker.send(wire.STARTED, task.job, started, attempt=2, sequence=0)
    run(desk)
    assert isinstance(task.error, WorkerLost)
    assert desk.audio_of(task) == [b"a0"]


def test_a_gap_makes_the_job_be_heard_anew_and_a_lasting_one_fails_it() -> None:
    desk = up()
    task = desk.submit()
    broker = desk.brokers[0]
    for _ in range(MOST_TORN):
        run(desk)
        broker.send(wire.STARTED, task.job, encode(Started("w", "tone", 24_000)), attempt=1)
        broker.send(wire.CHUNK, task.job, None, b"c0", attempt=1, sequence=1)
        run(desk)
        for _ in range(8):
            desk.tick(0.2)
    assert isinstance(task.error, ProtocolError)
    assert broker.submits == MOST_TORN


def test_a_listener_of_an_unheard_stream_gets_a_fresh_job_when_its_worker_is_lost() -> None:
    """The broker may not repeat what it forwarded; the client may, as nobody has listened yet."""
    desk = up()
    task = desk.submit(stream=True)
    first = task.job
    run(desk)
    desk.brokers[0].start(first)
    desk.brokers[0].fail(first, "worker_lost")
    run(desk)
    assert not task.ended
    desk.settle()
    assert task.job != first
    assert task.error is None
    assert desk.audio_of(task) == flat(task.job)


def test_a_busy_bus_is_asked_again_within_the_deadline_and_not_after() -> None:
    desk = up()
    patient, hasty = desk.submit(deadline_s=30), desk.submit(deadline_s=1)
    broker = desk.brokers[0]
    broker.queue.clear()
    for task in (patient, hasty):
        broker.fail(task.job, "overloaded", retry_after_s=5.0)
    run(desk)
    assert isinstance(hasty.error, Overloaded)
    assert patient.phase is Phase.BACKOFF
    desk.tick(4.9)
    assert broker.submits == 2
    desk.tick(0.2)
    assert broker.submits == 3


def test_a_job_that_a_stopping_broker_hands_back_is_spoken_by_another() -> None:
    """It ended in `overloaded`: a broker stopped in order cost jobs which one that was killed did not."""
    desk = up(2)
    task = desk.submit()
    home = task.line
    desk.deliver(home)
    assert task.phase is Phase.ACCEPTED
    desk.brokers[home].fail(task.job, "overloaded", retry_after_s=1.0)
    desk.deliver(home)
    assert task.phase is Phase.BACKOFF
    desk.brokers[home].crash()
    desk.core.disconnected(desk.core.lines[home], desk.now)
    desk.flush()
    desk.tick(1.1)
    desk.settle()
    assert task.error is None
    assert task.line != home
    assert desk.audio_of(task) == flat(task.job)


@pytest.mark.parametrize("code", ["unknown_voice", "text_too_long", "no_worker", "poison_job"])
def test_other_failures_are_final(code: str) -> None:
    desk = up()
    task = desk.submit()
    desk.brokers[0].fail(task.job, code)
    run(desk)
    assert task.error is not None
    assert task.error.code == code
    desk.tick(60)
    assert desk.brokers[0].submits == 1


def test_a_submission_nobody_accepted_is_sent_again_under_its_id() -> None:
    desk = up()
    task = desk.submit()
    broker = desk.brokers[0]
    broker.queue.clear()
    for _ in range(6):
        desk.tick(0.5)
        run(desk)
    assert broker.submits == 2
    assert list(broker.jobs) == [task.job]
    assert task.phase is Phase.ACCEPTED


def test_nobody_there_is_an_error_with_the_address_in_bounded_time() -> None:
    desk = Desk()
    desk.brokers[0].crash()
    task = desk.submit()
    begun = desk.now
    while not task.ended:
        desk.tick(max(0.01, desk.core.next_deadline() - desk.now))
    assert isinstance(task.error, BrokerUnreachable)
    assert "tcp://broker-0" in task.error.message
    assert desk.now - begun < 7


def test_a_broker_is_gone_after_three_silent_intervals_and_its_jobs_wait_for_it() -> None:
    desk = up()
    task = desk.submit()
    desk.brokers[0].crash()
    for _ in range(3):
        # The first interval still had the PONG in it.
        desk.tick(1.01)
    assert desk.core.lines[0].state is LineState.UP
    desk.tick(1.01)
    assert desk.core.lines[0].state is LineState.CLOSED
    assert task.phase is Phase.PARKED
    desk.settle()
    assert desk.audio_of(task) == flat(task.job)


def test_a_client_that_was_stopped_does_not_take_its_broker_for_dead() -> None:
    desk = up()
    desk.submit()
    desk.tick(3600)
    assert desk.core.lines[0].state is LineState.UP


def test_a_client_that_only_listens_still_says_that_it_lives() -> None:
    """A broker cancels the jobs of a client it has not heard for its client_timeout."""
    desk = up()
    task = desk.submit()
    desk.deliver(0)
    pings = desk.core.lines[0].pings
    for _ in range(10):
        desk.tick(1.01)
        desk.brokers[0].send(wire.ACCEPTED, task.job, None)
        desk.deliver(0)
    assert desk.core.lines[0].pings - pings >= 5


def test_a_lost_broker_in_the_middle_of_heard_audio_is_an_error() -> None:
    desk = up()
    task = desk.submit(listening=True)
    run(desk)
    desk.brokers[0].start(task.job)
    desk.brokers[0].speak(task.job)
    run(desk)
    desk.brokers[0].crash()
    desk.core.disconnected(desk.core.lines[0], desk.now)
    desk.flush()
    assert isinstance(task.error, BrokerUnreachable)


def test_jobs_of_a_lost_broker_move_to_the_next_of_their_own_list() -> None:
    desk = up(3)
    tasks = [desk.submit() for _ in range(30)]
    homes = {id(task): task.line for task in tasks}
    assert len(set(homes.values())) == 3
    desk.brokers[1].crash()
    desk.core.disconnected(desk.core.lines[1], desk.now)
    desk.flush()
    for task in tasks:
        if homes[id(task)] != 1:
            assert task.line == homes[id(task)], "a job whose broker lives stays"
        else:
            others = [line.number for line in ranked(desk.core.lines, task.job) if line.number != 1]
            assert task.line == others[0]
    desk.settle()
    assert all(task.error is None and desk.audio_of(task) == flat(task.job) for task in tasks)


def test_cancel_is_told_to_the_broker_and_final() -> None:
    desk = up()
    task = desk.submit()
    run(desk)
    desk.core.cancel(task)
    desk.core.cancel(task)
    desk.flush()
    assert isinstance(task.error, Cancelled)
    assert task.job not in desk.brokers[0].jobs
    desk.brokers[0].send(wire.DONE, task.job, encode(Done(0, 0)), attempt=1)
    run(desk)
    assert desk.core.strays == 1


def test_a_task_that_was_never_submitted_may_be_cancelled() -> None:
    """A long text that fails early cancels sentences whose turn had not come; this ended the I/O thread."""
    desk = up()
    task = Task(b"n" * 16, b"", b"")
    desk.core.cancel(task)
    desk.core.listen(task)
    assert not task.ended


def test_a_deadline_is_carried_as_what_is_left_of_it_and_enforced_when_the_broker_does_not() -> None:
    desk = Desk()
    seen: list[int] = []
    take = desk.brokers[0].take

    def spy(frames: tuple[bytes, ...]) -> None:
        kind, _job, _attempt, _flags, _sequence, value = wire.unpack_envelope(frames[0])
        if kind == wire.SUBMIT:
            seen.append(value)
        take(frames)

    desk.brokers[0].take = spy  # type: ignore[method-assign] # a spy on one instance
    task = desk.submit(deadline_s=4)
    desk.tick(1)
    desk.deliver(0)
    assert seen == [3000]
    for _ in range(20):
        desk.brokers[0].jobs.clear()
        desk.tick(0.5)
        run(desk)
    assert isinstance(task.error, DeadlineExceeded)


def test_listening_late_gives_what_was_held_first() -> None:
    desk = up()
    task = desk.submit(stream=True)
    run(desk)
    broker = desk.brokers[0]
    broker.start(task.job)
    broker.speak(task.job)
    run(desk)
    assert len(task.chunks) == 1
    desk.core.listen(task)
    desk.flush()
    desk.settle()
    assert desk.heard[id(task)] == flat(task.job)


@pytest.mark.parametrize(
    "frames",
    [
        (b"", None, None),
        (b"x" * 32, None, None),
        (wire.pack_envelope(wire.CHUNK, b"j" * 16), None, b"odd"),
        (wire.pack_envelope(wire.DONE, b"j" * 16), b"\xc1", None),
        (wire.pack_envelope(wire.FAILED, b"j" * 16), None, None),
        (wire.pack_envelope(0x7F, b"j" * 16), b"\x90", None),
    ],
)
def test_garbage_is_counted_and_changes_nothing(
    frames: tuple[bytes, bytes | None, bytes | None],
) -> None:
    desk = up()
    task = desk.submit()
    envelope, header, payload = frames
    desk.core.receive(desk.core.lines[0], envelope.replace(b"j" * 16, task.job), header, payload, desk.now)
    desk.core.check_invariants()
    assert desk.core.errors == 1
    assert not task.ended


def test_a_failure_keeps_the_error_class_and_its_history() -> None:
    desk = up()
    task = desk.submit()
    header = encode(Failed("unknown_voice", "no such voice", None, ["attempt 1: lost"]))
    desk.brokers[0].send(wire.FAILED, task.job, header, attempt=1)
    run(desk)
    assert isinstance(task.error, UnknownVoice)
    assert task.history == ["attempt 1: lost"]


def test_a_lost_submission_is_noticed_as_soon_after_a_busy_time_as_before_it() -> None:
    """Found by the simulator: each `overloaded` doubled the time after which silence was noticed."""
    desk = up()
    broker = desk.brokers[0]
    task = desk.submit()
    for _ in range(6):
        broker.queue.clear()
        broker.fail(task.job, "overloaded")
        run(desk)
        assert task.phase is Phase.BACKOFF
        while task.phase is Phase.BACKOFF:
            desk.tick(0.05)
    submits = broker.submits
    broker.queue.clear()
    for _ in range(6):
        desk.tick(0.5)
        run(desk)
    assert broker.submits == submits + 1
    assert task.phase is Phase.ACCEPTED
