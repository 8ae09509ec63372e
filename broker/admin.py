"""What can be asked of a broker over the wire: its status, its jobs, to cancel one, to drain a worker.

Answers are MessagePack maps with stable keys; a long list comes in pages, so that no answer exceeds the
payload limit however many workers there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from ..common import wire
from ..common.errors import BadRequest, BusError, UnknownJob
from ..common.messages import Admin, AdminReply, decode, encode
from .durable import Kept, lookup
from .intake import stopping
from .roles import EVERYTHING, Rights
from .states import JobState, WorkerState
from .tables import Job, Pool

if TYPE_CHECKING:
    from .core import BrokerCore
    from .tables import Worker

T = TypeVar("T")

PAGE: Final = 200
PAGE_BYTES: Final = wire.MAX_PAYLOAD_BYTES // 2
"""What a page's entries may take: workers have as much to say of themselves as fits a header."""
_pack = msgspec.msgpack.Encoder().encode


def answer(
    core: BrokerCore, peer: bytes, envelope: bytes, header: bytes, now: float, rights: Rights = EVERYTHING
) -> None:
    """Append the answer to an ADMIN message. Raises `ProtocolError` for a bad header."""
    request = decode(header, Admin)
    core.ledger.client(peer, now)
    try:
        rights.check_command(request.command)
        next_offset, document = _run(core, peer, request, rights, now)
        reply = AdminReply(ok=True, next_offset=next_offset)
    except BusError as error:
        document = {}
        reply = AdminReply(ok=False, code=error.code, message=error.message)
    core.to_clients.append((peer, envelope, encode(reply), _pack(document)))


def _run(
    core: BrokerCore, peer: bytes, request: Admin, rights: Rights, now: float
) -> tuple[int, dict[str, Any]]:
    if request.command == "status":
        return status(core, request.offset, now)
    if request.command == "drain":
        core.drain_worker(request.target)
        return 0, {"worker": request.target}
    if request.command == "jobs":
        return jobs(core, request.target, request.offset, rights, now)
    if request.command == "job":
        return 0, _job(core, _job_id(request.target), rights, now)
    if request.command == "cancel":
        if rights.tenant is not None:
            _job(core, _job_id(request.target), rights, now)
        if not core.cancel(peer, _job_id(request.target), now):
            raise _unknown(core, "no such job is open here: it never was, or it has ended")
        return 0, {"id": request.target}
    raise BadRequest(f"no admin command `{request.command}`: there are status, drain, jobs, job and cancel")


def _job_id(target: str) -> bytes:
    try:
        job_id = bytes.fromhex(target)
    except ValueError:
        job_id = b""
    if len(job_id) != wire.JOB_ID_BYTES:
        raise BadRequest("a job's id has 32 hexadecimal digits")
    return job_id


def jobs(core: BrokerCore, state: str, offset: int, rights: Rights, now: float) -> tuple[int, dict[str, Any]]:
    """One page of the jobs that are open, and then of the durable ones that have ended."""
    durables = core.durables
    everything: Iterator[Job | Kept] = chain(
        core.ledger.jobs.values(),
        durables.pending.values(),
        durables.ending.values(),
        durables.ended.values(),
        durables.fetched.values(),
    )
    wanted = (job for job in everything if (not state or _state(job) == state) and rights.sees(_tenant(job)))
    told = (
        _open(job, now) if isinstance(job, Job) else _kept(job, now) for job in islice(wanted, offset, None)
    )
    page, more = _page(told)
    return (offset + len(page) if more else 0), {"jobs": page}


def _page(entries: Iterator[T]) -> tuple[list[T], bool]:
    """As many entries as one answer takes, at least one, and whether there are more."""
    page: list[T] = []
    size_bytes = 0
    for entry in entries:
        size_bytes += len(_pack(entry))
        if page and (len(page) >= PAGE or size_bytes > PAGE_BYTES):
            return page, True
        page.append(entry)
    return page, False


def _job(core: BrokerCore, job_id: bytes, rights: Rights, now: float) -> dict[str, Any]:
    job = (
        core.ledger.jobs.get(job_id) or core.durables.ending.get(job_id) or core.durables.pending.get(job_id)
    )
    if job is not None and rights.sees(_tenant(job)):
        return _open(job, now)
    kept = lookup(core.durables, job_id)
    if kept is None or not rights.sees(kept.tenant):
        raise _unknown(core, "no such job is known here: it never was, or its result has expired")
    return _kept(kept, now)


