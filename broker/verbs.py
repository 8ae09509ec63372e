"""What each kind of message does: the tables that the loop calls by, made for what a guest may do.

A client's are called with (routing id, envelope, header, payload, now), a worker's with (routing id,
envelope, what is behind it, now): None, one frame, or SPOKEN's two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..common import wire
from ..common.errors import Forbidden
from ..common.messages import decode_submit
from . import admin
from .durable import lookup
from .intake import not_kept
from .roles import Rights

if TYPE_CHECKING:
    from .core import BrokerCore

ClientHandlers = dict[int, Callable[[bytes, bytes, Any, Any, float], object]]
WorkerHandlers = dict[int, Callable[[bytes, bytes, Any, float], object]]


def client_verbs(core: BrokerCore, rights: Rights) -> ClientHandlers:
    """What whoever comes in by the clients' door may say."""
    verbs: ClientHandlers = {
        wire.SUBMIT: core.submit,
        wire.PING: lambda peer, env, _h, _p, now: core.ping(peer, env, now),
        wire.CANCEL: lambda peer, env, _h, _p, now: core.cancel(peer, env[4:20], now),
        wire.FETCH: lambda peer, env, _h, _p, now: core.fetch(peer, env, now),
        wire.ADMIN: lambda peer, env, header, _p, now: admin.answer(core, peer, env, header, now, rights),
    }
    if rights.tenant is not None:
        verbs[wire.SUBMIT] = partial(_submit_as_tenant, core, rights)
        for kind in (wire.CANCEL, wire.FETCH):
            verbs[kind] = partial(_ask_as_tenant, core, rights, verbs[kind])
    return verbs


def _submit_as_tenant(
    core: BrokerCore, rights: Rights, peer: bytes, envelope: bytes, header: bytes, payload: Any, now: float
) -> None:
    try:
        rights.check_submit(decode_submit(header)[0])
    except Forbidden as error:
        core.refuse(peer, envelope, error, now)
    else:
        core.submit(peer, envelope, header, payload, now)


def _ask_as_tenant(
    core: BrokerCore,
    rights: Rights,
    verb: Callable[[bytes, bytes, Any, Any, float], object],
    peer: bytes,
    envelope: bytes,
    header: Any,
    payload: Any,
    now: float,
) -> None:
    """Another tenant's job is none: who guesses its id, or has found it, learns not even that it is one."""
    tenant = _tenant_of(core, envelope[4:20])
    if tenant is None or rights.sees(tenant):
        verb(peer, envelope, header, payload, now)
    elif envelope[3] == wire.FETCH:
        core.refuse(peer, envelope, not_kept(), now)


def _tenant_of(core: BrokerCore, job_id: bytes) -> str | None:
    """Whose job this is, or was; None if nothing of it is known here."""
    durables = core.durables
    job = core.ledger.jobs.get(job_id) or durables.pending.get(job_id) or durables.ending.get(job_id)
    if job is not None:
        return job.submit.tenant
    ended = core.results.finished.get(job_id) or lookup(durables, job_id)
    return None if ended is None else ended.tenant


def worker_verbs(core: BrokerCore, rights: Rights) -> WorkerHandlers:
    """What a worker may say."""
    return {
        wire.CHUNK: core.chunk,
        wire.DONE: core.done,
        wire.STARTED: core.started,
        wire.SPOKEN: core.spoken,
        wire.HEARTBEAT: lambda peer, _e, header, now: core.heartbeat(peer, header, now),
        wire.FAILED: core.failed,
        wire.RETURN: lambda peer, env, _, now: core.returned(peer, env, now),
        wire.READY: lambda peer, _e, header, now: core.ready(peer, header, now, rights.holder),
        wire.DRAIN: lambda peer, _e, _h, now: core.worker_drains(peer, now),
        wire.DRAINED: lambda peer, _e, _h, now: core.worker_leaves(peer, "drained", now),
        wire.GOODBYE: lambda peer, _e, _h, now: core.worker_leaves(peer, "said goodbye", now),
    }
