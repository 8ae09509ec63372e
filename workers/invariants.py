"""What must hold of a worker's core after every step. For tests: it walks everything."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .jobs import LOADED_STATES, USABLE_STATES
from .states import JobState, LinkState, SlotState

if TYPE_CHECKING:
    from .core import WorkerCore

_AT_ENGINE = frozenset({JobState.ASSIGNED, JobState.SPEAKING, JobState.CANCELLING, JobState.ABANDONED})


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def check_invariants(core: WorkerCore) -> None:
    """Raise `AssertionError` unless the tables of jobs, slots and links agree with each other."""
    _check_jobs(core)
    _check_slots(core)
    _check_links(core)
    if core.exited:
        _require(core.crew.all_gone, "exited with a process left")
        _require(core.links.all_left, "exited without leaving a broker")
        _require(core.next_deadline() == inf, "exited and still waiting")
    _require(core.referee.illegal == 0, "an illegal move was made")


def _check_jobs(core: WorkerCore) -> None:
    _require(len(core.desk.queue) == len(set(map(id, core.desk.queue))), "a job waits twice")
    waiting = {job.key for job in core.desk.queue}
    for key, job in core.desk.jobs.items():
        _require(key == job.key, "a job is filed under another key")
        _require((job.state is JobState.QUEUED) == (key in waiting), f"{job.state} in the wrong place")
        _require(
            (job.state in _AT_ENGINE) == (job.slot is not None), "a job at no engine, or a waiting one at one"
        )
        if job.slot is not None:
            _require(core.crew[job.slot].jobs.get(key) is job, "an engine does not know its job")
        state = core.links[job.link].state
        if state in (LinkState.LOST, LinkState.LEFT, LinkState.IDLE):
            _require(job.state is JobState.ABANDONED, f"{job.state} for a broker that is {state}")
        if state is LinkState.DRAINING:
            _require(job.state is not JobState.QUEUED, "a job waits at a broker that was drained")
        _require(
            job.reason is None or job.state in (JobState.CANCELLING, JobState.ABANDONED),
            "told to stop, and goes on",
        )
    _require(waiting <= set(core.desk.jobs), "an ended job waits")


def _check_slots(core: WorkerCore) -> None:
    for slot in core.crew:
        for key, job in slot.jobs.items():
            _require(core.desk.jobs.get(key) is job, "an engine works on a job that has ended")
            _require(not job.is_lone or len(slot.jobs) == 1, "a job that was tried before has company")
        _require(len(slot.jobs) <= slot.capacity, "more jobs than an engine takes")
        if slot.state in LOADED_STATES:
            _require(
                (slot.state is SlotState.BUSY) == bool(slot.jobs), "busy with nothing, or idle with a job"
            )
        _require(
            not slot.jobs or slot.state not in (SlotState.RESTING, SlotState.ASLEEP), "asleep over a job"
        )
        _require((slot.state is SlotState.DOWN) == (slot.restart_at < inf), "a dead process without a future")
    ready = [job for job in core.desk.queue if core.links[job.link].state is LinkState.REGISTERED]
    if ready and not core.leaving:
        _require(core.crew.place_for(ready[0]) is None, "an engine has room while a job waits")
        awake = any(slot.state is not SlotState.ASLEEP for slot in core.crew)
        _require(awake, "all engines sleep while a job waits")


def _check_links(core: WorkerCore) -> None:
    deadline = core.next_deadline()
    for link in core.links:
        held = sum(job.link == link.index for job in core.desk.jobs.values())
        abandoned = sum(
            job.link == link.index and job.state is JobState.ABANDONED for job in core.desk.jobs.values()
        )
        _require(held - abandoned <= link.most_slots + 1, "more jobs than credits")
        _require(core.exited or deadline <= link.next_deadline(), "a link would be looked at too late")
        if link.is_open and link.state is not LinkState.DRAINING:
            _require(core.crew.facts is not None, "registered before an engine was loaded")
        if core.leaving:
            _require(link.state in (LinkState.DRAINING, LinkState.LEFT), "leaving, and yet here")
        if link.state is LinkState.IDLE:
            _require(
                not any(slot.state in USABLE_STATES for slot in core.crew), "an engine is offered to nobody"
            )
