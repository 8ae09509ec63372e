"""Results that brokers keep: when they are asked for, page by page, and where a durable job is looked for."""

from __future__ import annotations

import pytest

from voicebus.client.brokers import LineState, ranked
from voicebus.client.dispatch import HOME_S, WATCH_S
from voicebus.client.fetching import MOST_TRIES, TURNS
from voicebus.client.task import Phase, Task
from voicebus.common import wire
from voicebus.common.errors import (
    BrokerUnreachable,
    Cancelled,
    Conflict,
    EngineError,
    Overloaded,
    ProtocolError,
    UnknownJob,
)

from .model import PAGE_CHUNKS, BrokerJob, Desk, true_audio


def up(brokers: int = 1) -> Desk:
    desk = Desk(brokers)
    for number in range(brokers):
        desk.deliver(number)
    return desk


def flat(job: bytes) -> list[bytes]:
    return [chunk for segment in true_audio(job) for chunk in segment]


def run(desk: Desk) -> None:
    while any(broker.queue for broker in desk.brokers):
        for number in range(len(desk.brokers)):
            desk.deliver(number)


def keep(desk: Desk, number: int = 0, code: str = "done", *, chunks: int = 3) -> bytes:
    """An ended durable job of another client at one of the brokers, with at least so many chunks."""
    job = next(job for job in iter(desk.new_id, b"") if len(flat(job)) >= chunks)
    broker = desk.brokers[number]
    broker.jobs[job] = BrokerJob(False, durable=True, listened=False)
    broker.end(job, code)
    return job


def lose(desk: Desk, number: int = 0) -> None:
    desk.brokers[number].connection_lost()
    desk.core.disconnected(desk.core.lines[number], desk.now)
    desk.flush()


def pass_time(desk: Desk, seconds: float) -> None:
    until = desk.now + seconds
    while desk.now < until:
        run(desk)
        desk.tick(0.25)


@pytest.mark.parametrize("durable", [False, True])
def test_a_job_that_ended_while_the_line_was_down_is_fetched(durable: bool) -> None:
    """It hung for ever: ACCEPTED with STORED was taken for the promise of audio that never came."""
    desk = up()
    task = desk.submit(durable=durable)
    run(desk)
    lose(desk)
    broker = desk.brokers[0]
    broker.end(task.job, "done")
    desk.settle()
    assert task.error is None
    assert desk.audio_of(task) == flat(task.job)
    assert broker.fetches >= 1


def test_a_result_is_taken_page_by_page() -> None:
    desk = up()
    job = keep(desk, chunks=5)
    task = desk.fetch(job)
    run(desk)
    assert task.error is None
    assert desk.audio_of(task) == flat(job)
    assert desk.brokers[0].fetches >= 3
    assert desk.core.next_deadline() == float("inf")


def test_a_job_that_has_not_ended_is_watched_and_then_fetched() -> None:
    desk = up()
    job = desk.new_id()
    broker = desk.brokers[0]
    broker.jobs[job] = BrokerJob(False, durable=True, listened=False)
    task = desk.fetch(job)
    run(desk)
    assert task.phase is Phase.ACCEPTED
    broker.end(job, "done")
    run(desk)
    assert desk.audio_of(task) == flat(job)


def test_a_failed_job_is_told_with_its_code() -> None:
    desk = up()
    task = desk.fetch(keep(desk, code="engine_error"))
    run(desk)
    assert isinstance(task.error, EngineError)


def test_a_page_that_is_lost_in_part_is_asked_for_from_its_first_missing_chunk() -> None:
    desk = up()
    task = desk.fetch(keep(desk, chunks=5))
    desk.deliver(0)
    desk.deliver(0)
    assert len(task.chunks) == 1
    desk.brokers[0].queue.clear()
    asked: list[int] = []
    fetch = desk.brokers[0].fetch
    desk.brokers[0].fetch = lambda job, first: (asked.append(first), fetch(job, first))[1]  # type: ignore[method-assign] # a spy on one instance
    pass_time(desk, 12)
    assert asked[0] == 1
    assert desk.audio_of(task) == flat(task.job)


