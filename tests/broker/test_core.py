"""The promises of the broker, one by one, without a socket."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.broker.model import Bus
from voicebus.broker.pools import SETTLE_S
from voicebus.broker.retry import KEPT_HISTORY, MOST_ATTEMPTS
from voicebus.common import wire
from voicebus.common.errors import BadRequest, ProtocolError
from voicebus.common.messages import Done, Failed, Ready, Spoken, Started, Welcome, decode, encode


def test_a_job_goes_out_and_its_answer_comes_back() -> None:
    bus = Bus()
    bus.ready(b"w1")
    job = bus.submit(voice="amber")
    (key,) = bus.given(b"w1")
    assert key == job + b"\x00\x01"
    bus.started(b"w1", key)
    bus.chunk(b"w1", key)
    bus.done(b"w1", key)
    kinds = [message[0][3] for message in bus.sent.to_client[b"c"]]
    assert kinds == [wire.ACCEPTED, wire.STARTED, wire.CHUNK, wire.DONE]
    assert bus.answer(job) == "done"
    assert not bus.core.ledger.jobs
    assert not bus.open(b"w1")


def test_the_header_and_text_reach_the_worker_untouched() -> None:
    bus = Bus()
    bus.submit(voice="amber", options={"temperature": 0.5}, text="héllo".encode())
    bus.ready(b"w1")
    message = bus.sent.to_worker[b"w1"][-1]
    submitted = bus.core.ledger.jobs[message[0][4:20]].header
    assert message[1] is submitted
    assert message[2] == "héllo".encode()


def test_credit_is_slots_plus_one_and_only_an_end_returns_it() -> None:
    """A heartbeat that freed a busy worker is the classic fault of the Paranoid Pirate pattern."""
    bus = Bus()
    bus.ready(b"w1", slots=2)
    for _ in range(10):
        bus.submit()
    assert len(bus.given(b"w1")) == 3
    bus.beat(b"w1")
    bus.started(b"w1", bus.given(b"w1")[0])
    bus.chunk(b"w1", bus.given(b"w1")[0])
    assert len(bus.given(b"w1")) == 3
    bus.done(b"w1", bus.given(b"w1")[0])
    assert len(bus.given(b"w1")) == 4


def test_an_idle_slot_anywhere_goes_before_a_second_job() -> None:
    bus = Bus()
    for peer in (b"w1", b"w2", b"w3"):
        bus.ready(peer)
    for _ in range(3):
        bus.submit()
    assert [len(bus.given(peer)) for peer in (b"w1", b"w2", b"w3")] == [1, 1, 1]


def test_the_last_jobs_wait_for_whoever_is_free_first() -> None:
    """One job more than slots must not queue behind a long one while the other worker becomes free."""
    bus = Bus()
    bus.ready(b"w1")
    bus.ready(b"w2")
    for _ in range(3):
        bus.submit()
    assert len(bus.given(b"w1")) == len(bus.given(b"w2")) == 1
    bus.done(b"w2", bus.given(b"w2")[0])
    assert len(bus.given(b"w2")) == 2


def test_a_lost_workers_job_is_done_elsewhere_and_its_late_result_is_dropped() -> None:
    bus = Bus()
    bus.ready(b"w1")
    job = bus.submit()
    bus.ready(b"w2")
    (old,) = bus.given(b"w1")
    bus.started(b"w1", old)
    bus.pass_time(4, b"w2")
    (new,) = bus.given(b"w2")
    assert new == job + b"\x00\x02"
    bus.ready(b"w1", incarnation=2)
    bus.chunk(b"w1", old)
    bus.done(b"w1", old)
    assert bus.answer(job) == "open"
    assert bus.core.ledger.totals["stale"] == 2
    bus.done(b"w2", new)
    assert bus.answer(job) == "done"


def test_whatever_an_unknown_worker_sends_it_is_asked_to_register() -> None:
    """A late message from a worker declared dead created state in other systems, or crashed them."""
    bus = Bus()
    key = bytes(16) + b"\x00\x01"
    for send in (bus.started, bus.chunk, bus.done, bus.returned):
        send(b"ghost", key)
    bus.failed(b"ghost", key, "engine_error")
    bus.beat(b"ghost")
    assert [message[0][3] for message in bus.sent.to_worker[b"ghost"]] == [wire.REREGISTER] * 6
    assert not bus.core.members.by_peer


def test_the_newest_incarnation_wins() -> None:
    bus = Bus()
    bus.ready(b"p1", "w", incarnation=5)
    job = bus.submit()
    bus.ready(b"p2", "w", incarnation=6)
    assert bus.given(b"p2") == [job + b"\x00\x02"]
    bus.ready(b"p3", "w", incarnation=4)
    assert [message[0][3] for message in bus.sent.to_worker[b"p3"]] == [wire.GOODBYE]
    assert list(bus.core.members.by_peer) == [b"p2"]


def test_the_same_incarnation_on_a_new_connection_takes_its_place_without_penalty() -> None:
    bus = Bus(max_attempts=1)
    bus.ready(b"p1", "w")
    job = bus.submit()
    bus.started(b"p1", bus.given(b"p1")[0])
    bus.ready(b"p2", "w")
    assert bus.given(b"p2") == [job + b"\x00\x02"]
    assert bus.answer(job) == "open"


def test_a_worker_may_register_again_with_other_slots() -> None:
    """A worker of several brokers shares its slots between them; the new number was ignored."""
    bus = Bus()
    bus.ready(b"w1", slots=1)
    for _ in range(8):
        bus.submit()
    assert len(bus.given(b"w1")) == 2
    bus.ready(b"w1", slots=3)
    assert len(bus.given(b"w1")) == 4
    bus.ready(b"w1", slots=1)
    for key in bus.given(b"w1")[:2]:
        bus.done(b"w1", key)
    assert len(bus.given(b"w1")) == 4, "above its new credit it gets nothing"
    bus.done(b"w1", bus.given(b"w1")[2])
    assert len(bus.given(b"w1")) == 5


def test_poison_is_found_after_max_attempts_with_its_history() -> None:
    bus = Bus(max_attempts=3)
    for peer in (b"w1", b"w2", b"w3", b"w4"):
        bus.ready(peer)
    job = bus.submit()
    hit: list[bytes] = []
    while bus.answer(job) == "open":
        (peer,) = [peer for peer in (b"w1", b"w2", b"w3", b"w4") if bus.open(peer)]
        hit.append(peer)
        bus.failed(peer, bus.open(peer)[0], "worker_lost")
    assert bus.answer(job) == "poison_job"
    assert len(set(hit)) == 3
    failed = decode(bus.sent.to_client[b"c"][-1][1], Failed)
    assert len(failed.history) == 3
    assert "attempt 1 on w1" in failed.history[0]


def test_deterministic_errors_are_never_retried() -> None:
    bus = Bus()
    bus.ready(b"w1")
    bus.ready(b"w2")
    job = bus.submit()
    bus.failed(b"w1", bus.given(b"w1")[0], "unknown_voice")
    assert bus.answer(job) == "unknown_voice"
    assert not bus.given(b"w2")


def test_a_retry_prefers_another_worker() -> None:
    bus = Bus()
    bus.ready(b"w1")
    job = bus.submit()
    bus.ready(b"w2")
    bus.returned(b"w1", bus.given(b"w1")[0])
    assert bus.given(b"w2") == [job + b"\x00\x02"]


def test_jobs_queued_at_a_lost_worker_are_not_held_against_it() -> None:
    bus = Bus(max_attempts=1)
    bus.ready(b"w1")
    jobs = [bus.submit() for _ in range(4)]
    first, second = bus.given(b"w1")
    bus.started(b"w1", first)
    bus.pass_time(4)
    assert bus.answer(first[:16]) == "poison_job"
    assert bus.answer(second[:16]) == "open"
    assert len(jobs) == 4


def test_an_unlistened_job_resumes_at_a_segment_and_a_stream_fails_inside_one() -> None:
    bus = Bus()
    bus.ready(b"w1")
    bus.ready(b"w2")
    plain, stream = bus.submit(), bus.submit(flags=wire.STREAM)
    (a,), (b,) = bus.given(b"w1"), bus.given(b"w2")
    for peer, key in ((b"w1", a), (b"w2", b)):
        bus.started(peer, key)
        bus.chunk(peer, key, segment=0)
        bus.chunk(peer, key, segment=1, end=False)
    bus.failed(b"w1", a, "worker_lost")
    bus.failed(b"w2", b, "worker_lost")
    assert bus.answer(stream) == "worker_lost"
    given = [m[0] for peer in (b"w1", b"w2") for m in bus.sent.to_worker[peer] if m[0][3] == wire.JOB]
    again = [(envelope[4:20], int.from_bytes(envelope[24:28])) for envelope in given if envelope[21] == 2]
    assert again == [(plain, 1)], "segment 0 was heard whole"


def test_a_stream_resumes_behind_a_whole_segment() -> None:
    bus = Bus()
    bus.ready(b"w1")
    bus.ready(b"w2")
    job = bus.submit(flags=wire.STREAM)
    (key,) = bus.given(b"w1")
    bus.started(b"w1", key)
    bus.chunk(b"w1", key, segment=0)
    bus.failed(b"w1", key, "worker_lost")
    (envelope,) = [m[0] for m in bus.sent.to_worker[b"w2"] if m[0][3] == wire.JOB]
    assert (envelope[4:20], int.from_bytes(envelope[24:28])) == (job, 1)
    assert envelope[23] & wire.STREAM


def test_workers_are_told_whether_anybody_waits_for_a_job() -> None:
    bus = Bus()
    bus.ready(b"w1", slots=2)
    lanes = ("batch", "interactive")
    jobs = [bus.submit(lane=lane, flags=flags) for lane, flags in zip(lanes, (0, wire.PATIENT), strict=True)]
    marks = {m[0][4:20]: m[0][23] for m in bus.sent.to_worker[b"w1"] if m[0][3] == wire.JOB}
    assert marks == {jobs[0]: wire.PATIENT, jobs[1]: 0}, "the lane counts, not what the client set"


def test_a_deadline_ends_a_job_wherever_it_is() -> None:
    bus = Bus()
    bus.ready(b"w1")
    running, waiting = bus.submit(ms=2000), bus.submit(ms=1000)
    (key,) = bus.given(b"w1")
    bus.started(b"w1", key)
    bus.pass_time(1.5, b"w1")
    assert (bus.answer(running), bus.answer(waiting)) == ("open", "deadline_exceeded")
    bus.pass_time(1.0, b"w1")
    assert bus.answer(running) == "deadline_exceeded"
    assert bus.sent.to_worker[b"w1"][-1][0][3] in (wire.CANCEL, wire.HEARTBEAT)
    assert len(bus.open(b"w1")) == 1, "the credit comes back with the attempt's end alone"
    bus.failed(b"w1", key, "cancelled")
    assert not bus.open(b"w1")
    assert bus.answer(running) == "deadline_exceeded"


def test_the_remaining_time_is_what_travels() -> None:
    bus = Bus()
    bus.submit(ms=5000)
    bus.pass_time(2.0)
    bus.ready(b"w1")
    envelope = next(m[0] for m in bus.sent.to_worker[b"w1"] if m[0][3] == wire.JOB)
    assert int.from_bytes(envelope[28:32]) == pytest.approx(3000, abs=1)


def test_cancel_is_idempotent_and_reaches_the_worker() -> None:
    bus = Bus()
    bus.ready(b"w1")
    job = bus.submit()
    (key,) = bus.given(b"w1")
    for _ in range(3):
        bus.cancel(job)
    assert bus.answer(job) == "cancelled"
    cancels = [m[0] for m in bus.sent.to_worker[b"w1"] if m[0][3] == wire.CANCEL]
    assert [envelope[4:22] for envelope in cancels] == [key]
    bus.done(b"w1", key)
    assert bus.answer(job) == "cancelled"


def test_a_cancelled_job_in_the_queue_is_never_sent() -> None:
    bus = Bus()
    jobs = [bus.submit() for _ in range(3)]
    bus.cancel(jobs[1])
    bus.ready(b"w1")
    bus.done(b"w1", bus.given(b"w1")[0])
    assert [key[:16] for key in bus.given(b"w1")] == [jobs[0], jobs[2]]


def test_a_vanished_client_takes_its_jobs_along() -> None:
    bus = Bus(client_timeout_s=5)
    bus.ready(b"w1")
    gone, stays = bus.submit(b"gone"), bus.submit(b"c")
    bus.pass_time(6, b"w1")
    assert bus.core.ledger.totals["cancelled"] == 1
    assert gone not in bus.core.ledger.jobs
    assert stays in bus.core.ledger.jobs


def test_the_same_submission_attaches_and_another_body_conflicts() -> None:
    bus = Bus()
    job = bus.submit(voice="amber")
    bus.submit(b"again", job, voice="amber")
    assert bus.sent.accepted[job] == 1
    bus.submit(b"thief", job, voice="basil")
    assert bus.answer(job, b"thief") == "conflict"
    bus.ready(b"w1")
    bus.finish(b"w1", bus.given(b"w1")[0])
    assert bus.answer(job, b"again") == "done"
    assert bus.answer(job, b"c") == "open"


def test_a_connection_that_took_its_job_back_hears_of_the_end_once() -> None:
    """It stood among the watchers as well, from when another had the job: it was told twice."""
    bus = Bus()
    job = bus.submit(b"c")
    for client in (b"d", b"c"):
        bus.submit(client, job)
    bus.core.fetch(b"c", wire.pack_envelope(wire.FETCH, job), bus.now)
    bus.cancel(job, b"c")
    assert (bus.sent.terminal[b"c", job], bus.sent.terminal[b"d", job]) == (1, 1)


def test_a_client_that_connects_anew_hears_again_what_it_missed() -> None:
    bus = Bus()
    bus.ready(b"w1")
    job = bus.submit(b"old")
    (key,) = bus.given(b"w1")
    bus.started(b"w1", key)
    bus.chunk(b"w1", key, segment=0, audio=b"one!")
    bus.submit(b"new", job)
    bus.chunk(b"w1", key, segment=1, audio=b"two!")
    bus.done(b"w1", key)
    heard = bus.sent.to_client[b"new"]
    kinds = [wire.KIND_NAMES[message[0][3]] for message in heard]
    assert kinds == ["ACCEPTED", "STARTED", "CHUNK", "CHUNK", "DONE"]
    assert [message[1] for message in heard if message[0][3] == wire.CHUNK] == [b"one!", b"two!"]
    assert bus.core.ledger.totals["retried"] == 0, "one attempt was enough"


def test_a_client_that_connects_anew_to_a_job_too_large_to_record_hears_it_from_the_start() -> None:
    bus = Bus(result_cache_bytes=1000)
    bus.ready(b"w1")
    job = bus.submit(b"old")
    (key,) = bus.given(b"w1")
    bus.started(b"w1", key)
    bus.chunk(b"w1", key, segment=0, audio=bytes(2000))
    bus.submit(b"new", job)
    bus.failed(b"w1", key, "cancelled")
    again = [m[0] for m in bus.sent.to_worker[b"w1"] if m[0][3] == wire.JOB][-1]
    assert (again[20:22], again[24:28]) == (b"\x00\x02", bytes(4))
    bus.done(b"w1", again[4:22])
    assert bus.answer(job, b"new") == "done"


def test_an_engine_nobody_has_is_unknown_once_the_broker_has_settled() -> None:
    bus = Bus()
    early = bus.submit(engine="nope")
    bus.pass_time(SETTLE_S * 2)
    assert bus.answer(early) == "unknown_engine"
    assert bus.answer(bus.submit(engine="nope")) == "unknown_engine"


def test_a_known_engine_without_workers_is_waited_for() -> None:
    bus = Bus(no_worker_grace_s=30)
    patient = bus.submit()
    bus.pass_time(20)
    assert bus.answer(patient) == "open"
    bus.pass_time(12)
    assert bus.answer(patient) == "no_worker"


def test_overload_is_refused_with_a_time_to_wait() -> None:
    bus = Bus(max_jobs=3, max_jobs_per_client=2)
    assert [bus.answer(bus.submit(client), client) for client in (b"a", b"a", b"a", b"b", b"b")] == [
        "open", "open", "overloaded", "open", "overloaded",
    ]  # fmt: skip
    failed = decode(bus.sent.to_client[b"b"][-1][1], Failed)
    assert failed.retry_after_s is not None
    assert failed.retry_after_s > 0


def test_a_promise_that_cannot_be_kept_is_not_made() -> None:
    bus = Bus()
    assert bus.answer(bus.submit(durable=True)) == "bad_request"
    assert not bus.core.ledger.jobs


@pytest.mark.parametrize("header", [b"", b"\xc1", b"\x90" * 20_000, b"\x95\x01\x02", b"\x92\xa4tone\xa3../"])
def test_a_bad_header_is_one_protocol_error_and_nothing_else(header: bytes) -> None:
    bus = Bus()
    job = b"j" * 16
    with pytest.raises(ProtocolError) as raised:
        bus.core.submit(b"c", wire.pack_envelope(wire.SUBMIT, job), header, b"hi", bus.now)
    assert bus.core.malformed(b"c", job, raised.value, bus.now, from_worker=False)
    bus.settle()
    assert bus.answer(job) == "protocol_error"
    assert not bus.core.ledger.jobs
    assert bus.core.ledger.totals["accepted"] == 0


def test_a_bad_ready_registers_nobody() -> None:
    bus = Bus()
    with pytest.raises(ProtocolError):
        bus.core.ready(b"w1", b"\x91\xa0", bus.now)
    assert not bus.core.members.by_peer


def test_the_slower_interval_is_agreed_on() -> None:
    bus = Bus()
    bus.ready(b"fast", interval_ms=100)
    bus.ready(b"slow", interval_ms=10_000)
    welcomes = [decode(bus.sent.to_worker[peer][0][1], Welcome).interval_ms for peer in (b"fast", b"slow")]
    assert welcomes == [1000, 10_000]
    bus.pass_time(20)
    assert list(bus.core.members.by_peer) == [b"slow"]


def test_a_wedged_engine_loses_its_job_though_its_agent_beats() -> None:
    bus = Bus(progress_lease_s=10)
    bus.ready(b"w1")
    job = bus.submit()
    bus.ready(b"w2")
    bus.started(b"w1", bus.given(b"w1")[0])
    bus.pass_time(11, b"w1", b"w2")
    assert bus.given(b"w2") == [job + b"\x00\x02"]
    assert b"w1" in bus.core.members.by_peer


def test_a_pause_of_the_broker_is_nobodys_silence() -> None:
    """Caught: continued after SIGSTOP, it gave up every peer whose beats were still unread behind a batch."""
    bus = Bus(progress_lease_s=4.0)
    bus.ready(b"w1")
    job = bus.submit(b"d")
    bus.started(b"w1", bus.open(b"w1")[0])
    bus.pass_time(2.0, b"w1", clients=(b"d",))
    bus.now += 60.0
    bus.core.tick(bus.now)
    bus.settle()
    assert b"w1" in bus.core.members.by_peer
    assert bus.answer(job, b"d") == "open"
    assert bus.core.ledger.totals["retried"] == 0
    # Those who say nothing afterwards either are gone as ever.
    bus.pass_time(11.0, clients=())
    assert b"w1" not in bus.core.members.by_peer
    assert bus.answer(job, b"d") == "client_lost"


def test_progress_in_heartbeats_renews_the_lease() -> None:
    bus = Bus(progress_lease_s=10)
    bus.ready(b"w1")
    job = bus.submit()
    bus.started(b"w1", bus.given(b"w1")[0])
    for _ in range(4):
        bus.pass_time(8, b"w1")
        bus.beat(b"w1", job)
    assert len(bus.given(b"w1")) == 1


def test_a_draining_worker_finishes_and_gets_nothing_new() -> None:
    bus = Bus()
    bus.ready(b"w1")
    first = bus.submit()
    bus.core.drain_worker("w1")
    bus.settle()
    assert bus.sent.to_worker[b"w1"][-1][0][3] == wire.DRAIN
    second = bus.submit()
    bus.done(b"w1", bus.given(b"w1")[0])
    assert (bus.answer(first), bus.answer(second)) == ("done", "open")
    assert len(bus.given(b"w1")) == 1
    bus.core.worker_leaves(b"w1", "drained", bus.now)
    bus.ready(b"w2")
    assert bus.given(b"w2") == [second + b"\x00\x01"]
    with pytest.raises(BadRequest, match="vc status"):
        bus.core.drain_worker("nobody")


def test_a_stopping_broker_answers_what_was_not_begun_and_finishes_the_rest() -> None:
    bus = Bus()
    bus.ready(b"w1")
    running, waiting = bus.submit(), bus.submit()
    bus.core.begin_drain()
    bus.settle()
    late = bus.submit()
    assert (bus.answer(waiting), bus.answer(late), bus.answer(running)) == (
        "overloaded",
        "overloaded",
        "open",
    )
    bus.done(b"w1", bus.given(b"w1")[0])
    assert bus.answer(running) == "done"
    bus.core.abort()
    bus.settle()
    assert bus.sent.to_worker[b"w1"][-1][0][3] == wire.GOODBYE


def test_interactive_jobs_pass_batch_jobs_but_do_not_starve_them() -> None:
    bus = Bus()
    batch = [bus.submit(lane="batch") for _ in range(3)]
    for _ in range(40):
        bus.submit(lane="interactive")
    bus.ready(b"w1")
    order: list[bytes] = []
    while open_keys := bus.open(b"w1"):
        order.append(open_keys[0][:16])
        bus.done(b"w1", open_keys[0])
    assert order[0] not in batch
    places = [order.index(job) for job in batch]
    assert places[0] < 12
    assert places[2] < 40


def test_a_client_that_lost_its_place_hears_a_running_job_again_on_the_same_connection() -> None:
    """Found by chaos: it asked again under the same id, heard only what came after, and gave up."""
    bus = Bus()
    bus.ready(b"w1")
    job = bus.submit()
    (key,) = bus.given(b"w1")
    bus.started(b"w1", key)
    bus.chunk(b"w1", key, audio=b"one!")
    before = len(bus.sent.to_client[b"c"])
    bus.submit(job=job)
    bus.submit(job=job, flags=wire.ANEW)
    kinds = [wire.KIND_NAMES[message[0][3]] for message in bus.sent.to_client[b"c"][before:]]
    assert kinds == ["ACCEPTED", "ACCEPTED", "STARTED", "CHUNK"]


def test_a_number_that_a_worker_has_not_ended_is_not_given_to_it_again() -> None:
    """Found by the simulator: the end of the first job's attempt was taken for that of the second's."""
    bus = Bus()
    bus.ready(b"w1", slots=2)
    job = bus.submit()
    (old,) = bus.given(b"w1")
    bus.cancel(job)  # forgotten here, and still with the worker
    bus.submit(b"d", job)
    new = bus.given(b"w1")[-1]
    assert new != old
    bus.failed(b"w1", old, "cancelled")
    assert bus.answer(job, b"d") == "open"
    bus.started(b"w1", new)
    bus.done(b"w1", new)
    assert bus.answer(job, b"d") == "done"


def test_an_attempt_of_which_nothing_is_heard_is_asked_back_before_it_is_held_against_its_job() -> None:
    """Found by the simulator: jobs that waited behind a hung one of another broker were called poison."""
    bus = Bus(progress_lease_s=10)
    bus.ready(b"w1")
    bus.submit()
    (key,) = bus.given(b"w1")
    bus.pass_time(6, b"w1")
    asked = [m[0] for m in bus.sent.to_worker[b"w1"] if m[0][3] == wire.CANCEL]
    assert asked == [wire.pack_envelope(wire.CANCEL, key[:16], 1, wire.UNBEGUN)]
    bus.returned(b"w1", key)
    assert bus.core.ledger.jobs[key[:16]].losses == 0
    bus.pass_time(12, b"w1")  # not returned this time, so an engine hangs with it
    assert bus.core.ledger.jobs[key[:16]].losses == 1


def test_a_worker_that_believes_to_be_registered_is_told_when_it_is_not() -> None:
    """Found by the simulator: it would work on for a broker that had forgotten what it had given out."""
    bus = Bus()
    bus.ready(b"w1", "w")
    renewal = Ready("w", 1, "tone", ["en"], 2, 1000, 24_000, renews=True)
    bus.core.ready(b"new", encode(renewal), bus.now)
    bus.settle()
    assert [message[0][3] for message in bus.sent.to_worker[b"new"]] == [wire.REREGISTER]
    bus.core.ready(b"w1", encode(renewal), bus.now)
    bus.settle()
    assert bus.core.members.by_id["w"].slots == 2


def test_handing_back_is_no_sign_that_an_engine_works() -> None:
    """Found by the simulator: what waited behind a hung engine came and went, and its lease never ran out."""
    bus = Bus(progress_lease_s=10)
    bus.ready(b"w1")
    for _ in range(4):
        bus.submit()
    hung, waiting = bus.given(b"w1")
    for _ in range(3):
        bus.pass_time(6, b"w1")
        if waiting in bus.open(b"w1"):
            bus.returned(b"w1", waiting)
            waiting = bus.given(b"w1")[-1]
    assert bus.core.ledger.jobs[hung[:16]].losses == 1


def test_an_attempt_in_one_message_is_forwarded_as_it_is_and_kept_as_three() -> None:
    bus = Bus()
    bus.ready(b"w1", slots=2)
    job = bus.submit(b"c")
    (key,) = bus.given(b"w1")
    bus.spoken(b"w1", key, audio=b"pcm!")
    envelope, header, payload = bus.sent.to_client[b"c"][-1]
    assert (envelope[3], envelope[4:22], payload) == (wire.SPOKEN, key, b"pcm!")
    assert decode(header, Spoken).samples == 2
    assert bus.open(b"w1") == []
    assert bus.core.ledger.totals["done"] == 1
    # Said again, it is an attempt that nobody knows.
    bus.spoken(b"w1", key, audio=b"pcm!")
    assert bus.core.ledger.totals["stale"] == 3
    # Whoever comes back for it finds it as any other result.
    bus.submit(b"d", job)
    assert bus.sent.to_client[b"d"][-1][0][23] == wire.ATTACHED | wire.STORED
    bus.core.fetch(b"d", wire.pack_envelope(wire.FETCH, job), bus.now)
    bus.settle()
    page = bus.sent.to_client[b"d"][-3:]
    assert [message[0][3] for message in page] == [wire.STARTED, wire.CHUNK, wire.DONE]
    assert decode(page[0][1], Started).worker == "w"
    assert page[1][1] == b"pcm!"
    assert decode(page[2][1], Done) == Done(1, 2, 0.5)


def test_an_attempt_in_one_message_that_is_not_the_first_is_taken_apart() -> None:
    """What came before it was heard already, and DONE has to count for all of it."""
    bus = Bus()
    for worker in (b"w1", b"w2"):
        bus.ready(worker)
    job = bus.submit(b"c")
    bus.started(b"w1", bus.given(b"w1")[0])
    bus.chunk(b"w1", bus.given(b"w1")[0], segment=0)
    bus.core.worker_leaves(b"w1", "left", bus.now)
    bus.settle()
    (again,) = bus.given(b"w2")
    bus.spoken(b"w2", again, segment=1, audio=b"more")
    kinds = [message[0][3] for message in bus.sent.to_client[b"c"]]
    assert kinds[-5:] == [wire.STARTED, wire.CHUNK, wire.STARTED, wire.CHUNK, wire.DONE]
    bus.core.fetch(b"d", wire.pack_envelope(wire.FETCH, job), bus.now)
    bus.settle()
    assert [m[1] for m in bus.sent.to_client[b"d"] if m[0][3] == wire.CHUNK] == [b"\0\0", b"more"]
    assert decode(bus.sent.to_client[b"d"][-1][1], Done).chunks == 2


def test_an_attempt_in_one_message_whose_header_is_none_is_the_workers_error() -> None:
    bus = Bus()
    bus.ready(b"w1")
    bus.submit(b"c", durable=False)
    key = bus.given(b"w1")[0]
    bus.started(b"w1", key)
    with pytest.raises(ProtocolError):
        bus.core.spoken(b"w1", wire.pack_envelope(wire.SPOKEN, key[:16], 1), (b"\x93no", b"pcm!"), bus.now)
    assert bus.open(b"w1") == [key]


@pytest.mark.parametrize("at_once", [True, False])
def test_half_a_sample_loses_the_attempt(at_once: bool) -> None:
    """A client takes no such chunk: it went on asking for the job until its lease, or for ever by FETCH."""
    bus = Bus()
    for worker in (b"w1", b"w2"):
        bus.ready(worker)
    job = bus.submit(b"c")
    (key,) = bus.given(b"w1")
    if at_once:
        bus.spoken(b"w1", key, audio=b"odd")
    else:
        bus.started(b"w1", key)
        bus.chunk(b"w1", key, audio=b"odd")
    (again,) = bus.given(b"w2")
    bus.spoken(b"w2", again)
    assert bus.answer(job) == "done"
    assert b"odd" not in [frame for message in bus.sent.to_client[b"c"] for frame in message]


@pytest.mark.parametrize("kind", [wire.STARTED, wire.DONE, wire.SPOKEN])
@pytest.mark.parametrize("durable", [False, True])
def test_a_header_of_a_worker_that_is_none_goes_no_further(kind: int, durable: bool) -> None:
    """Fuzzing found that it was passed on: the client could not read it and waited for ever; of a durable job
    the attempt was closed as well, and the job hung in no table."""
    bus = Bus(journal="state")
    bus.ready(b"w")
    job = bus.submit(durable=durable)
    for entry in list(bus.core.to_journal):
        bus.core.journalled(entry, None, bus.now)
    bus.settle()
    (key,) = bus.given(b"w")
    envelope = wire.pack_envelope(kind, key[:16], 1, wire.SEGMENT_END)
    header = b"\x93\xc0\xc0\xc0"
    core, rest = bus.core, (header, b"\0\0") if kind == wire.SPOKEN else header
    says: Callable[..., None] = {
        wire.STARTED: core.started, wire.DONE: core.done, wire.SPOKEN: core.spoken,
    }[kind]  # fmt: skip
    with pytest.raises(ProtocolError):
        says(b"w", envelope, rest, bus.now)
    bus.settle()
    assert bus.answer(job) == "open"
    bus.core.check_invariants()
    bus.finish(b"w", key)
    bus.settle()
    assert bus.answer(job) == "done"


def test_a_worker_that_hands_back_whatever_it_is_given_ends_the_job_and_not_the_broker() -> None:
    """Caught: after 65,535 attempts the number of the next fitted no envelope, which ended the broker; on the
    way there each left a line in the job's history."""
    bus = Bus()
    bus.ready(b"w1")
    job = bus.submit()
    while bus.answer(job) == "open":
        assert len(bus.core.ledger.jobs[job].history) <= KEPT_HISTORY
        bus.returned(b"w1", bus.given(b"w1")[-1])
    assert bus.answer(job) == "worker_lost"
    assert len(bus.given(b"w1")) == MOST_ATTEMPTS


