"""The engine processes of a worker: started, started again after a death, stopped, and ended by force."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

from ..common import wire
from ..common.wire import pack_envelope
from .actions import ERROR, INFO, WARNING, Actions, KillChild, Log, StartChild, ToChild
from .control import Loaded
from .jobs import LOADED_STATES, Job, Slot
from .links import Timing, jittered
from .states import Referee, SlotState


class Crew:
    """The slots. `facts` is what the engine said of itself when it was last loaded."""

    def __init__(self, slots: int, timing: Timing, referee: Referee, random: Callable[[], float]) -> None:
        self.slots = [Slot(index, referee) for index in range(slots)]
        self.facts: Loaded | None = None
        self.restarts = 0
        self._timing = timing
        self._random = random

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots)

    def __getitem__(self, index: int) -> Slot:
        return self.slots[index]

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def is_loaded(self) -> bool:
        """Whether any engine can take jobs, now or after the one it has."""
        return any(slot.state in LOADED_STATES for slot in self.slots)

    @property
    def all_gone(self) -> bool:
        """Whether every process has ended for good."""
        return all(slot.state is SlotState.GONE for slot in self.slots)

    @property
    def free(self) -> int:
        """How many engines have nothing to do."""
        return sum(slot.state is SlotState.IDLE for slot in self.slots)

    @property
    def warm_voices(self) -> list[str]:
        """Voices that some engine has in memory."""
        return list(dict.fromkeys(voice for slot in self.slots for voice in slot.warm_voices))

    def link_of(self, slot: int) -> int | None:
        """The link that the job of this slot came over."""
        job = self.slots[slot].job
        return None if job is None else job.link

    def start(self, out: Actions) -> None:
        """Start all."""
        for slot in self.slots:
            self._start(slot, out)

    def _start(self, slot: Slot, out: Actions) -> None:
        slot.restart_at = inf
        slot.killed = False
        slot.move(SlotState.LOADING)
        out.append(StartChild(slot.index))

    def loaded(self, slot: Slot, facts: Loaded, out: Actions) -> None:
        """An engine is warm."""
        out.append(Log(INFO, f"engine {facts.engine} {facts.version} is loaded in slot {slot.index}"))
        self.facts = facts
        slot.warm_voices = tuple(facts.warm_voices)
        slot.move(SlotState.IDLE)

    def assign(self, slot: Slot, job: Job) -> None:
        """Give an idle engine a job."""
        slot.move(SlotState.BUSY)
        slot.job = job
        job.slot = slot.index

    def interrupt(self, job: Job, now: float, out: Actions) -> None:
        """Tell the engine to stop its job; one that does not listen in time is ended."""
        if job.slot is not None:
            slot = self.slots[job.slot]
            slot.kill_at = min(slot.kill_at, now + self._timing.cancel_grace_s)
            out.append(ToChild(slot.index, [pack_envelope(wire.CANCEL, job.job, job.attempt)]))

    def freed(self, slot: Slot) -> None:
        """An engine has ended its job by itself."""
        slot.job = None
        slot.failures = 0
        if slot.state is SlotState.BUSY:
            slot.kill_at = inf
            slot.move(SlotState.IDLE)

    def died(self, slot: Slot, now: float) -> None:
        """A process is gone although it was wanted: it is started again, after a wait that grows."""
        slot.job = None
        slot.kill_at = inf
        slot.warm_voices = ()
        slot.move(SlotState.DOWN)
        slot.failures += 1
        self.restarts += 1
        timing = self._timing
        slot.restart_at = now + jittered(
            timing.restart_base_s, timing.restart_cap_s, slot.failures, self._random
        )

    def buried(self, slot: Slot) -> None:
        """A process is gone, and that is well: the worker leaves."""
        slot.job = None
        slot.kill_at = slot.restart_at = inf
        if slot.state is not SlotState.STOPPING:
            slot.move(SlotState.DOWN)
        slot.move(SlotState.GONE)

    def stop(self, now: float, out: Actions, *, by_force: bool) -> None:
        """End all processes; unless `by_force`, those that can end in good order have a grace. Idempotent."""
        for slot in self.slots:
            if slot.state is SlotState.DOWN:
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
        return stuck

    def next_deadline(self) -> float:
        """When `tick` has something to do."""
        return min(slot.next_deadline() for slot in self.slots)