def test_a_broker_that_never_sends_its_result_fails_the_fetch() -> None:
    desk = up()
    task = desk.fetch(keep(desk))
    desk.brokers[0].page = lambda job, first: None  # type: ignore[method-assign] # a broker with a fault
    pass_time(desk, 5 * 2 ** (MOST_TRIES + 1))
    assert isinstance(task.error, ProtocolError)


def test_a_broker_with_other_readers_is_asked_again_and_not_for_ever() -> None:
    desk = up()
    desk.brokers[0].busy = 3
    task = desk.fetch(keep(desk))
    pass_time(desk, 5)
    assert desk.audio_of(task) == flat(task.job)
    desk.brokers[0].busy = 1_000_000
    task = desk.fetch(keep(desk))
    pass_time(desk, 70)
    assert isinstance(task.error, Overloaded)


def test_many_results_are_fetched_in_turns() -> None:
    """A broker reads only some at once: of a crowd most were refused, and came again as a crowd."""
    desk = up()
    tasks = [desk.fetch(keep(desk)) for _ in range(5 * TURNS)]
    assert desk.brokers[0].fetches == TURNS
    desk.core.leave(tasks[0])
    desk.core.leave(tasks[-1])
    run(desk)
    assert all(task.ended for task in tasks)
    assert all(desk.audio_of(task) == flat(task.job) for task in tasks[1:-1])


def test_a_result_that_expires_while_it_is_fetched_is_spoken_again() -> None:
    desk = up()
    task = desk.submit()
    run(desk)
    lose(desk)
    desk.brokers[0].end(task.job, "done")
    page = desk.brokers[0].page
    desk.brokers[0].page = lambda job, first: page(job, first) if not first else None  # type: ignore[method-assign] # a broker with a fault
    pass_time(desk, 1)
    if not task.ended:
        desk.brokers[0].page = page  # type: ignore[method-assign]
        desk.brokers[0].ended.clear()
    desk.settle()
    assert task.error is None
    assert desk.audio_of(task) == flat(task.job)


def test_a_job_is_looked_for_at_every_broker() -> None:
    desk = up(3)
    for number in range(3):
        task = desk.fetch(keep(desk, number))
        run(desk)
        assert desk.audio_of(task) == flat(task.job)
    task = desk.fetch(desk.new_id())
    run(desk)
    assert isinstance(task.error, UnknownJob)


def test_a_job_nobody_knows_may_be_with_a_broker_that_is_away() -> None:
    desk = up(2)
    away = keep(desk, 1)
    desk.brokers[1].alive = False
    lose(desk, 1)
    waiting, unlucky = desk.fetch(away), desk.fetch(desk.new_id())
    run(desk)
    assert (waiting.phase, unlucky.phase) == (Phase.PARKED, Phase.PARKED)
    desk.brokers[1].alive = True
    for _ in range(40):
        run(desk)
        desk.tick(0.05)
    assert desk.audio_of(waiting) == flat(away)
    assert isinstance(unlucky.error, UnknownJob)
    desk.brokers[1].alive = False
    lose(desk, 1)
    lost = desk.fetch(away)
    pass_time(desk, 7)
    assert isinstance(lost.error, BrokerUnreachable)
    assert "tcp://broker-1 does not answer" in lost.error.message


def test_a_job_that_was_named_is_looked_for_before_it_is_submitted() -> None:
    """A batch that is taken up must find what went to another broker while the first was away."""
    desk = up(2)
    known = [keep(desk, number) for number in range(2)]
    for job in known:
        task = desk.submit(durable=True, job=job, seeks=True)
        run(desk)
        assert desk.audio_of(task) == flat(job)
    assert [broker.submits for broker in desk.brokers] == [0, 0]
    fresh = desk.submit(durable=True, seeks=True)
    run(desk)
    assert sum(broker.submits for broker in desk.brokers) == 1
    assert fresh.line == ranked(desk.core.lines, fresh.job)[0].number
    desk.settle()
    assert desk.audio_of(fresh) == flat(fresh.job)


