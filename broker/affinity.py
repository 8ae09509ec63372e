"""Which worker knows a voice: learning one costs an engine seconds, so a job is worth a short wait for it.

A job goes to a worker with an idle slot that has its voice in memory, if there is one. If those that have it
are busy, the job stands aside while their estimated wait is shorter than learning the voice elsewhere; and
while some worker is learning it, all other jobs in that voice wait for that: a hundred lines in a new voice
must not make every worker learn it at once. Both waits are bounded from the moment a job first stood aside;
after that any worker will do. What learning costs is measured, engine by engine: the first audio of attempts
whose worker knew the voice against that of those whose worker did not.

All of it is O(1) a pick: a handful of the workers that know a voice are looked at, never all. Sans-IO.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final

from .states import WorkerState

if TYPE_CHECKING:
    from .lanes import Lanes
    from .scheduling import Selector
    from .tables import Job, Worker

LOOK_AT: Final = 8
"""Workers that know a voice are looked at up to this many, the longest unused first."""
NEGLIGIBLE_S: Final = 0.05
"""Learning that costs less than this is not worth waiting for."""
LEARNING_WAITS: Final = 5
"""A first learning, whose cost nobody knows yet, is waited for this many times `affinity_wait_s`."""
MOST_VOICES: Final = 100
"""Of one worker, as in its heartbeats."""
SMOOTHING: Final = 0.2


class Average:
    """An exponentially smoothed mean of seconds; None until there is one."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, seconds: float) -> None:
        """Take in a measurement."""
        self.value = seconds if self.value is None else self.value + SMOOTHING * (seconds - self.value)


