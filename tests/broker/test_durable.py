"""Durable jobs in the core: promised when written down, alive without a client, fetched by id."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.broker.model import DONE, STARTED, Bus
from voicebus.broker import admin
from voicebus.broker.entries import (
    Audio,
    Dropped,
    Ended,
    Entered,
    Entry,
    Fetched,
    Page,
    Read,
    Recovered,
    Rewound,
)
from voicebus.broker.roles import Rights
from voicebus.common import wire
from voicebus.common.errors import StorageError
from voicebus.common.keyring import Role
from voicebus.common.messages import Admin, AdminReply, Submit, decode, encode


class Written(Bus):
    """A bus whose journal says yes when it is asked to."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(journal="somewhere", **settings)

    def write(self, error: StorageError | None = None) -> list[Entry]:
        entries = self.core.to_journal.copy()
        self.core.to_journal.clear()
        for entry in entries:
            self.core.journalled(entry, error, self.now)
        self.settle()
        return entries

    def fetch(self, job: bytes, client: bytes = b"f", first: int = 0) -> None:
        self.core.fetch(client, wire.pack_envelope(wire.FETCH, job, sequence=first), self.now)
        self.settle()

    def heard(self, client: bytes) -> list[str]:
        names: list[str] = []
        for message in self.sent.to_client[client]:
            flags = message[0][23] if message[0][3] == wire.ACCEPTED else 0
            names.append(wire.KIND_NAMES[message[0][3]] + {0: "", 4: "+ATTACHED", 12: "+STORED"}[flags])
        return names


def test_nothing_is_promised_before_it_stands() -> None:
    bus = Written()
    bus.ready(b"w")
    job = bus.submit(durable=True)
    assert bus.heard(b"c") == []
    assert bus.given(b"w") == []
    (entry,) = bus.write()
    assert isinstance(entry, Entered)
    assert (entry.job, entry.text, entry.budget_s) == (job, b"hi", bus.settings.durable_deadline_s)
    assert bus.heard(b"c") == ["ACCEPTED"]
    assert len(bus.given(b"w")) == 1


def test_what_cannot_be_written_is_refused() -> None:
    bus = Written()
    job = bus.submit(durable=True)
    bus.write(StorageError("full"))
    assert bus.answer(job) == "storage_error"
    assert not bus.core.ledger.jobs


def test_a_durable_job_goes_on_without_its_client_and_is_fetched_by_another() -> None:
    bus = Written()
    bus.ready(b"w")
    job = bus.submit(durable=True, flags=wire.STREAM)
    bus.write()
    bus.core.client_gone(b"c")
    (key,) = bus.given(b"w")
    bus.started(b"w", key)
    bus.chunk(b"w", key, audio=b"ab")
    bus.fetch(job)
    assert bus.heard(b"f") == ["ACCEPTED+ATTACHED"]
    bus.done(b"w", key)
    assert bus.heard(b"f") == ["ACCEPTED+ATTACHED"], "not before the answer stands"
    audio, ended = bus.write()
    assert isinstance(audio, Audio)
    assert isinstance(ended, Ended)
    assert (audio.pcm, ended.state, ended.answer) == (b"ab", "done", DONE)
    assert bus.heard(b"f")[1:] == ["ACCEPTED+STORED"]
    bus.fetch(job)
    (read,) = bus.core.to_journal
    bus.core.to_journal.clear()
    assert read == Read(job, b"f", 0, wire.FETCH_CHUNKS, size_bytes=2)
    bus.core.journalled(read, Page(b"s", [(0, 2, b"ab")], DONE), bus.now)
    bus.settle()
    assert bus.heard(b"f")[2:] == ["STARTED", "CHUNK", "DONE"]
    assert [type(entry) for entry in bus.write()] == [Fetched]
    assert bus.heard(b"c") == ["ACCEPTED"]


def test_a_lost_attempt_rewinds_the_spool_to_whole_segments() -> None:
    bus = Written()
    bus.ready(b"w1")
    bus.submit(durable=True)
    bus.write()
    (key,) = bus.given(b"w1")
    bus.started(b"w1", key)
    bus.chunk(b"w1", key, segment=0)
    bus.chunk(b"w1", key, segment=1, end=False)
    bus.core.worker_leaves(b"w1", "died", bus.now)
    entries = bus.write()
    rewound = [entry for entry in entries if isinstance(entry, Rewound)]
    assert rewound == [Rewound(key[:16], 1)]


@pytest.mark.parametrize("moment", ["pending", "queued", "running"])
def test_cancel_reaches_a_durable_job_everywhere(moment: str) -> None:
    bus = Written()
    job = bus.submit(durable=True)
    if moment != "pending":
        bus.write()
    if moment == "running":
        bus.ready(b"w")
    bus.cancel(job, b"other")
    assert bus.answer(job) == "cancelled"
    bus.write()
    assert not bus.core.ledger.jobs
    assert not bus.core.durables.pending