def at_home(desk: Desk, number: int) -> Task:
    """A durable job that this broker has promised."""
    while True:
        task = desk.submit(durable=True)
        if task.line == number:
            desk.deliver(number)
            return task


def test_a_promised_job_waits_for_its_broker_rather_than_be_spoken_twice() -> None:
    desk = up(2)
    task = at_home(desk, 0)
    desk.brokers[0].crash()
    lose(desk, 0)
    pass_time(desk, HOME_S / 2)
    assert task.job not in desk.brokers[1].jobs
    desk.brokers[0].alive = True
    pass_time(desk, 3)
    assert task.phase is Phase.ACCEPTED
    desk.settle()
    assert desk.audio_of(task) == flat(task.job)
    assert task.job not in desk.brokers[1].ended


def test_a_promised_job_moves_when_its_broker_stays_away_and_an_unpromised_one_at_once() -> None:
    desk = up(2)
    task = at_home(desk, 0)
    unpromised = next(task for task in iter(lambda: desk.submit(durable=True), None) if task.line == 0)
    desk.brokers[0].crash()
    lose(desk, 0)
    run(desk)
    assert unpromised.job in desk.brokers[1].jobs
    assert task.job not in desk.brokers[1].jobs
    pass_time(desk, HOME_S + 1)
    assert task.job in desk.brokers[1].jobs
    desk.brokers[0].alive = True
    desk.settle()
    assert desk.audio_of(task) == flat(task.job)


@pytest.mark.parametrize("ended", [False, True])
def test_a_client_that_was_stopped_asks_after_its_durable_jobs(ended: bool) -> None:
    """It hung for ever: the broker gives a silent client's place away, and says so of other jobs only."""
    desk = up()
    task = desk.submit(durable=True)
    run(desk)
    broker = desk.brokers[0]
    broker.start(task.job)
    broker.speak(task.job)
    broker.cut_off()
    if ended:
        broker.end(task.job, "done")
    submits = broker.submits
    desk.tick(12)
    assert broker.submits == submits + 1, "at once, and not when it is due anyway"
    desk.settle()
    assert task.error is None
    assert desk.audio_of(task) == flat(task.job)


def test_a_durable_job_of_which_nothing_is_heard_is_asked_after_now_and_then() -> None:
    desk = up()
    task = desk.submit(durable=True)
    plain = desk.submit()
    run(desk)
    broker = desk.brokers[0]
    broker.cut_off()
    del broker.queue[:]
    broker.end(task.job, "done")
    pass_time(desk, WATCH_S + 2)
    assert desk.audio_of(task) == flat(task.job)
    assert not plain.ended


def test_closing_leaves_durable_jobs_alone_and_says_where_they_are() -> None:
    desk = up()
    durable, plain = desk.submit(durable=True), desk.submit()
    fetched = desk.fetch(keep(desk, code="engine_error"))
    desk.deliver(0)
    desk.core.close()
    desk.flush()
    broker = desk.brokers[0]
    assert isinstance(durable.error, Cancelled)
    assert durable.job.hex() in durable.error.message
    assert isinstance(fetched.error, Cancelled)
    assert durable.job in broker.jobs
    assert plain.job not in broker.jobs
    assert broker.cancels == 1


def test_a_job_that_was_never_promised_is_not_said_to_go_on() -> None:
    desk = Desk()
    task = desk.submit(durable=True)
    desk.core.close()
    assert isinstance(task.error, Cancelled)
    assert "may not be spoken" in task.error.message


def test_cancelling_a_durable_job_reaches_it_wherever_it_is() -> None:
    """Also at a broker whose line was down at the time, and through a handle that only fetches."""
    desk = up(2)
    own = at_home(desk, 0)
    lose(desk, 0)
    desk.core.cancel(own)
    assert isinstance(own.error, Cancelled)
    foreign = desk.new_id()
    desk.brokers[1].jobs[foreign] = BrokerJob(False, durable=True, listened=False)
    task = desk.fetch(foreign)
    run(desk)
    desk.core.cancel(task)
    desk.flush()
    pass_time(desk, 4)
    assert desk.brokers[0].ended[own.job] == "cancelled"
    assert desk.brokers[1].ended[foreign] == "cancelled"
    assert not desk.core.tasks


