"""Submissions: a job taken in, refused, or known already; and questions after one by its id.

A job id is one job however often it is submitted. While it is open a further submission attaches: the answer
is owed to the connection that asked last, which hears all of it. Connections do not end in the order in which
they were made, and what an old one still delivers may come last; so when the connection a job is owed to is
gone, it goes back to the one before, if that is still here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..common import wire
from ..common.errors import BadRequest, Conflict, Overloaded, UnknownJob
from ..common.messages import Accepted, decode_submit, encode
from .admission import Admission
from .attempts import Attempts
from .durable import MAX_WATCHERS
from .ledger import Ledger
from .pools import RETRY_AFTER_S, Pools
from .results import Results
from .tables import JOB_OVERHEAD_BYTES, Client, Job, Payload

if TYPE_CHECKING:
    from ..common.config import Broker as Settings
    from .durable import Durables

REPLAYED_SHARE: Final = 4
"""One connection is sent at most this part of its budget again: a burst beyond that would cut it off anew."""

_STREAM: Final = wire.STREAM
_PLAIN: Final = wire.pack_envelope(wire.ACCEPTED)
_ACCEPTED, _NO_FIELDS = _PLAIN[:4], _PLAIN[20:]
PAGE_WAIT_S: Final = 0.1
PAGES_SHARE: Final = 4
"""A reader with pages of more than this part of its budget on their way to it is asked to wait."""


def stopping() -> Overloaded:
    """What a broker that drains says to new jobs, and of those it has not begun."""
    return Overloaded("this broker stops; try another, or again later", retry_after_s=RETRY_AFTER_S)


def not_kept() -> UnknownJob:
    """What is said of a job that is not, or not any more, known here."""
    return UnknownJob("no such job is known here: it never was, or its result is kept no longer")


class Intake:
    """`put_by(job)` does what a stopping broker does with a job; `unsent_bytes(peer)` asks the transport."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        admission: Admission,
        pools: Pools,
        attempts: Attempts,
        results: Results,
        durables: Durables,
        put_by: Callable[[Job], None],
        unsent_bytes: Callable[[bytes], int],
    ) -> None:
        self._settings = settings
        self._page_most = settings.max_unsent_bytes_per_client // PAGES_SHARE
        self._pages: dict[bytes, int] = {}
        "Bytes of pages appended for each client since the last burst."
        self._unsent_bytes = unsent_bytes
        self._replayed_most = settings.max_unsent_bytes_per_client // REPLAYED_SHARE
        self._ledger = ledger
        self._default_s = settings.default_deadline_s
        self._jobs = ledger.jobs
        self._finished = results.finished
        self._admission = admission
        self._pools = pools
        self._by_engine = pools.by_engine
        self._attempts = attempts
        self._results = results
        self._durables = durables
        self._put_by = put_by

    def submit(self, client: Client, envelope: bytes, header: bytes, payload: Payload, now: float) -> None:
        """Take a job in or attach to it. Raises `BusError` when it is refused."""
        job_id = envelope[4:20]
        known = self._jobs.get(job_id)
        if known is not None:
            self._attach(known, client, envelope[23] & wire.ANEW != 0, header, payload)
        elif job_id in self._finished:
            self._results.answer_again(job_id, client.peer, header, payload)
        elif not self._durables.submitted_again(job_id, client, header, payload):
            self.accept(client, job_id, envelope, header, payload, now)

    def accept(
        self, client: Client, job_id: bytes, envelope: bytes, header: bytes, payload: Payload, now: float
    ) -> None:
        """Take in a job whose id is new. Raises `BusError`."""
        submit, header = decode_submit(header)
        if job_id == wire.NO_JOB:
            raise BadRequest("a job needs an id of its own: 16 random bytes")
        if not len(payload):
            raise BadRequest("the text is empty: give at least one word to speak")
        if self._attempts.draining:
            raise stopping()
        size_bytes = len(header) + len(payload) + JOB_OVERHEAD_BYTES
        self._admission.check(client, size_bytes)
        engine = submit.engine or self._settings.default_engine
        pool = self._by_engine.get(engine)
        if pool is None or pool.info is None:
            pool = self._pools.choose(engine, now)
        budget_ms = int.from_bytes(envelope[28:32])
        if budget_ms or submit.durable:
            deadline = now + self._admission.budget_s(submit, budget_ms)
        else:
            deadline = now + self._default_s
        flags = envelope[23] & _STREAM
        job = Job(job_id, client, pool, flags, deadline, header, submit, payload, now, size_bytes)
        if submit.durable:
            self._durables.enter(job, now)
        else:
            self.enqueue(job, now)

    def enqueue(self, job: Job, now: float) -> None:
        """Promise a job to its client and let it wait for a worker."""
        pool, ledger = job.pool, self._ledger
        queue = pool.queue
        ahead, peer = queue.size, job.client.peer
        if peer:
            header = encode(Accepted(pool.engine, ahead)) if ahead else pool.promise
            ledger.to_clients.append((peer, _ACCEPTED + job.id + _NO_FIELDS, header))
        for peer in job.watchers:
            ledger.accepted(peer, job.id, pool.engine, wire.ATTACHED)
        ledger.open(job)
        ledger.totals["accepted"] += 1
        if not ahead and self._attempts.at_once(job, now):
            return
        queue.push(job)
        if not pool.dirty:
            self._pools.touch(pool)
        if self._attempts.draining:
            self._put_by(job)

    def _attach(self, job: Job, client: Client, anew: bool, header: bytes, payload: Payload) -> None:
        """The same id again: a client whose connection or answer was lost."""
        if header != job.header or bytes(payload) != bytes(job.payload):
            raise Conflict("this job id is in use for another text or voice")
        self._ledger.totals["attached"] += 1
        self._ledger.accepted(client.peer, job.id, job.pool.engine, wire.ATTACHED)
        if client is not job.client:
            if client.peer in job.watchers:
                # It hears of the end as the one to whom it is owed.
                job.watchers = tuple(peer for peer in job.watchers if peer != client.peer)
            job.earlier = job.client.peer
            if job.earlier and job.earlier not in job.watchers:
                # Should it be the one that lives after all, it hears of the end and can fetch.
                job.watchers = (*job.watchers, job.earlier)[-MAX_WATCHERS:]
            self._hand_over(job, client)
        elif anew:
            self._hand_over(job, client)

    def give_back(self, job: Job) -> bool:
        """The connection a job is owed to is gone: owe it to the one before; False if that has gone too."""
        client = self._ledger.clients.get(job.earlier)
        if client is None or client is job.client:
            return False
        job.earlier = b""
        job.watchers = tuple(peer for peer in job.watchers if peer != client.peer)
        self._hand_over(job, client)
        return True

    def _hand_over(self, job: Job, client: Client) -> None:
        self._ledger.give_to(job, client)
        size_bytes = job.record_bytes
        if client.replayed_bytes + size_bytes <= self._replayed_most and self._results.replay(job):
            client.replayed_bytes += size_bytes
        else:
            # What the old connection was sent is lost to this one: begin again, at no one's cost.
            self._results.restart(job)
            if job.worker is not None:
                self._attempts.abandon(job, "its client lost what it had", counted=False)
            elif job.durable:
                self._durables.retried(job)

    def fetch(self, peer: bytes, envelope: bytes) -> None:
        """Tell what became of a job, and send a page of its result. Raises `BusError`."""
        job_id, first = envelope[4:20], int.from_bytes(envelope[24:28])
        job = self._ledger.jobs.get(job_id)
        if job is not None:
            self._durables.watch(job, peer)
            return
        size_bytes = self._results.page_bytes(job_id) or self._durables.page_bytes(job_id)
        under_way = self._pages.get(peer, 0) + self._durables.reading_bytes.get(peer, 0)
        under_way += self._unsent_bytes(peer)
        if under_way and under_way + size_bytes > self._page_most:
            raise Overloaded("you have not taken what is on its way to you", retry_after_s=PAGE_WAIT_S)
        if self._results.page(job_id, peer, first):
            self._pages[peer] = self._pages.get(peer, 0) + size_bytes
        elif not self._durables.fetch(job_id, peer, first):
            # A broker that stops has put its durable jobs by: they are in the journal, and here again soon.
            raise stopping() if self._attempts.draining else not_kept()

    def sent(self) -> None:
        """What was appended is with the transport now, which counts it itself."""
        self._pages.clear()