def test_the_same_id_again_attaches_or_conflicts_at_every_station() -> None:
    bus = Written()
    job = bus.submit(durable=True)
    bus.submit(b"d", job, durable=True)
    bus.submit(b"e", job, durable=True, text=b"other")
    assert bus.answer(job, b"e") == "conflict"
    bus.write()
    assert bus.heard(b"d") == ["ACCEPTED"], "the answer goes to who asked last"
    bus.ready(b"w")
    (key,) = bus.given(b"w")
    bus.finish(b"w", key)
    bus.submit(b"g", job, durable=True)
    bus.write()
    assert bus.heard(b"g") == ["ACCEPTED+ATTACHED", "ACCEPTED+STORED"]
    bus.submit(b"h", job, durable=True)
    assert bus.heard(b"h") == ["ACCEPTED+STORED"]
    bus.submit(b"i", job, durable=True, text=b"other")
    assert bus.answer(job, b"i") == "conflict"


def test_a_stop_leaves_durable_jobs_to_the_next_start() -> None:
    bus = Written()
    bus.ready(b"w")
    running, waiting = bus.submit(durable=True), bus.submit(durable=True)
    bus.write()
    assert bus.given(b"w")[0][:16] == running
    bus.core.begin_drain()
    bus.settle()
    # Caught by chaos: it called a job unknown that it had only put by.
    bus.fetch(waiting)
    assert bus.answer(waiting, b"f") == "overloaded"
    bus.core.abort()
    bus.settle()
    assert bus.answer(running) == bus.answer(waiting) == "open"
    assert bus.core.ledger.totals["put_by"] == 2
    assert not any(isinstance(entry, Ended | Dropped) for entry in bus.write())


def test_recovery_takes_up_what_waited_and_answers_for_what_had_ended() -> None:
    bus = Written()
    header = encode(Submit("tone", durable=True))
    waited = Recovered(bytes(15) + b"1", header, b"hi", 100.0, 5000.0, "queued", 2, 2, ("one", "two"))
    ended = Recovered(bytes(15) + b"2", header, b"hi", 100.0, 5000.0, "done", 1, started=STARTED,
                      answer=DONE, ended_at=5010.0)  # fmt: skip
    torn = Recovered(bytes(15) + b"3", b"\xc1", b"hi", 100.0, 5000.0, "queued")
    bus.core.durables.wall_offset = 5050.0 - bus.now
    bus.core.recover([waited, ended, torn], bus.now)
    bus.settle()
    assert bus.core.ledger.jobs[waited.job].deadline == bus.now + 50.0
    assert bus.write() == [Dropped(torn.job)]
    bus.ready(b"w")
    (key,) = bus.given(b"w")
    assert key == waited.job + b"\0\3", "attempts are counted on"
    bus.failed(b"w", key, "worker_lost")
    bus.fetch(waited.job, b"f")
    bus.write()
    bus.fetch(waited.job, b"g")
    assert bus.answer(waited.job, b"g") == "poison_job"
    bus.fetch(ended.job, b"h")
    assert bus.core.to_journal == [Read(ended.job, b"h", 0, wire.FETCH_CHUNKS)]


@pytest.mark.parametrize(("jump_s", "left_s"), [(-10_000.0, 100.0), (30.0, 70.0), (10_000.0, 0.0)])
def test_a_wall_clock_that_jumps_gives_no_job_more_than_its_time(jump_s: float, left_s: float) -> None:
    bus = Written()
    found = Recovered(bytes(15) + b"1", encode(Submit("tone", durable=True)), b"hi", 100.0, 5000.0, "queued")
    bus.core.durables.wall_offset = 5000.0 + jump_s - bus.now
    bus.core.recover([found], bus.now)
    assert bus.core.ledger.jobs[found.job].deadline == bus.now + left_s


def test_results_expire_sooner_once_fetched() -> None:
    bus = Written(keep_results_s=100.0, keep_fetched_s=10.0)
    bus.ready(b"w")
    jobs = [bus.submit(durable=True) for _ in range(2)]
    bus.write()
    for _ in jobs:
        bus.finish(b"w", bus.open(b"w")[0])
    bus.write()
    read = Read(jobs[0], b"f", 0, 64)
    bus.core.journalled(read, Page(b"", [], DONE), bus.now)
    bus.write()
    bus.pass_time(11, b"w")
    assert bus.write() == [Dropped(jobs[0])]
    bus.pass_time(90, b"w")
    assert bus.write() == [Dropped(jobs[1])]
    bus.fetch(jobs[1])
    assert bus.answer(jobs[1], b"f") == "unknown_job"


def test_a_disk_that_cannot_keep_up_ends_the_job_instead_of_filling_memory() -> None:
    bus = Written()
    bus.ready(b"w")
    job = bus.submit(durable=True)
    bus.write()
    (key,) = bus.given(b"w")
    bus.core.durables.behind_bytes = bus.settings.max_unsent_bytes * 2 + 1
    bus.chunk(b"w", key)
    assert bus.answer(job) == "storage_error"
    assert bus.answer(bus.submit(durable=True)) == "overloaded"


