"""The engine processes of a worker: started, started again after a death, stopped, and ended by force."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

from ..common import wire
from ..common.messages import MAX_SLOTS
from ..common.wire import pack_envelope
from .actions import ERROR, INFO, WARNING, Actions, KillChild, Log, StartChild, ToChild
from .control import Loaded
from .jobs import LOADED_STATES, USABLE_STATES, Job, Slot
from .links import Timing, jittered
from .states import Referee, SlotState


class Crew:
    """The slots. `facts` is what the engine said of itself when it was last loaded."""

    def __init__(self, slots: int, timing: Timing, referee: Referee, random: Callable[[], float]) -> None:
        self.slots = [Slot(index, referee) for index in range(slots)]
        self.facts: Loaded | None = None
        self.restarts = 0
        self.unloads = 0
        "How often an engine was unloaded because there was nothing to do."
        self._counted: dict[str, int | float] = {}
        "What engines that are gone had counted."
        self._timing = timing
        self._random = random

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots)

    def __getitem__(self, index: int) -> Slot:
        return self.slots[index]

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def is_usable(self) -> bool:
        """Whether any engine can take jobs, now, or after those it has, or once it is awake."""
        return any(slot.state in USABLE_STATES for slot in self.slots)

    @property
    def is_waking(self) -> bool:
        """Whether an engine is being loaded again that was unloaded for want of jobs."""
        return any(slot.wakes for slot in self.slots)

    @property
    def places(self) -> int:
        """Jobs that can be spoken at once when all engines are loaded, as many as a READY may offer."""
        return min(MAX_SLOTS, len(self.slots) * (1 if self.facts is None else self.facts.batch))

    @property
    def all_gone(self) -> bool:
        """Whether every process has ended for good."""
        return all(slot.state is SlotState.GONE for slot in self.slots)

    @property
    def free(self) -> int:
        """How many more jobs could be spoken."""
        resting = (SlotState.RESTING, SlotState.ASLEEP)
        return sum(slot.capacity if slot.state in resting else slot.room for slot in self.slots)

    @property
    def figures(self) -> dict[str, int | float]:
        """What all engines count together, those that are gone included."""
        total = dict(self._counted)
        for slot in self.slots:
            for name, value in slot.figures.items():
                total[name] = round(total.get(name, 0) + value, 3)
        return total

    @property
    def warm_voices(self) -> list[str]:
        """Voices that some engine has in memory."""
        return list(dict.fromkeys(voice for slot in self.slots for voice in slot.warm_voices))

    def links_of(self, slot: int) -> set[int]:
        """The links that the jobs of this slot came over."""
        return {job.link for job in self.slots[slot].jobs.values()}

    def place_for(self, job: Job) -> Slot | None:
        """An engine for this job: one that is loaded and has the fewest."""
        best: Slot | None = None
        for slot in self.slots:
            if slot.takes(job) and (best is None or len(slot.jobs) < len(best.jobs)):
                best = slot
        return best

    def wake(self, waiting: int, out: Actions) -> None:
        """Load as many sleeping engines as so many jobs that wait have use for."""
        waiting -= sum(slot.capacity for slot in self.slots if slot.state is SlotState.LOADING)
        for slot in self.slots:
            if waiting > 0 and slot.state is SlotState.ASLEEP:
                out.append(Log(INFO, f"waking the engine of slot {slot.index}"))
                self._start(slot, out)
                slot.wakes = True
                waiting -= slot.capacity

    def start(self, out: Actions) -> None:
        """Start all."""
        for slot in self.slots:
            self._start(slot, out)

    def _start(self, slot: Slot, out: Actions) -> None:
        slot.restart_at = inf
        slot.killed = False
        slot.move(SlotState.LOADING)
        out.append(StartChild(slot.index))

    def loaded(self, slot: Slot, facts: Loaded, now: float, out: Actions) -> None:
        """An engine is warm."""
        out.append(Log(INFO, f"engine {facts.engine} {facts.version} is loaded in slot {slot.index}"))
        self.facts = facts
        slot.warm_voices = tuple(facts.warm_voices)
        slot.capacity = facts.batch
        slot.wakes = False
        slot.idle_since = now
        slot.move(SlotState.IDLE)

    def assign(self, slot: Slot, job: Job) -> None:
        """Give an engine that has room a job."""
        if not slot.jobs:
            slot.move(SlotState.BUSY)
        slot.jobs[job.key] = job
        job.slot = slot.index

    def interrupt(self, job: Job, now: float, out: Actions) -> None:
        """Tell the engine to stop its job; one that does not listen in time is ended."""
        if job.slot is not None:
            slot = self.slots[job.slot]
            job.kill_at = now + self._timing.cancel_grace_s
            if not slot.killed:
                slot.kill_at = min(slot.kill_at, job.kill_at)
            out.append(ToChild(slot.index, [pack_envelope(wire.CANCEL, job.job, job.attempt)]))

    def freed(self, slot: Slot, now: float) -> None:
        """An engine has ended a job by itself."""
        slot.failures = 0
        if slot.state is SlotState.BUSY:
            if not slot.killed:
                slot.kill_at = min((job.kill_at for job in slot.jobs.values()), default=inf)
            if not slot.jobs:
                slot.idle_since = now
                slot.move(SlotState.IDLE)

    def died(self, slot: Slot, now: float) -> None:
        """A process is gone although it was wanted: it is started again, after a wait that grows."""
        self._let_go(slot)
        slot.move(SlotState.DOWN)
        slot.failures += 1
        self.restarts += 1
        timing = self._timing
        slot.restart_at = now + jittered(
            timing.restart_base_s, timing.restart_cap_s, slot.failures, self._random
        )

    def fell_asleep(self, slot: Slot, out: Actions) -> None:
        """A process that was told to rest is gone."""
        out.append(Log(INFO, f"the engine of slot {slot.index} is unloaded until there is a job for it"))
        self._let_go(slot)
        self.unloads += 1
        slot.move(SlotState.ASLEEP)

    def _let_go(self, slot: Slot) -> None:
        for name, value in slot.figures.items():
            if not name.endswith("_bytes"):  # what it held is held no more; what it counted has happened
                self._counted[name] = round(self._counted.get(name, 0) + value, 3)
        slot.figures = {}
        slot.jobs.clear()
        slot.wakes = False
        slot.kill_at = slot.restart_at = inf
        slot.warm_voices = ()

    def buried(self, slot: Slot) -> None:
        """A process is gone, and that is well: the worker leaves."""
        self._let_go(slot)
        if slot.state is not SlotState.STOPPING:
            slot.move(SlotState.DOWN)
        slot.move(SlotState.GONE)

    def stop(self, now: float, out: Actions, *, by_force: bool) -> None:
        """End all processes; unless `by_force`, those that can end in good order have a grace. Idempotent."""
        for slot in self.slots:
            if slot.state in (SlotState.DOWN, SlotState.ASLEEP):
                slot.restart_at = inf
                slot.move(SlotState.GONE)
            elif slot.state is SlotState.LOADING or (by_force and slot.state in LOADED_STATES):
                # A loading engine reads no message, and holds nothing that a clean end would save.
                slot.move(SlotState.STOPPING)
                self._kill(slot, now, out)
            elif slot.state in LOADED_STATES:
                slot.move(SlotState.STOPPING)
                slot.kill_at = now + self._timing.stop_grace_s
                out.append(ToChild(slot.index, [pack_envelope(wire.GOODBYE)]))
            elif slot.state is SlotState.RESTING:
                slot.move(SlotState.STOPPING)
                if slot.killed:
                    slot.kill_at = now + self._timing.stop_grace_s
                elif by_force:
                    self._kill(slot, now, out)
            elif slot.state is SlotState.STOPPING and by_force and not slot.killed:
                self._kill(slot, now, out)

    def _kill(self, slot: Slot, now: float, out: Actions) -> None:
        slot.killed = True
        # A process that hangs in a driver cannot be killed; a worker that leaves does not wait for it.
        slot.kill_at = now + self._timing.stop_grace_s if slot.state is SlotState.STOPPING else inf
        out.append(KillChild(slot.index))

    def tick(self, now: float, out: Actions) -> list[Slot]:
        """End those that did not stop in time, start those whose wait is over; return those past ending."""
        stuck: list[Slot] = []
        for slot in self.slots:
            if now >= slot.kill_at and slot.killed:
                out.append(Log(ERROR, f"the engine process of slot {slot.index} cannot be ended: leaving it"))
                stuck.append(slot)
            elif now >= slot.kill_at:
                out.append(Log(WARNING, f"the engine process of slot {slot.index} does not stop: ending it"))
                self._kill(slot, now, out)
            if now >= slot.restart_at:
                self._start(slot, out)
            if (
                slot.state is SlotState.IDLE
                and not slot.killed
                and now >= slot.idle_since + self._timing.idle_unload_s
            ):
                slot.move(SlotState.RESTING)
                slot.kill_at = now + self._timing.stop_grace_s
                out.append(ToChild(slot.index, [pack_envelope(wire.GOODBYE)]))
        return stuck

    def next_deadline(self) -> float:
        """When `tick` has something to do."""
        deadline = inf
        for slot in self.slots:
            deadline = min(deadline, slot.next_deadline())
            if slot.state is SlotState.IDLE and not slot.killed:
                deadline = min(deadline, slot.idle_since + self._timing.idle_unload_s)
        return deadline
