"""What a worker holds: attempts at jobs, and the slots whose engines work on them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from math import inf
from typing import Any, Final

from .states import JOB_MOVES, SLOT_MOVES, JobState, Referee, SlotState


class Reason(Enum):
    """Why an attempt was told to stop."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"


class Job:
    """One attempt at a job: its message, its place and its clock."""

    __slots__ = (
        "_referee",
        "deadline",
        "first_segment",
        "flags",
        "header",
        "key",
        "kill_at",
        "link",
        "patient_until",
        "progressed",
        "reason",
        "slot",
        "state",
        "text",
    )

    def __init__(
        self,
        key: bytes,
        link: int,
        *,
        flags: int,
        first_segment: int,
        deadline: float,
        header: Any,
        text: Any,
        referee: Referee,
    ) -> None:
        self.key = key
        "Job id and attempt as they stand in the envelope: 18 bytes."
        self.link = link
        self.flags = flags
        self.first_segment = first_segment
        self.deadline = deadline
        self.header = header
        self.text = text
        self.state = JobState.QUEUED
        self.slot: int | None = None
        self.reason: Reason | None = None
        self.kill_at = inf
        "When its engine's process is ended, unless the job has stopped by then as it was told to."
        self.progressed = False
        self.patient_until = 0.0
        "Until then its silence is no sign of trouble: it learns a voice."
        self._referee = referee

    @property
    def job(self) -> bytes:
        """The job id."""
        return self.key[:16]

    @property
    def attempt(self) -> int:
        """The attempt's number."""
        return int.from_bytes(self.key[16:18], "big")

    @property
    def is_lone(self) -> bool:
        """Whether it has been tried before: it may be what brought its engine down, and gets no company."""
        return self.attempt > 1

    @property
    def name(self) -> str:
        """How log lines name it."""
        return f"job={self.job.hex()} attempt={self.attempt}"

    @property
    def may_expire(self) -> bool:
        """Whether its deadline still matters: nobody has told it to stop."""
        return self.reason is None and self.state is not JobState.ABANDONED

    def move(self, state: JobState) -> None:
        """Take a state."""
        self.state = self._referee.judge(JOB_MOVES, self.state, state)


class Slot:
    """The place of one engine process, and the jobs that are with it."""

    __slots__ = (
        "_referee",
        "capacity",
        "failures",
        "figures",
        "idle_since",
        "index",
        "jobs",
        "kill_at",
        "killed",
        "restart_at",
        "state",
        "wakes",
        "warm_voices",
    )

    def __init__(self, index: int, referee: Referee) -> None:
        self.index = index
        self.state = SlotState.DOWN
        self.jobs: dict[bytes, Job] = {}
        "By `Job.key`."
        self.capacity = 1
        "How many jobs its engine speaks together."
        self.failures = 0
        "Deaths in a row without a job ended between."
        self.restart_at = inf
        self.kill_at = inf
        self.killed = False
        self.warm_voices: tuple[str, ...] = ()
        self.figures: Mapping[str, int | float] = {}
        "What its engine counts, as it last said."
        self.idle_since = 0.0
        self.wakes = False
        "It is being loaded because jobs wait that it was not kept loaded for."
        self._referee = referee

    @property
    def room(self) -> int:
        """How many more jobs its engine takes now."""
        if self.state not in LOADED_STATES or self.killed:
            return 0
        if any(job.is_lone for job in self.jobs.values()):
            return 0
        return self.capacity - len(self.jobs)

    def takes(self, job: Job) -> bool:
        """Whether a job may go to it now."""
        return self.room > 0 and not (job.is_lone and self.jobs)

    def move(self, state: SlotState) -> None:
        """Take a state."""
        self.state = self._referee.judge(SLOT_MOVES, self.state, state)

    def next_deadline(self) -> float:
        """When this slot wants to be looked at."""
        return min(self.restart_at, self.kill_at)


LOADED_STATES: Final = frozenset({SlotState.IDLE, SlotState.BUSY})
"""The states in which an engine can take jobs, now or after those it has."""
USABLE_STATES: Final = LOADED_STATES | {SlotState.RESTING, SlotState.ASLEEP}
"""And those that a job's arrival leads back to it."""