@pytest.mark.parametrize("durable", [False, True])
def test_a_last_segment_that_none_can_follow_is_none(durable: bool) -> None:
    """Caught: the attempt after such a one had to begin with segment 2**32, which ended the broker."""
    bus = Bus(journal="here")
    bus.ready(b"w1")
    job = bus.submit(durable=durable)
    if durable:
        bus.core.journalled(bus.core.to_journal.pop(), None, bus.now)
        bus.settle()
    (key,) = bus.given(b"w1")
    bus.started(b"w1", key)
    bus.chunk(b"w1", key, segment=2**32 - 1)
    bus.ready(b"w2")
    assert bus.given(b"w2") == [job + b"\0\2"]
    assert bus.sent.to_worker[b"w2"][-1][0][24:28] == bytes(4)


def test_words_of_workers_that_fill_more_than_a_header_are_cut() -> None:
    """Caught: letters of four bytes made FAILED larger than a header may be, so the job could not be ended;
    at its deadline that ended the broker."""
    bus = Bus()
    letter = "\N{SPEAKING HEAD IN SILHOUETTE}"
    bus.ready(b"w1", letter * 128)
    job = bus.submit()
    for _ in range(16):
        bus.returned(b"w1", bus.given(b"w1")[-1])
    envelope = wire.pack_envelope(wire.FAILED, job, 17)
    bus.core.failed(b"w1", envelope, encode(Failed("engine_error", letter * 2000)), bus.now)
    bus.settle()
    assert bus.answer(job) == "engine_error"
    said = decode(bus.sent.to_client[b"c"][-1][1], Failed)
    assert len(said.history) == 16
    assert set(said.message) == {letter}


def test_a_chunk_before_a_whole_attempt_in_one_message_is_not_counted_for_good() -> None:
    """Caught: its bytes stayed on the account of the results, which in time had room for none any more."""
    bus = Bus()
    bus.ready(b"w1")
    job = bus.submit()
    (key,) = bus.given(b"w1")
    bus.chunk(b"w1", key, audio=bytes(1000), end=False)
    bus.spoken(b"w1", key)
    assert bus.answer(job) == "done"
    bus.pass_time(bus.settings.result_cache_s + 1, b"w1")
    assert bus.core.results.size_bytes == 0
