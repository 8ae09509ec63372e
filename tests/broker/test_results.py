"""Results kept in memory: a client that lost its connection finds its answer, and memory stays bounded."""

from __future__ import annotations

from tests.broker.model import Bus
from voicebus.common import wire
from voicebus.common.messages import Failed, decode


def spoken(bus: Bus, *pieces: bytes) -> bytes:
    """A job of client c that has been spoken, a segment a piece."""
    job = bus.submit()
    key = next(key for key in bus.open(b"w") if key[:16] == job)
    bus.started(b"w", key)
    for segment, pcm in enumerate(pieces):
        bus.chunk(b"w", key, segment=segment, audio=pcm)
    bus.done(b"w", key)
    return job


def fetch(bus: Bus, job: bytes, first: int = 0) -> list[tuple[bytes, ...]]:
    before = len(bus.sent.to_client[b"f"])
    bus.core.fetch(b"f", wire.pack_envelope(wire.FETCH, job, sequence=first), bus.now)
    bus.settle()
    return bus.sent.to_client[b"f"][before:]


def test_an_answer_lost_on_its_way_is_kept_and_fetched_in_pages() -> None:
    bus = Bus()
    bus.ready(b"w")
    pieces = [bytes([number]) * 4 for number in range(100)]
    job = spoken(bus, *pieces)
    bus.submit(b"again", job)
    ((accepted, _),) = bus.sent.to_client[b"again"]
    assert (accepted[3], accepted[23]) == (wire.ACCEPTED, wire.ATTACHED | wire.STORED)
    assert bus.core.ledger.totals["accepted"] == 1, "it is not spoken twice"
    first, second = fetch(bus, job), fetch(bus, job, wire.FETCH_CHUNKS)
    assert [message[0][3] for message in (first[0], second[-1])] == [wire.STARTED, wire.DONE]
    assert [message[1] for message in first[1:] + second[:-1]] == pieces


def test_the_same_id_for_another_text_is_a_conflict_even_afterwards() -> None:
    bus = Bus()
    bus.ready(b"w")
    job = spoken(bus, b"ab")
    bus.submit(b"thief", job, text=b"something else")
    assert bus.answer(job, b"thief") == "conflict"


def test_a_final_failure_is_repeated_and_a_passing_one_is_tried_again() -> None:
    bus = Bus()
    bus.ready(b"w")
    bad, cancelled = bus.submit(), bus.submit(b"d")
    bus.failed(b"w", bus.given(b"w")[0], "unknown_voice")
    bus.cancel(cancelled, b"d")
    bus.submit(b"x", bad)
    bus.submit(b"y", cancelled)
    assert bus.answer(bad, b"x") == "unknown_voice"
    assert bus.answer(cancelled, b"y") == "open"


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    bus = Bus(result_cache_bytes=40_000)
    bus.ready(b"w")
    jobs = [spoken(bus, bytes(5000)) for _ in range(10)]
    assert bus.core.results.size_bytes <= 40_000
    kept = [job in bus.core.results.finished for job in jobs]
    assert kept == sorted(kept)
    assert 0 < sum(kept) < 10
    assert fetch(bus, jobs[0])[0][0][3] == wire.FAILED
    large = spoken(bus, bytes(30_000))
    assert large not in bus.core.results.finished, "no result may push out all others"


def test_results_are_forgotten_after_their_time() -> None:
    bus = Bus(result_cache_s=5.0)
    bus.ready(b"w")
    job = spoken(bus, b"ab")
    bus.pass_time(6, b"w")
    assert job not in bus.core.results.finished
    assert bus.core.results.size_bytes == 0


def test_whole_segments_of_an_earlier_attempt_are_part_of_the_result() -> None:
    bus = Bus()
    bus.ready(b"w")
    job = bus.submit()
    (key,) = bus.given(b"w")
    bus.started(b"w", key)
    bus.chunk(b"w", key, segment=0, audio=b"kept")
    bus.chunk(b"w", key, segment=1, audio=b"lost", end=False)
    bus.failed(b"w", key, "worker_lost")
    second = bus.given(b"w")[-1]
    bus.started(b"w", second)
    bus.chunk(b"w", second, segment=1, audio=b"anew")
    bus.done(b"w", second)
    assert [message[1] for message in fetch(bus, job) if message[0][3] == wire.CHUNK] == [b"kept", b"anew"]


