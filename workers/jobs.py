"""What a worker holds: attempts at jobs, and the slots whose engines work on them."""

from __future__ import annotations

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
    """The place of one engine process; at most one job at a time is with it."""

    __slots__ = (
        "_referee",
        "failures",
        "index",
        "job",
        "kill_at",
        "killed",
        "restart_at",
        "state",
        "warm_voices",
    )

    def __init__(self, index: int, referee: Referee) -> None:
        self.index = index
        self.state = SlotState.DOWN
        self.job: Job | None = None
        self.failures = 0
        "Deaths in a row without a job ended between."
        self.restart_at = inf
        self.kill_at = inf
        self.killed = False
        self.warm_voices: tuple[str, ...] = ()
        self._referee = referee

    def move(self, state: SlotState) -> None:
        """Take a state."""
        self.state = self._referee.judge(SLOT_MOVES, self.state, state)

    def next_deadline(self) -> float:
        """When this slot wants to be looked at."""
        return min(self.restart_at, self.kill_at)


LOADED_STATES: Final = frozenset({SlotState.IDLE, SlotState.BUSY})
"""The states in which an engine can take jobs, now or after the one it has."""
