"""Every station of a job against every message that can name it, and every station of a worker likewise.

The tables below say what a client is sent and where the job is afterwards; they are written by hand from
docs/protocol.md. `-` means nothing: no answer, no change.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.broker.model import Bus
from voicebus.broker.states import JOB_MOVES, WORKER_MOVES, IllegalMoveError, JobState, WorkerState
from voicebus.common import wire
from voicebus.common.messages import Failed, decode

JOB = (7).to_bytes(16, "big")
KEY = JOB + b"\0\1"
HOLDER, OTHER, STRANGER = b"w1", b"w2", b"w9"

FROM_CLIENT = {
    "SUBMIT": lambda bus: bus.submit(job=JOB),
    "SUBMIT, another text": lambda bus: bus.submit(job=JOB, text=b"other"),
    "FETCH": lambda bus: fetch(bus),
    "CANCEL": lambda bus: bus.cancel(JOB),
}
FROM_WORKER: dict[str, Callable[[Bus, bytes], None]] = {
    "STARTED": lambda bus, peer: bus.started(peer, KEY),
    "CHUNK": lambda bus, peer: bus.chunk(peer, KEY),
    "DONE": lambda bus, peer: bus.done(peer, KEY),
    "FAILED, may be retried": lambda bus, peer: bus.failed(peer, KEY, "worker_lost"),
    "FAILED, final": lambda bus, peer: bus.failed(peer, KEY, "bad_request"),
    "RETURN": lambda bus, peer: bus.returned(peer, KEY),
}


def fetch(bus: Bus) -> None:
    bus.core.fetch(b"c", wire.pack_envelope(wire.FETCH, JOB), bus.now)
    bus.settle()


def queued() -> Bus:
    """Nobody has room: the only workers are another engine's."""
    bus = Bus()
    for peer in (HOLDER, OTHER):
        bus.ready(peer, engine="other")
    bus.submit(job=JOB)
    return bus


def assigned() -> Bus:
    bus = Bus()
    bus.ready(HOLDER)
    bus.submit(job=JOB)
    bus.ready(OTHER, engine="other")
    return bus


def running() -> Bus:
    bus = assigned()
    bus.started(HOLDER, KEY)
    return bus


def done() -> Bus:
    bus = running()
    bus.chunk(HOLDER, KEY)
    bus.done(HOLDER, KEY)
    return bus


def failed() -> Bus:
    bus = running()
    bus.failed(HOLDER, KEY, "bad_request")
    return bus


def cancelled() -> Bus:
    bus = running()
    bus.cancel(JOB)
    return bus


def unknown() -> Bus:
    bus = Bus()
    for peer in (HOLDER, OTHER):
        bus.ready(peer, engine="other")
    return bus


PLACES = {place.__name__: place for place in (unknown, queued, assigned, running, done, failed, cancelled)}
STATES = {
    "unknown": "-", "queued": "QUEUED", "assigned": "ASSIGNED", "running": "RUNNING", "done": "-",
    "failed": "-", "cancelled": "-",
}  # fmt: skip

# What the client gets, and the job's state afterwards.
CLIENT_TABLE = {
    ("unknown", "SUBMIT"): ("ACCEPTED", "QUEUED"),
    ("unknown", "SUBMIT, another text"): ("ACCEPTED", "QUEUED"),
    ("unknown", "FETCH"): ("unknown_job", "-"),
    ("unknown", "CANCEL"): ("", "-"),
    ("queued", "SUBMIT"): ("ACCEPTED+ATTACHED", "QUEUED"),
    ("queued", "SUBMIT, another text"): ("conflict", "QUEUED"),
    ("queued", "FETCH"): ("ACCEPTED+ATTACHED", "QUEUED"),
    ("queued", "CANCEL"): ("cancelled", "-"),
    ("assigned", "SUBMIT"): ("ACCEPTED+ATTACHED", "ASSIGNED"),
    ("assigned", "SUBMIT, another text"): ("conflict", "ASSIGNED"),
    ("assigned", "FETCH"): ("ACCEPTED+ATTACHED", "ASSIGNED"),
    ("assigned", "CANCEL"): ("cancelled", "-"),
    ("running", "SUBMIT"): ("ACCEPTED+ATTACHED", "RUNNING"),
    ("running", "SUBMIT, another text"): ("conflict", "RUNNING"),
    ("running", "FETCH"): ("ACCEPTED+ATTACHED", "RUNNING"),
    ("running", "CANCEL"): ("cancelled", "-"),
    ("done", "SUBMIT"): ("ACCEPTED+ATTACHED+STORED", "-"),
    ("done", "SUBMIT, another text"): ("conflict", "-"),
    ("done", "FETCH"): ("STARTED CHUNK DONE", "-"),
    ("done", "CANCEL"): ("", "-"),
    ("failed", "SUBMIT"): ("bad_request", "-"),
    ("failed", "SUBMIT, another text"): ("conflict", "-"),
    ("failed", "FETCH"): ("bad_request", "-"),
    ("failed", "CANCEL"): ("", "-"),
    # A cancelled job is forgotten: its id may be used again. The worker still has to end the old attempt.
    ("cancelled", "SUBMIT"): ("ACCEPTED", "QUEUED"),
    ("cancelled", "SUBMIT, another text"): ("ACCEPTED", "QUEUED"),
    ("cancelled", "FETCH"): ("unknown_job", "-"),
    ("cancelled", "CANCEL"): ("", "-"),
}

