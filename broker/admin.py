"""What an operator can ask of a broker over the wire: its status, and to drain a worker.

Answers are MessagePack maps with stable keys; a long list comes in pages, so that no answer exceeds the
payload limit however many workers there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..common.errors import BadRequest, BusError
from ..common.messages import Admin, AdminReply, decode, encode
from .states import JobState, WorkerState

if TYPE_CHECKING:
    from .core import BrokerCore
    from .tables import Worker

PAGE: Final = 200
_pack = msgspec.msgpack.Encoder().encode


def answer(core: BrokerCore, peer: bytes, envelope: bytes, header: bytes, now: float) -> None:
    """Append the answer to an ADMIN message. Raises `ProtocolError` for a bad header."""
    request = decode(header, Admin)
    core.ledger.client(peer, now)
    try:
        next_offset, document = _run(core, request, now)
        reply = AdminReply(ok=True, next_offset=next_offset)
    except BusError as error:
        document = {}
        reply = AdminReply(ok=False, code=error.code, message=error.message)
    core.to_clients.append((peer, envelope, encode(reply), _pack(document)))


def _run(core: BrokerCore, request: Admin, now: float) -> tuple[int, dict[str, Any]]:
    if request.command == "status":
        return status(core, request.offset, now)
    if request.command == "drain":
        core.drain_worker(request.target)
        return 0, {"worker": request.target}
    raise BadRequest(f"no admin command `{request.command}`: there are status and drain")


def status(core: BrokerCore, offset: int, now: float) -> tuple[int, dict[str, Any]]:
    """One page of the status document, and the offset of the next (0: this was the last)."""
    workers = sorted(core.members.by_id.values(), key=lambda worker: worker.info.worker)
    page = workers[offset : offset + PAGE]
    running = sum(job.state == JobState.RUNNING for job in core.ledger.jobs.values())
    document: dict[str, Any] = {
        "broker": core.settings.name,
        "uptime_s": round(now - core.started_at, 3),
        "draining": core.draining,
        "strategy": core.settings.strategy,
        "default_engine": core.settings.default_engine,
        "jobs": {
            "queued": sum(len(pool.queue) for pool in core.pools.by_engine.values()),
            "running": running,
            "open": len(core.ledger.jobs),
        },
        "totals": dict(core.ledger.totals),
        "failures": dict(core.ledger.failures),
        "clients": len(core.ledger.clients),
        "engines": {
            name: {
                "queued": len(pool.queue),
                "workers": pool.workers,
                "slots": pool.selector.slots,
                "sample_rate": pool.info.sample_rate,
                "languages": pool.info.languages,
                "max_chars": pool.info.max_chars,
                "version": pool.info.version,
            }
            for name, pool in core.pools.by_engine.items()
            if pool.info is not None
        },
        "workers_total": len(workers),
        "workers": [_worker(worker, now) for worker in page],
    }
    end = offset + len(page)
    return (end if end < len(workers) else 0), document


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