def test_two_tasks_about_one_job_get_the_same_answer() -> None:
    desk = up()
    first = desk.submit(durable=True)
    second, third = desk.fetch(first.job), desk.fetch(first.job)
    other = desk.begin(Task(first.job, first.header, b"Other words.", durable=True))
    assert isinstance(other.error, Conflict)
    desk.settle()
    assert {id(task.done) for task in (first, second, third)} == {id(first.done)}
    assert desk.audio_of(second) == desk.audio_of(third) == flat(first.job)
    again = desk.submit(durable=True)
    follower = desk.fetch(again.job)
    run(desk)
    desk.core.cancel(follower)
    desk.flush()
    assert isinstance(again.error, Cancelled)
    assert isinstance(follower.error, Cancelled)
    assert desk.core.lines[0].state is LineState.UP


def test_the_sink_hears_of_the_promise_of_a_durable_job() -> None:
    desk = up()
    task = desk.submit(durable=True)
    assert task.home == -1
    touched: list[Task] = []
    line = desk.core.lines[0]
    desk.core.receive(line, *desk.brokers[0].queue.pop(0), desk.now)
    touched += desk.core.touched
    assert touched == [task]
    assert task.home == 0


def test_a_page_that_comes_twice_is_taken_once() -> None:
    desk = up()
    task = desk.fetch(keep(desk, chunks=4))
    broker = desk.brokers[0]
    broker.queue += list(broker.queue)
    run(desk)
    assert desk.audio_of(task) == flat(task.job)
    assert task.attempts == 1
    assert wire.FETCH_CHUNKS == 64


def test_a_lost_chunk_costs_one_more_question_and_not_what_is_here() -> None:
    desk = up()
    task = desk.fetch(keep(desk, chunks=5))
    broker = desk.brokers[0]
    while wire.DONE not in {envelope[3] for envelope, _, _ in broker.queue}:
        desk.deliver(0)
    chunks = [at for at, (envelope, _, _) in enumerate(broker.queue) if envelope[3] == wire.CHUNK]
    if chunks:
        del broker.queue[chunks[-1]]
    while broker.queue:
        desk.deliver(0)
    assert task.ended is not bool(chunks)
    assert len(task.chunks) == len(flat(task.job)) - bool(chunks)
    pass_time(desk, 12)
    assert desk.audio_of(task) == flat(task.job)


def test_the_beginning_of_a_page_that_comes_again_takes_nothing_back() -> None:
    desk = up()
    task = desk.fetch(keep(desk, chunks=5))
    broker = desk.brokers[0]
    first = broker.queue[0]
    for _ in range(3):
        desk.deliver(0)
    broker.queue.insert(0, first)
    desk.deliver(0)
    assert len(task.chunks) == 2
    run(desk)
    assert desk.audio_of(task) == flat(task.job)


def test_a_page_that_comes_slowly_is_not_asked_for_again() -> None:
    desk = up()
    task = desk.fetch(keep(desk, chunks=5))
    broker = desk.brokers[0]
    while not task.ended:
        kinds = [envelope[3] for envelope, _, _ in broker.queue]
        for at in reversed([at for at, kind in enumerate(kinds) if kind == wire.PONG]):
            desk.deliver(0, at)
        desk.deliver(0)
        for _ in range(12):
            desk.tick(0.25)
    assert broker.fetches == len(flat(task.job)) // PAGE_CHUNKS + 1


def test_a_broker_that_comes_back_is_asked_again_although_it_did_not_know_the_job() -> None:
    desk = up(2)
    job = desk.new_id()
    desk.brokers[1].alive = False
    lose(desk, 1)
    task = desk.fetch(job)
    run(desk)
    assert task.phase is Phase.PARKED
    desk.brokers[0].jobs[job] = BrokerJob(False, durable=True, listened=False)
    desk.brokers[0].end(job, "done")
    lose(desk, 0)
    pass_time(desk, 3)
    assert desk.audio_of(task) == flat(job)