class Affinity:
    """The voices of one engine's workers, and the jobs that wait for one of them. `wait_s` 0 turns it off."""

    def __init__(self, wait_s: float, queue: Lanes) -> None:
        self.warm: dict[str, OrderedDict[Worker, None]] = {}
        "Voice → ready workers that have it in memory, the longest unused first."
        self.learning: dict[str, Job] = {}
        "Voice → the begun job whose worker learns it."
        self.held: dict[str, OrderedDict[Job, None]] = {}
        "Voice → jobs that stand aside for it."
        self.matters = False
        "Whether these workers said that learning a voice takes them time."
        self._queue = queue
        self._wait_s = wait_s
        self._timers: list[tuple[float, int, Job]] = []
        self._order = 0
        self._freed: dict[Worker, None] = {}
        self._cold = Average()
        self._warm = Average()
        self._service = Average()

    @property
    def learning_s(self) -> float | None:
        """What learning a voice costs; None until one was learnt."""
        if self._cold.value is None:
            return None
        return max(0.0, self._cold.value - (self._warm.value or 0.0))

    # ---- the pick

    def place(self, job: Job, waiting: int, selector: Selector, now: float) -> tuple[Worker | None, bool]:
        """Choose: (worker, False), or (None, False) if nobody has room, or (None, True) to hold the job."""
        voice, cost_s = job.submit.voice, self.learning_s
        if not (voice and self.matters and self._wait_s) or (cost_s is not None and cost_s < NEGLIGIBLE_S):
            return selector.pick(waiting, job.avoid), False
        warm = self.warm.get(voice)
        near = [worker for worker in islice(warm, LOOK_AT) if worker is not job.avoid] if warm else []
        for worker in near:
            if len(worker.inflight) < worker.slots:
                return worker, False
        worker = selector.pick(waiting, job.avoid)
        if worker is None or now >= job.hold_until or (warm and worker in warm):
            return worker, False
        learner = self.learning.get(voice)
        if learner is not None and learner is not job:
            return None, True
        if near and (cost_s is None or self._estimate_s(near, voice) < cost_s):
            return None, True
        return worker, False

    def _estimate_s(self, near: list[Worker], voice: str) -> float:
        """How long a further job in this voice would wait for those that know it."""
        slots = sum(worker.slots for worker in near)
        ahead = sum(len(worker.inflight) for worker in near) - slots
        # Those that were not looked at have their part in the jobs that stand aside.
        share = len(near) / max(len(near), len(self.warm.get(voice, ())))
        ahead += int(len(self.held.get(voice, ())) * share)
        return max(0, ahead + 1) * (self._service.value or 0.0) / slots

    def hold(self, job: Job, now: float) -> None:
        """Have a job that `place` would hold stand aside."""
        voice = job.submit.voice
        place = self.held.get(voice)
        if place is None:
            place = self.held[voice] = OrderedDict()
        first = job.held_at == 0.0
        if first:
            job.held_at = now
        wait_s = self._wait_s
        if voice in self.learning:
            cost_s = self.learning_s
            wait_s += 2 * cost_s if cost_s is not None else (LEARNING_WAITS - 1) * wait_s
        job.hold_until = job.held_at + wait_s
        self._queue.set_aside(job, place)
        if not first:
            place.move_to_end(job, last=False)
        self._order += 1
        heapq.heappush(self._timers, (job.hold_until, self._order, job))

    # ---- what lets held jobs go

    def next_held(self) -> tuple[Job, Worker] | None:
        """A held job and the worker for it: one that knows its voice and has had a slot come free."""
        while self._freed:
            worker = next(iter(self._freed))
            job = None
            if worker.state == WorkerState.READY and len(worker.inflight) < worker.slots:
                job = self._oldest(worker)
            if job is not None:
                return job, worker
            del self._freed[worker]
        return None

    def _oldest(self, worker: Worker) -> Job | None:
        if self._queue.interactive.size:
            # It was not held, so it is for anybody; what is held for this worker may only pass its equals.
            candidates = [job for job in self._heads(worker) if job.submit.lane == "interactive"]
        else:
            candidates = self._heads(worker)
        return min(candidates, key=lambda job: job.held_at, default=None)

    def _heads(self, worker: Worker) -> list[Job]:
        places = (self.held.get(voice) for voice in worker.warm_voices)
        return [next(iter(place)) for place in places if place]

    def next_due(self, now: float) -> Job | None:
        """A job that has stood aside for long enough; bring it back before asking again."""
        while self._timers and self._timers[0][0] <= now:
            until, _, job = heapq.heappop(self._timers)
            if self._holds(job) and job.hold_until == until:
                return job
        return None

    def next_deadline(self) -> float | None:
        """When `next_due` may return something."""
        while self._timers and not self._holds(self._timers[0][2]):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _holds(self, job: Job) -> bool:
        return job.aside is not None and job.aside is self.held.get(job.submit.voice)

    def reconsider(self, voice: str) -> bool:
        """Something about a voice has changed: let the first job held for it be placed anew."""
        place = self.held.get(voice)
        if not place:
            self.held.pop(voice, None)
            return False
        self._queue.bring_back(next(iter(place)))
        return True

    def sweep(self) -> bool:
        """Look once more at every voice that nobody learns; return whether that brought jobs back."""
        found = [voice for voice in self.held if voice not in self.learning]
        return sum(self.reconsider(voice) for voice in found) > 0

    # ---- what happens to workers

    def joined(self, worker: Worker) -> None:
        """A worker takes jobs from now on."""
        self.matters = worker.info.learns
        self._freed[worker] = None
        for voice in worker.warm_voices:
            self._know(worker, voice)

    def left(self, worker: Worker) -> None:
        """A worker takes no more jobs."""
        self._freed.pop(worker, None)
        for voice in worker.warm_voices:
            self._unknow(worker, voice)

    def heard(self, worker: Worker, voices: list[str]) -> None:
        """A ready worker says which voices it has in memory."""
        for voice in worker.warm_voices:
            if voice not in voices:
                self._unknow(worker, voice)
        worker.warm_voices = voices
        for voice in voices:
            self._know(worker, voice)

    def _know(self, worker: Worker, voice: str) -> None:
        self.warm.setdefault(voice, OrderedDict())[worker] = None

    def _unknow(self, worker: Worker, voice: str) -> None:
        warm = self.warm.get(voice)
        if warm is not None:
            warm.pop(worker, None)
            if not warm:
                del self.warm[voice]

    # ---- what happens to attempts

    def given(self, job: Job, worker: Worker, now: float) -> None:
        """An attempt was sent to a worker (whose `inflight` has it already)."""
        job.begun_at = 0.0
        job.silent = True
        job.held_at, job.hold_until = 0.0, inf
        voice = job.submit.voice
        if not voice:
            return
        warm = self.warm.get(voice)
        job.cold = warm is None or worker not in warm
        if not job.cold and warm is not None:
            warm.move_to_end(worker)
        elif len(worker.inflight) <= worker.slots:
            self.learning.setdefault(voice, job)

    def started(self, job: Job, now: float) -> None:
        """An attempt begins: if its worker has to learn the voice, then from now on."""
        job.begun_at = now
        if job.cold:
            self.learning.setdefault(job.submit.voice, job)

    def first_audio(self, job: Job, worker: Worker, now: float) -> bool:
        """An attempt speaks: its voice is known there. Returns whether a held job was brought back."""
        job.silent = False
        voice = job.submit.voice
        if not voice or not job.begun_at:
            return False
        (self._cold if job.cold else self._warm).add(now - job.begun_at)
        if not job.cold:
            return False
        # How long it goes on speaking says how long others wait; what it had to learn does not.
        job.begun_at = 0.0 if self._warm.value is None else now - self._warm.value
        if worker.state == WorkerState.READY and voice not in worker.warm_voices:
            worker.warm_voices = [*worker.warm_voices[-MOST_VOICES + 1 :], voice]
            self._know(worker, voice)
            self._freed[worker] = None
        return self._learnt(job)

    def served(self, seconds: float) -> None:
        """An attempt has spoken all in this time."""
        self._service.add(seconds)

    def ended(self, job: Job) -> bool:
        """An attempt is over. Returns whether a held job was brought back."""
        return self._learnt(job)

    def freed(self, worker: Worker) -> None:
        """A worker has ended an attempt, this or an older one: it may have room for a held job."""
        self._freed[worker] = None

    def _learnt(self, job: Job) -> bool:
        voice = job.submit.voice
        job.cold = False
        if self.learning.get(voice) is not job:
            return False
        del self.learning[voice]
        return self.reconsider(voice)
