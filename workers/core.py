"""The worker's mind: registrations, jobs and engine processes, without a socket or a clock.

Everything that happens is a method call with the time as an argument; everything to be done is appended to
a list of actions, which the agent carries out in order. So each rule of the protocol's sixth section can be
tested without a process, and replayed when it fails.

The rules that are not obvious:

* An attempt is known by envelope[4:22], its job id and number. What an engine sends about anything else
  is stale and dropped here; the broker fences in the same way.
* When a broker falls silent its socket goes, and with it messages that may or may not have arrived. Its
  attempts are therefore stopped: going on with a gap in the audio would be worse. Nothing is said of them
  when it is back. READY over a new connection has told it all; and one that was started again may by then
  have given out attempts of the same numbers.
* A broker that forgot this worker (REREGISTER) has forgotten its attempts, or given them to others: they
  are stopped, and nobody is told. Would they go on, the broker might take what they say for attempts of the
  same number that it gives out anew.
* An engine may speak several jobs together. A job that was tried before is given one to itself: if it is the
  one that brings engines down, it harms nobody else, and if it is not, it cannot be taken for it.
* A worker whose only engines could not be started again leaves its brokers until one is loaded: work must
  not wait for an engine that may never come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from ..common import wire
from ..common.errors import BusError, ConfigError, Conflict, EngineError, ProtocolError, WorkerLost
from ..common.messages import Done, Failed, Ready, Welcome, decode, encode, failed
from ..common.signs import cut_short
from ..common.wire import NO_JOB, pack_envelope, unpack_envelope
from . import control
from .actions import ERROR, INFO, WARNING, Actions, Exit, Frames, KillChild, Log, ToBroker
from .beat import MAX_WARM_VOICES, Tally, beat
from .crew import Crew
from .desk import Desk, interruption
from .invariants import check_invariants
from .jobs import Job, Reason, Slot
from .links import Link, Timing
from .registrations import Registrations
from .states import JobState, LinkState, Referee, SlotState

BROKER_SHAPES: Final = {wire.WELCOME: 2, wire.FAILED: 2, wire.JOB: 3} | dict.fromkeys(
    (wire.HEARTBEAT, wire.CANCEL, wire.DRAIN, wire.GOODBYE, wire.REREGISTER), 1
)
"""Kind → frames of what a broker may send to a worker."""
UNBLOCKING: Final = frozenset({wire.CANCEL, wire.DRAIN, wire.GOODBYE, wire.REREGISTER})
"""What may take a job away that others wait behind."""
START_FAILURES: Final = 3
"""Deaths before the engine was ever loaded that end the worker: it never worked, waiting mends nothing."""
OFTEN: Final = 3
"""Handshakes that broke off, in a row, are no accident any more."""
REFUSALS: Final = 2
"""GOODBYEs in a row in answer to READY which mean that another start of this worker has taken its place. One
could come from a broker that happened to leave at that moment."""


class WorkerCore:
    """All decisions of one worker. `worker` and `incarnation` are its identity on every broker."""

    def __init__(
        self,
        worker: str,
        incarnation: int,
        engine: str,
        brokers: Sequence[str],
        *,
        slots: int = 1,
        timing: Timing | None = None,
        random: Callable[[], float],
        strict: bool = False,
    ) -> None:
        self.worker = worker
        self.incarnation = incarnation
        self.engine = engine
        self.timing = timing or Timing()
        self.referee = Referee(strict=strict)
        self.crew = Crew(slots, self.timing, self.referee, random)
        self.links = Registrations(
            brokers, lambda: self.crew.places, self._offer, self.timing, self.referee, random
        )
        self.desk = Desk(self.links, self.crew, self.referee)
        self.leaving = False
        self.error: BusError | None = None
        self.exited = False
        self.tally = Tally(self.referee)

    # What the loop asks.

    @property
    def is_ready(self) -> bool:
        """Whether an engine is loaded and a broker knows it."""
        return self.crew.is_usable and self.links.is_registered

    def next_deadline(self) -> float:
        """When `tick` has something to do, at the latest."""
        if self.exited:
            return inf
        return min(self.links.next_deadline(), self.crew.next_deadline(), self.desk.next_deadline())

    def check_invariants(self) -> None:
        """Raise `AssertionError` unless all tables agree. For tests."""
        check_invariants(self)

    # Beginning and end.

    def start(self, out: Actions) -> None:
        """Start the engines. Links open when the first is loaded."""
        self.crew.start(out)

    def stop(self, now: float, out: Actions) -> None:
        """Drain: no new jobs, hand back what was not begun, finish the rest, then leave. Idempotent."""
        if self.leaving:
            return
        self.leaving = True
        waiting = len(self.desk.queue)
        running = len(self.desk.jobs) - waiting
        out.append(Log(INFO, f"stopping: {running} jobs to finish, {waiting} to hand back"))
        for link in self.links:
            if link.state is LinkState.REGISTERED:
                self.links.send(link, [pack_envelope(wire.DRAIN)], out)
                self._drain(link, out)
            elif link.state is not LinkState.DRAINING:
                self._leave(link, now, out)
        self._finish_leaving(now, out)

    def stop_now(self, now: float, out: Actions) -> None:
        """Leave at once. The brokers give this worker's jobs to others."""
        self.leaving = True
        for link in self.links:
            self._leave(link, now, out)
        self.crew.stop(now, out, by_force=True)
        self._finish_leaving(now, out)

    def _give_up(self, error: BusError, now: float, out: Actions) -> None:
        self.error = self.error or error
        self.stop_now(now, out)

    # What the brokers say.

    def broker_message(self, index: int, frames: Frames, now: float, out: Actions) -> None:
        """Take one message of a broker: its frames from the envelope on, the envelope as bytes."""
        link = self.links[index]
        if not link.is_open:
            return
        link.heard_at = now
        kind, job, attempt = 0, NO_JOB, 0
        try:
            kind, job, attempt, flags, sequence, value = unpack_envelope(frames[0])
            if BROKER_SHAPES.get(kind) != len(frames):
                name = wire.KIND_NAMES.get(kind, f"kind {kind:#04x}")
                raise ProtocolError(f"a worker does not take {name} with {len(frames)} frames from a broker")
            if kind == wire.JOB:
                self.desk.take(link, frames, flags, sequence, now + value / 1000, now, out)
            elif kind == wire.CANCEL:
                self.desk.cancel(link, frames[0][4:22], flags, now, out)
            elif kind == wire.WELCOME:
                self._welcome(link, decode(frames[1], Welcome), now, out)
            elif kind == wire.REREGISTER:
                self._reregister(link, now, out)
            elif kind == wire.DRAIN and link.state is LinkState.REGISTERED:
                out.append(Log(INFO, f"{link.address} asks this worker to drain"))
                self._drain(link, out)
                self._finish_leaving(now, out)
            elif kind == wire.GOODBYE:
                self._goodbye(link, now, out)
            elif kind == wire.FAILED:
                notice = decode(frames[1], Failed)
                self.tally.malformed += 1
                out.append(Log(WARNING, f"{link.address} refused a message: {notice.message}"))
        except ProtocolError as error:
            self.tally.malformed += 1
            out.append(Log(WARNING, f"a malformed message from {link.address}: {error.message}"))
            if kind != wire.FAILED:  # an answer to an answer could go on for ever
                answer = [pack_envelope(wire.FAILED, job, attempt), encode(failed(error))]
                self.links.send(link, answer, out)
        if kind in UNBLOCKING:
            self.desk.dispatch(now, out)

    def refused(self, index: int, error: BusError, now: float, out: Actions) -> None:
        """A broker does not let this worker in: the end, if none ever did.

        One that did may do so again, and what refuses need not be it: nothing has been proven by then.
        """
        link = self.links[index]
        if not link.is_open:
            return
        if link.refusal is None:
            out.append(Log(ERROR, error.message))
        link.refusal = error
        if not self.links.ever_registered and all(other.refusal is not None for other in self.links):
            self._give_up(error, now, out)
        else:
            self._lose(link, "does not take this worker", now, out)

    def cut_short(self, index: int, out: Actions) -> None:
        """A handshake broke off. The broker may be about to leave; if it goes on, somebody should know."""
        link = self.links[index]
        link.cut_short += 1
        if link.cut_short == OFTEN:
            out.append(Log(ERROR, cut_short(link.address)))

    # Registration.

    def _offer(self, slots: int, renews: bool) -> bytes:
        facts = self.crew.facts
        if facts is None:
            raise AssertionError("a worker registers after its engine is loaded")
        return encode(
            Ready(
                self.worker,
                self.incarnation,
                self.engine,
                facts.languages,
                slots,
                round(self.timing.interval_s * 1000),
                facts.sample_rate,
                facts.version,
                self.crew.warm_voices[-MAX_WARM_VOICES:],
                facts.max_chars,
                facts.learns,
                renews,
            )
        )

    def _welcome(self, link: Link, header: Welcome, now: float, out: Actions) -> None:
        if self.links.welcome(link, header, now, out):
            self.desk.dispatch(now, out)

    def _reregister(self, link: Link, now: float, out: Actions) -> None:
        if link.state is LinkState.REGISTERED:
            self.desk.abandon(link, now, out)
            self.links.register_again(link, now, out)
        elif link.state is LinkState.DRAINING:
            self._leave(link, now, out)
            self._finish_leaving(now, out)
        # While connecting READY is already under way.

    def _goodbye(self, link: Link, now: float, out: Actions) -> None:
        if link.state is LinkState.CONNECTING:
            link.refusals += 1
            if link.refusals >= REFUSALS:
                message = f"a newer worker took over the id {self.worker!r}: give each worker its own --id"
                link.refusal = Conflict(message)
                if all(isinstance(other.refusal, Conflict) for other in self.links):
                    self._give_up(link.refusal, now, out)
                    return
        self._lose(link, "has left", now, out)

    def _lose(self, link: Link, why: str, now: float, out: Actions) -> None:
        if link.state is LinkState.DRAINING:
            self._leave(link, now, out)
            self._finish_leaving(now, out)
            return
        self.desk.abandon(link, now, out)
        self.links.lose(link, why, now, out)

    # Leaving.

    def _drain(self, link: Link, out: Actions) -> None:
        link.move(LinkState.DRAINING)
        self.desk.return_queued(link, out)

    def _leave(self, link: Link, now: float, out: Actions) -> None:
        """End a link without waiting for anything."""
        if link.state is not LinkState.LEFT:
            self.desk.return_queued(link, out)
            self.desk.abandon(link, now, out)
            self.links.close(link, wire.GOODBYE, LinkState.LEFT, out)

    def _finish_leaving(self, now: float, out: Actions) -> None:
        """Take leave of drained brokers; when the last is gone, end the engines; when those are, exit."""
        for link in self.links:
            if link.state is LinkState.DRAINING and not self.desk.of(link):
                self.links.close(link, wire.DRAINED, LinkState.LEFT, out)
        if not self.links.all_left:
            return
        self.leaving = True
        self.crew.stop(now, out, by_force=False)
        if self.crew.all_gone and not self.exited:
            self.exited = True
            out.append(Exit(self.error))

    def _withdraw(self, out: Actions) -> None:
        """Leave the brokers until an engine is loaded again."""
        for link in self.links:
            if link.state not in (LinkState.IDLE, LinkState.LEFT, LinkState.DRAINING):
                self.desk.return_queued(link, out)
                self.links.close(link, wire.GOODBYE, LinkState.IDLE, out)

    # What the engines say.

    def child_message(self, index: int, frames: Frames, now: float, out: Actions) -> None:
        """Take one message of the engine process now running in a slot."""
        try:
            self._hear(self.crew[index], frames, now, out)
        except ProtocolError as error:
            # Both ends are ours: a process that garbles its words is broken, and a new one is not.
            self.tally.malformed += 1
            out.append(Log(ERROR, f"the engine process of slot {index} is ended: {error.message}"))
            out.append(KillChild(index))

    def _hear(self, slot: Slot, frames: Frames, now: float, out: Actions) -> None:
        envelope: bytes = frames[0]
        kind = control.kind_of(frames)
        if kind in (0, wire.BUNDLE):  # a bundle that comes here has broken off
            raise ProtocolError("it says what is no message")
        job = slot.jobs.get(envelope[4:22])
        if kind >= control.HELLO:
            self._control(slot, kind, frames, now, out)
        elif job is None:
            if kind == wire.FAILED and envelope[4:20] == NO_JOB and slot.state is SlotState.LOADING:
                self._load_failed(decode(frames[1], Failed).error(), now, out)
            else:
                self.tally.fenced += 1
        elif kind in (wire.CHUNK, wire.STARTED):
            job.progressed = True
            if kind == wire.STARTED and job.state is JobState.ASSIGNED:
                job.move(JobState.SPEAKING)
            if job.state is not JobState.ABANDONED:
                out.append(ToBroker(job.link, frames))
        elif kind in (wire.DONE, wire.FAILED):
            self._ended_by_engine(slot, job, kind, frames, now, out)
        else:
            self.tally.fenced += 1

    def _control(self, slot: Slot, kind: int, frames: Frames, now: float, out: Actions) -> None:
        if kind == control.LOADED and slot.state is SlotState.LOADING:
            self.crew.loaded(slot, control.decode(frames[1], control.Loaded), now, out)
            self.links.open_idle(now, out)
            self.desk.dispatch(now, out)
        elif kind == control.LEARNING:
            for job in slot.jobs.values():
                job.patient_until = now + self.timing.learn_grace_s
        elif kind == control.PROGRESS:
            for job in slot.jobs.values():
                job.progressed = True
        elif kind == control.REPORT:
            report = control.decode(frames[1], control.Report)
            slot.warm_voices = tuple(report.warm_voices)
            slot.figures = report.figures
            for job in slot.jobs.values():
                job.patient_until = now

    def _load_failed(self, error: BusError, now: float, out: Actions) -> None:
        """The engine refused to load: the end at the first start, later its process is tried again."""
        if self.crew.facts is None or isinstance(error, ConfigError):
            self._give_up(error, now, out)
        else:
            out.append(Log(ERROR, f"the engine could not be loaded: {error}"))
        # The process ends after this message; its death does the rest.

    def _ended_by_engine(
        self, slot: Slot, job: Job, kind: int, frames: Frames, now: float, out: Actions
    ) -> None:
        facts = self.crew.facts
        if kind == wire.DONE and facts is not None:
            self.tally.done(decode(frames[1], Done), facts.sample_rate)
        abandoned = job.state is JobState.ABANDONED
        self.desk.end(job)
        self.crew.freed(slot, now)
        if abandoned:
            pass  # its broker has given it to another
        elif kind == wire.FAILED and job.reason is Reason.DEADLINE:
            self.desk.answer(job, interruption(job), out)
        else:
            out.append(ToBroker(job.link, frames))
        self.desk.dispatch(now, out)
        if self.links[job.link].state is LinkState.DRAINING:
            self._finish_leaving(now, out)

    def child_died(self, index: int, how: str, now: float, out: Actions) -> None:
        """Note that the process in a slot is gone; `how` names its exit code or signal."""
        slot = self.crew[index]
        jobs = list(slot.jobs.values())
        if slot.state is SlotState.GONE:
            return
        for job in jobs:
            abandoned = job.state is JobState.ABANDONED
            self.desk.end(job)
            lost = WorkerLost(f"the engine process of worker {self.worker} died during this job ({how})")
            if not abandoned:
                self.desk.answer(job, interruption(job) if job.reason else lost, out)
        if slot.state is SlotState.RESTING:
            self.crew.fell_asleep(slot, out)
            self.desk.dispatch(now, out)
            return
        wanted = slot.state is not SlotState.STOPPING
        if wanted or jobs:
            names = "".join(f" {job.name}" for job in jobs)
            out.append(Log(ERROR, f"the engine process of slot {index} died ({how}){names}"))
        if self.leaving or not wanted:
            self.crew.buried(slot)
            self._finish_leaving(now, out)
            return
        was_loading = slot.state is SlotState.LOADING
        self.crew.died(slot, now)
        if self.crew.facts is None and slot.failures >= START_FAILURES:
            self._give_up(EngineError(f"the engine process dies while loading ({how})"), now, out)
        elif was_loading and not self.crew.is_usable:
            self._withdraw(out)
        self._finish_leaving(now, out)

    # Time.

    def tick(self, now: float, out: Actions) -> None:
        """Do what is due. Call after the messages that have arrived, so that no life sign is overlooked."""
        if self.exited:
            return
        for link in self.links.tick(now, self._beat, out):
            self._lose(link, "does not answer", now, out)
        for slot in self.crew.tick(now, out):
            for job in list(slot.jobs.values()):
                self.desk.end(job)
            self.crew.buried(slot)
            self._finish_leaving(now, out)
        self.desk.tick(now, out)
        self.desk.dispatch(now, out)

    def _beat(self, link: Link, now: float) -> bytes:
        return beat(link, self.crew, self.desk, self.tally, now)