def test_audio_with_a_gap_is_never_kept_as_whole() -> None:
    """A worker that skips a chunk, or ends with fewer than it says, has lost its attempt."""
    bus = Written(max_attempts=3)
    bus.ready(b"w")
    job = bus.submit(durable=True)
    bus.write()
    for how in ("a gap", "too few"):
        (key,) = bus.open(b"w")
        bus.started(b"w", key)
        if how == "a gap":
            bus.chunk(b"w", key, number=0)
            bus.chunk(b"w", key, number=0)
            bus.chunk(b"w", key, number=2)
            bus.failed(b"w", key, "cancelled")
        else:
            bus.done(b"w", key)
    assert bus.core.ledger.jobs[job].losses == 2
    bus.finish(b"w", bus.open(b"w")[0])
    kept = [entry.pcm for entry in bus.write() if isinstance(entry, Audio)]
    assert bus.answer(job) == "done"
    assert kept[-1:] == [b"\0\0"]


def test_a_job_that_begins_anew_while_it_waits_begins_anew_in_the_spool_too() -> None:
    """Found by the simulator: the first segment was kept twice, and fetched as the whole."""
    bus = Written(result_cache_bytes=0)
    bus.ready(b"w")
    job = bus.submit(durable=True)
    bus.write()
    (key,) = bus.open(b"w")
    bus.started(b"w", key)
    bus.chunk(b"w", key)
    bus.core.worker_leaves(b"w", "gone", bus.now)
    bus.settle()
    assert Rewound(job, 1) in bus.write()
    bus.submit(b"d", job, durable=True)
    assert Rewound(job, 0) in bus.write()


def test_a_watcher_is_told_of_a_failure_once() -> None:
    bus = Written()
    job = bus.submit(durable=True)
    bus.write()
    bus.fetch(job)
    bus.cancel(job)
    bus.write()
    assert bus.answer(job, b"f") == "cancelled"


def test_a_job_of_the_default_engine_still_names_it_after_a_restart() -> None:
    header = encode(Submit(durable=True))
    bus = Written()
    found = Recovered(bytes(16), header, b"hi", 60.0, 0.0, "done", started=STARTED, answer=DONE, ended_at=1.0)
    bus.core.recover([found], bus.now)
    assert bus.core.durables.ended[bytes(16)].engine == "tone"


def test_a_damaged_answer_in_the_journal_is_no_answer() -> None:
    """Nothing in the database has a checksum. A client was sent what it cannot read, and waited for ever."""
    header = encode(Submit("tone", durable=True))
    spoken, failed = bytes(15) + b"1", bytes(15) + b"2"
    bus = Written()
    bus.core.durables.wall_offset = 5.0 - bus.now
    bus.core.recover(
        [
            Recovered(spoken, header, b"hi", 60.0, 5.0, "done", 1, started=STARTED, answer=b"\xc1"),
            Recovered(failed, header, b"hi", 60.0, 5.0, "failed", 1, answer=DONE),
        ],
        bus.now,
    )
    assert bus.write() == [Entered(spoken, header, b"hi", 60.0, 5.0), Rewound(spoken, 0)], "it begins anew"
    bus.ready(b"w")
    (key,) = bus.given(b"w")
    assert key[:16] == spoken
    bus.fetch(failed, b"f")
    assert bus.answer(failed, b"f") == "storage_error"
    bus.core.check_invariants()


def test_a_submitter_that_fetches_before_the_answer_stands_is_told_when_it_does() -> None:
    """It had been sent DONE, so it was not among those who wait: asking once more it waited for ever."""
    bus = Written()
    bus.ready(b"w")
    job = bus.submit(durable=True)
    bus.write()
    bus.finish(b"w", bus.given(b"w")[0])
    bus.fetch(job, b"c")
    before = len(bus.sent.to_client[b"c"])
    bus.write()
    ((envelope, _),) = bus.sent.to_client[b"c"][before:]
    assert envelope[3] == wire.ACCEPTED
    assert envelope[23] & wire.STORED


def test_a_key_that_is_bound_to_a_tenant_is_told_nothing_of_anothers_ended_jobs() -> None:
    bus = Written()
    bus.ready(b"w")
    theirs = bus.submit(durable=True, tenant="theatre")
    bus.write()
    bus.finish(b"w", bus.given(b"w")[-1])
    bus.write()
    told: dict[str, list[Any]] = {}
    for tenant in ("radio", "theatre"):
        rights = Rights(Role.CLIENT, tenant)
        for command, target in (("job", theirs.hex()), ("jobs", ""), ("jobs", "done")):
            header = encode(Admin(command, target))
            admin.answer(bus.core, b"a", wire.pack_envelope(wire.ADMIN), header, bus.now, rights)
            _, _, reply, document = bus.core.to_clients.pop()
            found = msgspec.msgpack.decode(document)
            told.setdefault(tenant, []).append(decode(reply, AdminReply).code or found.get("jobs", found))
    assert told["radio"] == ["unknown_job", [], []]
    (ended, *lists) = told["theatre"]
    assert (ended["id"], ended["state"], lists) == (theirs.hex(), "done", [[ended], [ended]])