# The same for messages of the worker that holds attempt 1, where there is one.
HOLDER_TABLE = {
    ("assigned", "STARTED"): ("STARTED", "RUNNING"),
    ("assigned", "CHUNK"): ("CHUNK", "ASSIGNED"),
    ("assigned", "DONE"): ("DONE", "-"),
    ("assigned", "FAILED, may be retried"): ("", "ASSIGNED"),
    ("assigned", "FAILED, final"): ("bad_request", "-"),
    ("assigned", "RETURN"): ("", "ASSIGNED"),
    ("running", "STARTED"): ("", "RUNNING"),
    ("running", "CHUNK"): ("CHUNK", "RUNNING"),
    ("running", "DONE"): ("DONE", "-"),
    ("running", "FAILED, may be retried"): ("", "ASSIGNED"),
    ("running", "FAILED, final"): ("bad_request", "-"),
    ("running", "RETURN"): ("", "ASSIGNED"),
}


def state_of(bus: Bus) -> str:
    job = bus.core.ledger.jobs.get(JOB)
    return "-" if job is None else JobState(job.state).name


def heard_since(bus: Bus, before: int) -> str:
    """Kinds sent to the client, a failure by its code, an ACCEPTED with its flags."""
    words: list[str] = []
    for message in bus.sent.to_client[b"c"][before:]:
        kind, flags = message[0][3], message[0][23]
        word = decode(message[1], Failed).code if kind == wire.FAILED else wire.KIND_NAMES[kind]
        if kind == wire.ACCEPTED:
            word += "+ATTACHED" * bool(flags & wire.ATTACHED) + "+STORED" * bool(flags & wire.STORED)
        words.append(word)
    return " ".join(words)


@pytest.mark.parametrize(("place", "message"), CLIENT_TABLE)
def test_what_a_client_says_of_a_job(place: str, message: str) -> None:
    bus = PLACES[place]()
    before = len(bus.sent.to_client[b"c"])
    FROM_CLIENT[message](bus)
    assert (heard_since(bus, before), state_of(bus)) == CLIENT_TABLE[place, message]


@pytest.mark.parametrize("message", FROM_WORKER)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("peer", [HOLDER, OTHER, STRANGER])
def test_what_a_worker_says_of_a_job(place: str, message: str, peer: bytes) -> None:
    """Only the holder of the newest attempt is believed; a stranger is asked to register."""
    bus = PLACES[place]()
    before, told = len(bus.sent.to_client[b"c"]), len(bus.sent.to_worker[peer])
    stale = bus.core.ledger.totals["stale"]
    FROM_WORKER[message](bus, peer)
    believed = peer == HOLDER and place in ("assigned", "running")
    expected = HOLDER_TABLE[place, message] if believed else ("", STATES[place])
    assert (heard_since(bus, before), state_of(bus)) == expected
    answers = [wire.KIND_NAMES[sent[0][3]] for sent in bus.sent.to_worker[peer][told:]]
    if peer == STRANGER:
        assert answers == ["REREGISTER"]
    elif not believed:
        # An attempt that was cancelled still stands until its worker has ended it: that is not stale.
        known = place == "cancelled" and peer == HOLDER
        assert bus.core.ledger.totals["stale"] == stale + (not known)
        assert answers == (["CANCEL"] if message in ("STARTED", "CHUNK") and not known else [])


def test_the_tables_have_a_row_for_every_state() -> None:
    assert set(JOB_MOVES) == set(JobState)
    assert set(WORKER_MOVES) == set(WorkerState)
    assert {place for place, _ in CLIENT_TABLE} == set(PLACES)
    assert len(CLIENT_TABLE) == len(PLACES) * len(FROM_CLIENT)


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("target", JobState)
def test_only_the_moves_of_the_table_are_made(state: JobState, target: JobState) -> None:
    from voicebus.broker.ledger import move

    bus = queued()
    job = bus.core.ledger.jobs[JOB]
    job.state = state
    if JOB_MOVES[state] & target:
        move(job, target)
        assert job.state == target
    else:
        with pytest.raises(IllegalMoveError):
            move(job, target)
        assert job.state == state


@pytest.mark.parametrize(
    ("message", "ready", "draining"),
    [
        ("READY", "READY", "DRAINING"),
        ("HEARTBEAT", "READY", "DRAINING"),
        ("DRAIN", "DRAINING", "DRAINING"),
        ("an operator's drain", "DRAINING", "DRAINING"),
        ("DRAINED", "gone", "gone"),
        ("GOODBYE", "gone", "gone"),
        ("silence", "gone", "gone"),
    ],
)
def test_what_a_worker_says_of_itself(message: str, ready: str, draining: str) -> None:
    for begin, wanted in ((False, ready), (True, draining)):
        bus = Bus()
        bus.ready(HOLDER)
        if begin:
            bus.core.worker_drains(HOLDER, bus.now)
        {
            "READY": lambda bus=bus: bus.ready(HOLDER),
            "HEARTBEAT": lambda bus=bus: bus.beat(HOLDER),
            "DRAIN": lambda bus=bus: bus.core.worker_drains(HOLDER, bus.now),
            "an operator's drain": lambda bus=bus: bus.core.drain_worker("w1"),
            "DRAINED": lambda bus=bus: bus.core.worker_leaves(HOLDER, "drained", bus.now),
            "GOODBYE": lambda bus=bus: bus.core.worker_leaves(HOLDER, "said goodbye", bus.now),
            "silence": lambda bus=bus: bus.pass_time(10.0),
        }[message]()
        bus.settle()
        worker = bus.core.members.by_peer.get(HOLDER)
        assert ("gone" if worker is None else WorkerState(worker.state).name) == wanted