def _unknown(core: BrokerCore, message: str) -> BusError:
    """A broker that stops has put its durable jobs by: they are in the journal, and known again soon."""
    return stopping() if core.draining else UnknownJob(message)


def _tenant(job: Job | Kept) -> str:
    return job.tenant if isinstance(job, Kept) else job.submit.tenant


def _state(job: Job | Kept) -> str:
    if isinstance(job, Kept):
        return job.state
    if job.state == JobState.QUEUED:
        return "queued"
    return (
        "running" if job.state in (JobState.ASSIGNED, JobState.RUNNING) else JobState(job.state).name.lower()
    )


def _open(job: Job, now: float) -> dict[str, Any]:
    return {
        "id": job.id.hex(),
        "state": _state(job),
        "durable": job.durable,
        "engine": job.pool.engine,
        "voice": job.submit.voice,
        "tenant": job.submit.tenant,
        "lane": job.submit.lane,
        "characters": job.submit.characters,
        "attempts": job.attempt,
        "age_s": round(now - job.entered_at, 3),
        "bytes": job.audio_bytes,
        "code": "",
        "message": "",
    }


def _kept(job: Kept, now: float) -> dict[str, Any]:
    failure = job.failure
    return {
        "id": job.id.hex(),
        "state": job.state,
        "durable": True,
        "engine": job.engine,
        "voice": job.voice,
        "tenant": job.tenant,
        "lane": job.lane,
        "characters": job.characters,
        "attempts": job.attempts,
        "age_s": round(now - job.since, 3),
        "bytes": job.audio_bytes,
        "code": failure.code if failure else "",
        "message": failure.message if failure else "",
    }


def status(core: BrokerCore, offset: int, now: float) -> tuple[int, dict[str, Any]]:
    """One page of the status document, and the offset of the next (0: this was the last)."""
    workers = sorted(core.members.by_id.values(), key=lambda worker: worker.info.worker)
    engines = [pool for pool in core.pools.by_engine.values() if pool.info is not None]
    # The engines stand before the workers, and are counted with them.
    told = (
        (thing.engine, _engine(thing)) if isinstance(thing, Pool) else ("", _worker(thing, now))
        for thing in islice(chain(engines, workers), offset, None)
    )
    page, more = _page(told)
    running = sum(job.state == JobState.RUNNING for job in core.ledger.jobs.values())
    document: dict[str, Any] = {
        "broker": core.settings.name,
        "uptime_s": round(now - core.started_at, 3),
        "draining": core.draining,
        "durable": core.settings.journal is not None,
        "strategy": core.settings.strategy,
        "default_engine": core.settings.default_engine,
        "jobs": {
            "queued": sum(pool.queue.size for pool in core.pools.by_engine.values()),
            "running": running,
            "open": len(core.ledger.jobs),
        },
        "totals": dict(core.ledger.totals),
        "failures": dict(core.ledger.failures),
        "clients": len(core.ledger.clients),
        "engines": {engine: entry for engine, entry in page if engine},
        "workers_total": len(workers),
        "workers": [entry for engine, entry in page if not engine],
    }
    return (offset + len(page) if more else 0), document


def _engine(pool: Pool) -> dict[str, Any]:
    info = pool.info
    return {
        "queued": pool.queue.size,
        "aside": pool.queue.size - pool.queue.ready,
        "workers": pool.workers,
        "slots": pool.selector.slots,
        "sample_rate": info.sample_rate if info else 0,
        "languages": info.languages if info else [],
        "max_chars": info.max_chars if info else 0,
        "version": info.version if info else "",
    }


def _worker(worker: Worker, now: float) -> dict[str, Any]:
    return {
        "id": worker.info.worker,
        "engine": worker.info.engine,
        "version": worker.info.version,
        "state": WorkerState(worker.state).name.lower(),
        "slots": worker.slots,
        "open": len(worker.inflight),
        "jobs_done": worker.jobs_done,
        "warm_voices": worker.warm_voices[:16],
        "up_s": round(now - worker.since, 3),
        "silent_s": round(now - worker.seen_at, 3),
        "stats": worker.stats,
    }
