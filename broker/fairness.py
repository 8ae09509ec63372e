"""Deficit round robin: tenants share a lane by the characters spoken, not by how many jobs they queue.

Each tenant with waiting jobs is a flow in a ring. A flow whose turn comes earns `QUANTUM` characters of
credit and is served while its credit covers its first job; then the next flow has its turn. So ten thousand
jobs of one tenant delay another's first job by one turn, and a tenant of long texts gets no more than one of
short ones. Jobs that name no tenant belong to the connection they came over.

M. Shreedhar and G. Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", IEEE/ACM Transactions on
Networking 4(3), 1996.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .tables import Job

QUANTUM: Final = 400
"""Characters a turn is worth: the usual limit of one job, so that nearly every turn serves one."""
MOST_TURNS: Final = 10
"""No job costs more than so many turns: the ring is walked at most that often to find who can pay."""


_MOST_COST: Final = MOST_TURNS * QUANTUM


def cost_of(job: Job) -> int:
    """What a job costs its tenant, in characters. The text's own size bounds what a client may claim.

    A character takes at most four bytes of UTF-8, so nobody pays for less than a quarter of his bytes.
    """
    cost, least = job.submit.characters, len(job.payload) // 4
    if cost < least:
        cost = least
    if cost > _MOST_COST:
        return _MOST_COST
    return cost or 1


KEPT_FLOWS: Final = 1000
"""Flows without jobs are kept up to this many: making one anew for each job would cost more than the job."""


class Flow:
    """The waiting jobs of one tenant in one lane."""

    __slots__ = ("credit", "jobs", "name")

    def __init__(self, name: str | bytes) -> None:
        self.name = name
        self.jobs: OrderedDict[Job, None] = OrderedDict()
        self.credit = 0


class FairQueue:
    """One lane. Every job in it knows its flow; all operations are O(1) in the number of jobs."""

    __slots__ = ("_flows", "_ring", "size")

    def __init__(self) -> None:
        self._flows: dict[str | bytes, Flow] = {}
        self._ring: deque[Flow] = deque()
        self.size = 0
        "How many jobs wait."

    def push(self, job: Job) -> None:
        """Append a job to its tenant's flow; a new flow has its turn last."""
        name = job.submit.tenant or job.client.peer
        flow = self._flows.get(name)
        if flow is None:
            flow = self._flows[name] = Flow(name)
        job.flow = flow
        job.cost = cost_of(job)
        if not flow.jobs:
            self._ring.append(flow)
        flow.jobs[job] = None
        self.size += 1

    def push_front(self, job: Job) -> None:
        """Put a job back that was taken before: first of its flow, which gets back what it paid."""
        self.push(job)
        flow = job.flow
        if flow is not None:
            if len(flow.jobs) == 1:
                self._ring.rotate(1)
            flow.jobs.move_to_end(job, last=False)
            flow.credit = min(flow.credit + job.cost, _MOST_COST)

    def peek(self) -> Job:
        """The job whose turn it is; only called when `size` is not 0. Asking changes no one's turn."""
        ring = self._ring
        flow = ring[0]
        if len(ring) == 1:
            return next(iter(flow.jobs))
        while True:
            job = next(iter(flow.jobs))
            if flow.credit >= job.cost:
                return job
            flow.credit += QUANTUM
            if flow.credit >= job.cost:
                return job
            ring.rotate(-1)
            flow = ring[0]

    def take(self, job: Job) -> None:
        """Take the job that `peek` named; its flow pays, and goes to the end when it can pay no more."""
        flow = job.flow
        self.discard(job)
        if flow is None or not flow.jobs:
            return
        credit = flow.credit - job.cost
        flow.credit = credit if credit > 0 else 0
        if len(self._ring) > 1 and flow.credit < next(iter(flow.jobs)).cost:
            self._ring.rotate(-1)

    def discard(self, job: Job) -> None:
        """Remove a job that has ended while it waited. Nobody pays."""
        flow = job.flow
        if flow is None:
            return
        job.flow = None
        del flow.jobs[job]
        self.size -= 1
        if not flow.jobs:
            # Credit is not saved up: whoever had nothing to say has no claim on what was said meanwhile.
            flow.credit = 0
            if self._ring[0] is flow:
                self._ring.popleft()
            else:
                self._ring.remove(flow)
            if len(self._flows) > KEPT_FLOWS:
                del self._flows[flow.name]

    def __iter__(self) -> Iterator[Job]:
        for flow in self._ring:
            yield from flow.jobs