def test_a_submission_that_an_old_connection_delivers_last_loses_the_job_only_while_that_lives() -> None:
    """Found by the simulator: the job moved to the old connection and ended with it; its client waited on."""
    bus = Bus()
    bus.ready(b"w1")
    job = bus.submit(b"new")
    (key,) = bus.open(b"w1")
    bus.started(b"w1", key)
    bus.submit(b"old", job=job)
    bus.chunk(b"w1", key)
    before = len(bus.sent.to_client[b"new"])
    bus.core.client_gone(b"old")
    bus.settle()
    bus.done(b"w1", key)
    kinds = [wire.KIND_NAMES[message[0][3]] for message in bus.sent.to_client[b"new"][before:]]
    assert kinds == ["STARTED", "CHUNK", "DONE"]
    assert bus.core.ledger.totals["cancelled"] == 0


def test_a_connection_that_lost_a_job_to_an_older_one_hears_of_its_end() -> None:
    """Found by the simulator: the job ended well on a connection nobody reads, and its client waited on."""
    bus = Bus()
    bus.ready(b"w1")
    well, badly = bus.submit(b"new"), bus.submit(b"new")
    for job in (well, badly):
        bus.submit(b"old", job=job)
    before = len(bus.sent.to_client[b"new"])
    bus.finish(b"w1", bus.open(b"w1")[0])
    bus.failed(b"w1", bus.open(b"w1")[0], "bad_request")
    heard = [(wire.KIND_NAMES[m[0][3]], m[0][23], m[0][4:20]) for m in bus.sent.to_client[b"new"][before:]]
    assert heard == [("ACCEPTED", wire.ATTACHED | wire.STORED, well), ("FAILED", 0, badly)]


def test_what_is_sent_again_to_one_connection_is_bounded() -> None:
    """Found by the simulator: the replay itself cut the client off, however fast it read, again and again."""
    bus = Bus(max_unsent_bytes_per_client=4000)
    bus.ready(b"w1", slots=2)
    jobs = [bus.submit(b"old") for _ in range(2)]
    keys = bus.open(b"w1")
    for key in keys:
        bus.started(b"w1", key)
        bus.chunk(b"w1", key, audio=b"ab" * 250)
    for job in jobs:
        bus.submit(b"new", job=job)
    kinds = [wire.KIND_NAMES[message[0][3]] for message in bus.sent.to_client[b"new"]]
    assert kinds == ["ACCEPTED", "STARTED", "CHUNK", "ACCEPTED"]
    # The second is spoken again, at the pace of its engine, and that costs it nothing.
    cancelled = [m[0][4:20] for m in bus.sent.to_worker[b"w1"] if m[0][3] == wire.CANCEL]
    assert cancelled == [jobs[1]]
    assert bus.core.ledger.jobs[jobs[1]].losses == 0


def test_a_reader_takes_what_is_on_its_way_before_it_is_sent_more() -> None:
    """Found by the simulator: a few large pages at once exceeded any budget, after each connection anew."""
    bus = Bus(max_unsent_bytes_per_client=8000)
    bus.ready(b"w1")
    jobs = [bus.submit() for _ in range(2)]
    for _ in jobs:
        (key, *_) = bus.open(b"w1")
        bus.started(b"w1", key)
        bus.chunk(b"w1", key, audio=b"ab" * 600)
        bus.done(b"w1", key)
    before = len(bus.sent.to_client[b"c"])
    for job in jobs:
        bus.core.fetch(b"c", wire.pack_envelope(wire.FETCH, job), bus.now)
    bus.settle()
    kinds = [wire.KIND_NAMES[message[0][3]] for message in bus.sent.to_client[b"c"][before:]]
    assert kinds == ["STARTED", "CHUNK", "DONE", "FAILED"]
    refusal = decode(bus.sent.to_client[b"c"][-1][1], Failed)
    assert (refusal.code, refusal.retry_after_s) == ("overloaded", 0.1)
    bus.core.fetch(b"c", wire.pack_envelope(wire.FETCH, jobs[1]), bus.now)
    bus.settle()
    assert bus.sent.to_client[b"c"][-1][0][3] == wire.DONE
