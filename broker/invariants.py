"""What must hold between the broker's tables after every message. Used by tests and the simulator.

Each line states one promise from the inside: a job is in exactly one place, a credit is never invented, and
nothing that ended is still referred to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .states import JobState, WorkerState
from .tables import NOTHING

if TYPE_CHECKING:
    from .core import BrokerCore
    from .tables import Pool, Worker


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def check_invariants(core: BrokerCore) -> None:
    """Raise AssertionError with the promise that is broken."""
    jobs, workers = core.ledger.jobs, core.members.by_peer
    queued = [job for pool in core.pools.by_engine.values() for job in pool.queue]
    _require(len(queued) == len(set(queued)), "no job waits twice")
    for job in queued:
        _require(jobs.get(job.id) is job, "a waiting job is in the ledger")
        _require((job.flow is None) != (job.aside is None), "a waiting job is in a lane or stands aside")
        _require(job.aside is None or job in job.aside, "a job that stands aside is where it says")
    for job_id, job in jobs.items():
        _require(job.id == job_id, "a job is filed under its id")
        if job.state == JobState.QUEUED:
            _require(job.worker is None, "a waiting job has no worker")
        else:
            _require(job.state in (JobState.ASSIGNED, JobState.RUNNING), "an ended job has left the ledger")
            _require(job.worker is not None, "a job given out knows its worker")
            _require(_holds(job.worker, job.id, job.attempt), "the worker's list has the newest attempt")
            _require(
                workers.get(job.worker.peer if job.worker else b"") is job.worker, "that worker is registered"
            )
    states = [job.state for job in jobs.values()]
    _require(states.count(JobState.QUEUED) == len(queued), "every QUEUED job waits in a queue")
    _require(len(core.ledger.deadlines) == len(jobs), "every open job has one deadline")
    totals = core.ledger.totals
    ended = totals["done"] + totals["failed"] + totals["cancelled"] + totals["put_by"]
    _require(totals["accepted"] + totals["recovered"] == ended + len(jobs), "accepted = answered + open")
    budget = core.attempts.budget
    _require(all(jobs.get(job.id) is job for job in budget.active), "only open jobs are tried again")
    _require(all(job.aside is budget.waiting for job in budget.waiting), "a retry waits in one place")
    _require(core.attempts.begun() == len(jobs) - len(queued), "begun are those that do not wait")
    _check_accounts(core)
    _check_kept(core)
    for pool in core.pools.by_engine.values():
        here = [worker for worker in workers.values() if worker.pool is pool]
        _require(pool.workers == len(here), "a pool's count is that of its workers")
        taking = sum(worker.slots for worker in here if worker.state == WorkerState.READY)
        _require(pool.selector.slots == taking, "a pool's slots are those of its ready workers")
        _require(pool.queue.size == sum(1 for _ in pool.queue), "a queue's length counts its jobs")
        _require(
            pool.queue.ready == sum(job.aside is None for job in pool.queue),
            "those that stand aside are not ready",
        )
        free = sum(max(0, w.slots - len(w.inflight)) for w in here if w.state == WorkerState.READY)
        _require(pool.selector.free == free, "a pool's idle slots are those of its ready workers")
        _check_places(pool)
    for peer, worker in workers.items():
        _check_worker(worker, core)
        _require(
            worker.peer == peer and core.members.by_id[worker.info.worker] is worker, "one entry a worker"
        )
    _require(len(workers) == len(core.members.by_id), "one connection a worker id")


def _check_places(pool: Pool) -> None:
    for job in (*pool.ahead, *pool.recalls):
        _require(job.ahead and job.state == JobState.ASSIGNED, "only what has not begun can be asked back")
    for voice, job in pool.affinity.learning.items():
        _require(job.submit.voice == voice and job.worker is not None, "a voice is learnt by an attempt")
    for voice, place in pool.affinity.held.items():
        for job in place:
            _require(job.aside is place and job.submit.voice == voice, "a held job waits for its voice")
    for voice, workers in pool.affinity.warm.items():
        for worker in workers:
            _require(worker.state == WorkerState.READY, "only who takes jobs counts as warm")
            _require(voice in worker.warm_voices, "a warm worker says so itself")


def _check_accounts(core: BrokerCore) -> None:
    owed: dict[int, int] = {}
    size_bytes = 0
    for job in (*core.ledger.jobs.values(), *core.durables.pending.values()):
        owed[id(job.client)] = owed.get(id(job.client), 0) + 1
        size_bytes += job.size_bytes
    for client in (core.clientele.nobody, *core.ledger.clients.values()):
        _require(len(client.jobs) == owed.pop(id(client), 0), "a client's count is that of its open jobs")
    _require(not owed, "every open job is owed to a client that is here, or to nobody")
    _require(core.ledger.size_bytes == size_bytes, "the bytes on account are those of the open jobs")


def _check_kept(core: BrokerCore) -> None:
    jobs, results, durables = core.ledger.jobs, core.results, core.durables
    tables = [jobs, results.finished, durables.pending, durables.ending, durables.ended, durables.fetched]
    ids = [job_id for table in tables for job_id in table]
    _require(len(ids) == len(set(ids)), "a job id is at one station only")
    _require([*results.finished] == [*results.order], "results go in the order in which they came")
    _require(not NOTHING, "the empty record that jobs begin with stays empty")
    recorded = sum(job.record_bytes for job in jobs.values())
    kept = sum(finished.size_bytes for finished in results.finished.values())
    _require(results.size_bytes == recorded + kept, "the bytes of records and results are counted")
    for job in jobs.values():
        _require(job.chunks_whole <= job.chunks, "what is whole is part of what there is")
        _require(job.record is not None or not job.record_bytes, "a record given up takes no room")
    stored = [*durables.ended.values(), *durables.fetched.values(), *durables.ending.values()]
    _require(durables.audio_bytes == sum(job.audio_bytes for job in stored), "stored audio is counted")


def _holds(worker: Worker | None, job_id: bytes, attempt: int) -> bool:
    return worker is not None and worker.inflight.get(job_id + attempt.to_bytes(2)) is not None


def _check_worker(worker: Worker, core: BrokerCore) -> None:
    _require(len(worker.inflight) <= worker.most_slots + 1, "a worker holds at most slots + 1 attempts")
    for key, job in worker.inflight.items():
        if job is not None:
            _require(key == job.id + job.attempt.to_bytes(2), "an open attempt is its job's newest")
            _require(
                job.worker is worker and core.ledger.jobs.get(job.id) is job, "it belongs to that worker"
            )
    in_tier = worker.tier is not None
    has_room = worker.state == WorkerState.READY and len(worker.inflight) <= worker.slots
    _require(in_tier == has_room, "a worker can be picked when, and only when, it has room")
