"""The worker's mind: registrations, jobs and engine processes, without a socket or a clock.

Everything that happens is a method call with the time as an argument; everything to be done is appended to
a list of actions, which the agent carries out in order. So each rule of the protocol's sixth section can be
tested without a process, and replayed when it fails.

The rules that are not obvious:

* An attempt is known by envelope[4:22], its job id and number. What an engine sends about anything else
  is stale and dropped here; the broker fences in the same way.
* When a broker falls silent its socket goes, and with it chunks that may or may not have arrived. Attempts
  that had begun are therefore stopped, and reported as `worker_lost` once the broker is back: resuming
  with a gap in the audio would be worse than starting again. Attempts that had not begun stay.
* A broker that merely forgot this worker (REREGISTER) costs nothing: the jobs go on.
* A worker without any engine, whose engine could not be started again, leaves its brokers until one is
  loaded: work must not wait for an engine that may never come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from ..common import wire
from ..common.errors import (
    BusError,
    Cancelled,
    ConfigError,
    Conflict,
    DeadlineExceeded,
    EngineError,
    ProtocolError,
    WorkerLost,
)
from ..common.messages import Done, Failed, Heartbeat, Ready, Welcome, decode, encode, failed
from ..common.wire import NO_JOB, pack_envelope, unpack_envelope
from . import control
from .actions import (
    ERROR,
    INFO,
    WARNING,
    Actions,
    Beat,
    CloseLink,
    Exit,
    Frames,
    KillChild,
    Log,
    OpenLink,
    StartChild,
    ToBroker,
    ToChild,
)
from .jobs import LOADED_STATES, Job, Reason, Slot
from .links import Link, Timing, jittered, shares
from .states import JobState, LinkState, Referee, SlotState

BROKER_SHAPES: Final = {
    wire.WELCOME: 2,
    wire.HEARTBEAT: 1,
    wire.JOB: 3,
    wire.CANCEL: 1,
    wire.DRAIN: 1,
    wire.GOODBYE: 1,
    wire.REREGISTER: 1,
    wire.FAILED: 2,
}
"""Kind → frames of what a broker may send to a worker."""
START_FAILURES: Final = 3
"""Deaths before the engine was ever loaded that end the worker: it never worked, waiting mends nothing."""
REFUSALS: Final = 2
"""GOODBYEs in a row in answer to READY that mean another start of this worker has taken its place. One could
come from a broker that happened to leave at that moment."""
MAX_WARM_VOICES: Final = 100
MAX_PROGRESSED: Final = 256
MAX_LOST: Final = 4096


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
        self.engine = engine
        self.timing = timing or Timing()
        self.referee = Referee(strict=strict)
        self.links = [
            Link(index, address, self.timing, self.referee, random) for index, address in enumerate(brokers)
        ]
        self.slots = [Slot(index, self.referee) for index in range(slots)]
        self.jobs: dict[bytes, Job] = {}
        self.queue: deque[Job] = deque()
        self.facts: control.Loaded | None = None
        "What the engine said of itself; None until it was loaded for the first time."
        self.leaving = False
        self.error: BusError | None = None
        self.exited = False
        self.gauges: dict[str, int | float | str] = {}
        "Figures that the loop measures, such as memory; they go out with each beat."
        self.jobs_done = self.restarts = self.malformed = self.fenced = 0
        self.audio_s = self.engine_s = 0.0
        self._incarnation = incarnation
        self._random = random

    # What the loop asks.

    @property
    def is_ready(self) -> bool:
        """Whether an engine is loaded and a broker knows it."""
        return any(slot.state in LOADED_STATES for slot in self.slots) and any(
            link.state is LinkState.REGISTERED for link in self.links
        )

    def link_of(self, slot: int) -> int | None:
        """The link that this slot's job belongs to."""
        job = self.slots[slot].job
        return None if job is None else job.link

    def next_deadline(self) -> float:
        """When `tick` has something to do, at the latest."""
        if self.exited:
            return inf
        deadline = min(link.next_deadline() for link in self.links)
        for slot in self.slots:
            deadline = min(deadline, slot.next_deadline())
        for job in self.jobs.values():
            if job.reason is None and job.state is not JobState.ABANDONED:
                deadline = min(deadline, job.deadline)
        return deadline

    # Beginning and end.

    def start(self, out: Actions) -> None:
        """Start the engines. Links open when the first is loaded."""
        for slot in self.slots:
            slot.move(SlotState.LOADING)
            out.append(StartChild(slot.index))

    def stop(self, now: float, out: Actions) -> None:
        """Drain: no new jobs, hand back what was not begun, finish the rest, then leave. Idempotent."""
        if self.leaving:
            return
        self.leaving = True
        out.append(
            Log(INFO, f"stopping: {len(self.jobs) - len(self.queue)} running, {len(self.queue)} to return")
        )
        for link in self.links:
            if link.state is LinkState.REGISTERED:
                self._send(link, [pack_envelope(wire.DRAIN)], out)
                self._drain(link, out)
            elif link.state is not LinkState.DRAINING:
                self._leave(link, now, out)
        self._finish_leaving(now, out)

    def stop_now(self, now: float, out: Actions) -> None:
        """Leave at once. The brokers give this worker's jobs to others."""
        self.leaving = True
        for link in self.links:
            self._leave(link, now, out)
        self._stop_children(now, out, grace_s=0.0)
        self._finish_leaving(now, out)

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
                deadline = now + value / 1000
                self._take(link, frames, flags, sequence, deadline, now, out)
            elif kind == wire.CANCEL:
                self._cancel(frames[0][4:22], now, out)
            elif kind == wire.WELCOME:
                self._welcome(link, decode(frames[1], Welcome), now, out)
            elif kind == wire.REREGISTER:
                self._reregister(link, now, out)
            elif kind == wire.DRAIN:
                self._drain_asked(link, now, out)
            elif kind == wire.GOODBYE:
                self._goodbye(link, now, out)
            elif kind == wire.FAILED:
                notice = decode(frames[1], Failed)
                self.malformed += 1
                out.append(Log(WARNING, f"{link.address} refused a message: {notice.code}: {notice.message}"))
        except ProtocolError as error:
            self.malformed += 1
            out.append(Log(WARNING, f"a malformed message from {link.address}: {error.message}"))
            if kind != wire.FAILED and link.is_open:  # an answer to an answer could go on for ever
                header = encode(failed(error))
                self._send(link, [pack_envelope(wire.FAILED, job, attempt), header], out)

    def _take(
        self,
        link: Link,
        frames: Frames,
        flags: int,
        first_segment: int,
        deadline: float,
        now: float,
        out: Actions,
    ) -> None:
        key: bytes = frames[0][4:22]
        if key in self.jobs or key[:16] == NO_JOB:
            raise ProtocolError(
                "this attempt is here already" if key in self.jobs else "a JOB needs a job id"
            )
        job = Job(
            key,
            link.index,
            flags=flags,
            first_segment=first_segment,
            deadline=deadline,
            header=frames[1],
            text=frames[2],
            referee=self.referee,
        )
        held = sum(other.link == link.index for other in self.jobs.values())
        if link.state is LinkState.DRAINING or held > link.slots:
            # More than the credit: a share that has just become smaller, or a broker that cannot count.
            self._send(link, [pack_envelope(wire.RETURN, job.job, job.attempt)], out)
            return
        self.jobs[key] = job
        self.queue.append(job)
        self._dispatch(now, out)

    def _cancel(self, key: bytes, now: float, out: Actions) -> None:
        job = self.jobs.get(key)
        if job is not None:
            self._interrupt(job, Reason.CANCELLED, now, out)

    def _interrupt(self, job: Job, reason: Reason, now: float, out: Actions) -> None:
        """Stop a job: one that waits ends here, one that runs is asked to, once."""
        if job.state is JobState.QUEUED:
            job.reason = reason
            self.queue.remove(job)
            self._end(job)
            self._answer(job, _interruption(job), out)
        elif job.state in (JobState.ASSIGNED, JobState.SPEAKING):
            job.reason = reason
            job.move(JobState.CANCELLING)
            self._tell_to_stop(job, now, out)

    def _tell_to_stop(self, job: Job, now: float, out: Actions) -> None:
        if job.slot is not None:
            self.slots[job.slot].kill_at = now + self.timing.cancel_grace_s
            out.append(ToChild(job.slot, [pack_envelope(wire.CANCEL, job.job, job.attempt)]))

    # Registration.

    def _open(self, link: Link, now: float, out: Actions) -> None:
        out.append(OpenLink(link.index))
        link.connect(now)
        self._send_ready(link, shares(self.links, len(self.slots), link)[link.index], out)

    def _send_ready(self, link: Link, slots: int, out: Actions) -> None:
        facts = self.facts
        if facts is None:
            return
        link.slots = slots
        link.most_slots = max(link.most_slots, slots)
        ready = Ready(
            self.worker,
            self._incarnation,
            self.engine,
            facts.languages,
            slots,
            int(self.timing.interval_s * 1000),
            facts.sample_rate,
            facts.version,
            self._warm_voices(),
            facts.max_chars,
        )
        self._send(link, [pack_envelope(wire.READY), encode(ready)], out)

    def _welcome(self, link: Link, header: Welcome, now: float, out: Actions) -> None:
        first = link.state is LinkState.CONNECTING
        link.welcome(header, now)
        if not first:
            return
        out.append(Log(INFO, f"registered with broker {header.broker} at {link.address}"))
        lost = WorkerLost(f"worker {self.worker} lost its connection to the broker while it spoke")
        for key in link.lost:
            envelope = pack_envelope(wire.FAILED, key[:16], int.from_bytes(key[16:], "big"))
            self._send(link, [envelope, encode(failed(lost))], out)
        link.lost.clear()
        self._rebalance(out)
        self._dispatch(now, out)

    def _rebalance(self, out: Actions) -> None:
        """Tell each registered broker its share of the slots where it has changed."""
        for index, slots in shares(self.links, len(self.slots)).items():
            link = self.links[index]
            if link.state is LinkState.REGISTERED and link.slots != slots:
                self._send_ready(link, slots, out)

    def _reregister(self, link: Link, now: float, out: Actions) -> None:
        if link.state is LinkState.REGISTERED:
            out.append(Log(INFO, f"{link.address} does not know this worker: registering again"))
            link.connect(now)
            self._send_ready(link, shares(self.links, len(self.slots), link)[link.index], out)
        elif link.state is LinkState.DRAINING:
            self._leave(link, now, out)
            self._finish_leaving(now, out)
        # While connecting READY is already under way.

    def _goodbye(self, link: Link, now: float, out: Actions) -> None:
        if link.state is LinkState.DRAINING:
            self._leave(link, now, out)
            self._finish_leaving(now, out)
            return
        if link.state is LinkState.CONNECTING:
            link.refusals += 1
            if link.refusals >= REFUSALS:
                conflict = Conflict(
                    f"a newer worker took over the id {self.worker!r}: give each worker its own --id"
                )
                self._give_up(conflict, now, out)
                return
        self._lose(link, "has left", now, out)

    def _lose(self, link: Link, why: str, now: float, out: Actions) -> None:
        if link.state is LinkState.DRAINING:
            self._leave(link, now, out)
            self._finish_leaving(now, out)
            return
        news = link.failures == 0
        self._abandon(link, now, out)
        out.append(CloseLink(link.index, flush=False))
        link.lose(now)
        if news:  # once per change of state, not once per try
            out.append(Log(WARNING, f"the broker at {link.address} {why}: trying again until it is there"))
        self._rebalance(out)

    def _abandon(self, link: Link, now: float, out: Actions) -> None:
        """Stop whatever has begun for this link, and remember to tell the broker."""
        for job in list(self.jobs.values()):
            if job.link != link.index or job.state in (JobState.QUEUED, JobState.ABANDONED):
                continue
            if len(link.lost) < MAX_LOST:
                link.lost.append(job.key)
            told = job.state is JobState.CANCELLING
            job.move(JobState.ABANDONED)
            if not told:
                self._tell_to_stop(job, now, out)

    # Leaving.

    def _drain_asked(self, link: Link, now: float, out: Actions) -> None:
        if link.state is LinkState.REGISTERED:
            out.append(Log(INFO, f"{link.address} asks this worker to drain"))
            self._drain(link, out)
            self._finish_leaving(now, out)

    def _drain(self, link: Link, out: Actions) -> None:
        link.move(LinkState.DRAINING)
        self._return_queued(link, out)

    def _return_queued(self, link: Link, out: Actions) -> None:
        for job in [job for job in self.queue if job.link == link.index]:
            self.queue.remove(job)
            self._end(job)
            self._send(link, [pack_envelope(wire.RETURN, job.job, job.attempt)], out)

    def _leave(self, link: Link, now: float, out: Actions) -> None:
        """End a link without waiting for anything."""
        if link.state is LinkState.LEFT:
            return
        if link.is_open:
            self._return_queued(link, out)
            self._abandon(link, now, out)
            self._send(link, [pack_envelope(wire.GOODBYE)], out)
            out.append(CloseLink(link.index, flush=True))
        else:
            for job in [job for job in self.queue if job.link == link.index]:
                self.queue.remove(job)
                self._end(job)
        link.move(LinkState.LEFT)

    def _finish_leaving(self, now: float, out: Actions) -> None:
        """Take leave of drained brokers; when the last is gone, end the engines; when those are, exit."""
        for link in self.links:
            if link.state is LinkState.DRAINING and not any(
                job.link == link.index for job in self.jobs.values()
            ):
                self._send(link, [pack_envelope(wire.DRAINED)], out)
                out.append(CloseLink(link.index, flush=True))
                link.move(LinkState.LEFT)
        if any(link.state is not LinkState.LEFT for link in self.links):
            return
        self.leaving = True
        self._stop_children(now, out, self.timing.stop_grace_s)
        if not self.exited and all(slot.state is SlotState.GONE for slot in self.slots):
            self.exited = True
            out.append(Exit(self.error))

    def _stop_children(self, now: float, out: Actions, grace_s: float) -> None:
        for slot in self.slots:
            if slot.state is SlotState.DOWN:
                slot.restart_at = inf
                slot.move(SlotState.GONE)
            elif slot.state is SlotState.LOADING or (slot.state in LOADED_STATES and not grace_s):
                # A loading engine reads no message and holds nothing that a clean end would save.
                slot.move(SlotState.STOPPING)
                slot.kill_at = inf
                out.append(KillChild(slot.index))
            elif slot.state in LOADED_STATES:
                slot.move(SlotState.STOPPING)
                slot.kill_at = now + grace_s
                out.append(ToChild(slot.index, [pack_envelope(wire.GOODBYE)]))
            elif slot.state is SlotState.STOPPING and not grace_s and slot.kill_at < inf:
                slot.kill_at = inf
                out.append(KillChild(slot.index))

    def _give_up(self, error: BusError, now: float, out: Actions) -> None:
        """End the worker because of an error."""
        self.error = self.error or error
        self.leaving = True
        for link in self.links:
            self._leave(link, now, out)
        self._finish_leaving(now, out)

    # What the engines say.

    def child_message(self, index: int, frames: Frames, now: float, out: Actions) -> None:
        """Take one message of the engine process now running in a slot."""
        envelope: bytes = frames[0]
        kind = envelope[3]
        slot = self.slots[index]
        job = slot.job
        if kind >= control.HELLO:
            self._control(slot, kind, frames, now, out)
        elif job is None or job.key != envelope[4:22]:
            if kind == wire.FAILED and envelope[4:20] == NO_JOB and slot.state is SlotState.LOADING:
                self._load_failed(slot, decode(frames[1], Failed).error(), now, out)
            else:
                self.fenced += 1
        else:
            job.progressed = True
            if kind == wire.CHUNK:
                if job.state is not JobState.ABANDONED:
                    out.append(ToBroker(job.link, frames))
            elif kind == wire.STARTED:
                if job.state is JobState.ASSIGNED:
                    job.move(JobState.SPEAKING)
                if job.state is not JobState.ABANDONED:
                    out.append(ToBroker(job.link, frames))
            elif kind in (wire.DONE, wire.FAILED):
                self._ended_by_engine(slot, job, kind, frames, now, out)
            else:
                self.fenced += 1

    def _control(self, slot: Slot, kind: int, frames: Frames, now: float, out: Actions) -> None:
        if kind == control.LOADED and slot.state is SlotState.LOADING:
            facts = control.decode(frames[1], control.Loaded)
            out.append(Log(INFO, f"engine {facts.engine} {facts.version} is loaded in slot {slot.index}"))
            self.facts = facts
            slot.warm_voices = tuple(facts.warm_voices)
            slot.move(SlotState.IDLE)
            for link in self.links:
                if link.state is LinkState.IDLE:
                    self._open(link, now, out)
            self._dispatch(now, out)
        elif kind == control.REPORT:
            slot.warm_voices = tuple(control.decode(frames[1], control.Report).warm_voices)

    def _load_failed(self, slot: Slot, error: BusError, now: float, out: Actions) -> None:
        """The engine refused to load: the end at the first start, later its process is tried again."""
        out.append(Log(ERROR, f"the engine could not be loaded: {error}"))
        if self.facts is None or isinstance(error, ConfigError):
            self._give_up(error, now, out)
        # The process ends after this message; its death does the rest.

    def _ended_by_engine(
        self, slot: Slot, job: Job, kind: int, frames: Frames, now: float, out: Actions
    ) -> None:
        if kind == wire.DONE:
            done = decode(frames[1], Done)
            self.jobs_done += 1
            self.engine_s += done.engine_s
            if self.facts is not None:
                self.audio_s += done.samples / self.facts.sample_rate
        abandoned = job.state is JobState.ABANDONED
        self._end(job)
        slot.failures = 0
        if kind == wire.FAILED and job.reason is Reason.DEADLINE:
            self._answer(job, _interruption(job), out)
        elif not abandoned:
            out.append(ToBroker(job.link, frames))
        if slot.state is SlotState.BUSY:
            slot.kill_at = inf
            slot.move(SlotState.IDLE)
        self._dispatch(now, out)
        if self.links[job.link].state is LinkState.DRAINING:
            self._finish_leaving(now, out)

    def child_died(self, index: int, how: str, now: float, out: Actions) -> None:
        """Note that the process in a slot is gone; `how` names its exit code or signal."""
        slot = self.slots[index]
        job = slot.job
        slot.kill_at = inf
        slot.warm_voices = ()
        if job is not None:
            abandoned = job.state is JobState.ABANDONED
            self._end(job)
            if not abandoned:
                lost = WorkerLost(f"the engine process of worker {self.worker} died during this job ({how})")
                self._answer(job, _interruption(job) if job.reason else lost, out)
                out.append(Log(ERROR, f"the engine process of slot {index} died ({how}) {job.name}"))
        if slot.state is SlotState.STOPPING or self.leaving:
            self._died_while_leaving(slot, now, out)
            return
        was_loading = slot.state is SlotState.LOADING
        slot.move(SlotState.DOWN)
        slot.failures += 1
        self.restarts += 1
        if self.facts is None and slot.failures >= START_FAILURES:
            self._give_up(EngineError(f"the engine process dies while loading ({how})"), now, out)
            return
        wait_s = jittered(self.timing.restart_base_s, self.timing.restart_cap_s, slot.failures, self._random)
        slot.restart_at = now + wait_s
        if job is None:
            out.append(Log(ERROR, f"the engine process of slot {index} died ({how})"))
        if was_loading and not any(other.state in LOADED_STATES for other in self.slots):
            self._withdraw(now, out)

    def _died_while_leaving(self, slot: Slot, now: float, out: Actions) -> None:
        if slot.state is not SlotState.STOPPING:
            slot.move(SlotState.DOWN)
        slot.move(SlotState.GONE)
        self._finish_leaving(now, out)

    def _withdraw(self, now: float, out: Actions) -> None:
        """Leave the brokers until an engine is loaded again."""
        for link in self.links:
            if link.state in (LinkState.IDLE, LinkState.LEFT, LinkState.DRAINING):
                continue
            if link.is_open:
                self._return_queued(link, out)
                self._send(link, [pack_envelope(wire.GOODBYE)], out)
                out.append(CloseLink(link.index, flush=True))
            link.move(LinkState.IDLE)

    # Work.

    def _dispatch(self, now: float, out: Actions) -> None:
        """Give waiting jobs to idle engines, oldest first; a job whose broker is away waits for it."""
        if not self.queue:
            return
        for slot in self.slots:
            if slot.state is not SlotState.IDLE:
                continue
            job = self._next_job(now, out)
            if job is None:
                return
            slot.move(SlotState.BUSY)
            slot.job = job
            job.slot = slot.index
            job.move(JobState.ASSIGNED)
            left_ms = min(int((job.deadline - now) * 1000) + 1, wire.MAX_BUDGET_MS)
            envelope = pack_envelope(wire.JOB, job.job, job.attempt, job.flags, job.first_segment, left_ms)
            out.append(ToChild(slot.index, [envelope, job.header, job.text]))

    def _next_job(self, now: float, out: Actions) -> Job | None:
        for job in list(self.queue):
            if job.deadline <= now:
                self._interrupt(job, Reason.DEADLINE, now, out)
            elif self.links[job.link].state is LinkState.REGISTERED:
                self.queue.remove(job)
                return job
        return None

    def _end(self, job: Job) -> None:
        job.move(JobState.ENDED)
        del self.jobs[job.key]
        if job.slot is not None:
            self.slots[job.slot].job = None

    def _answer(self, job: Job, error: BusError, out: Actions) -> None:
        envelope = pack_envelope(wire.FAILED, job.job, job.attempt)
        self._send(self.links[job.link], [envelope, encode(failed(error))], out)

    def _send(self, link: Link, frames: Frames, out: Actions) -> None:
        if link.is_open:
            out.append(ToBroker(link.index, frames))

    # Time.

    def tick(self, now: float, out: Actions) -> None:
        """Do what is due. Call after the messages that have arrived, so that no life sign is overlooked."""
        if self.exited:
            return
        for link in self.links:
            if link.is_silent(now):
                self._lose(link, "does not answer", now, out)
            elif link.state is LinkState.LOST and now >= link.retry_at:
                self._open(link, now, out)
            elif link.is_open and link.state is not LinkState.CONNECTING and now >= link.beat_at:
                link.beat_at = now + link.interval_s
                out.append(Beat(link.index, [pack_envelope(wire.HEARTBEAT), self._heartbeat(link)]))
        for slot in self.slots:
            if now >= slot.kill_at:
                slot.kill_at = inf
                out.append(Log(WARNING, f"the engine process of slot {slot.index} does not stop: ending it"))
                out.append(KillChild(slot.index))
            if now >= slot.restart_at:
                slot.restart_at = inf
                slot.move(SlotState.LOADING)
                out.append(StartChild(slot.index))
        for job in list(self.jobs.values()):
            if job.deadline <= now and job.reason is None and job.state is not JobState.ABANDONED:
                self._interrupt(job, Reason.DEADLINE, now, out)

    def _heartbeat(self, link: Link) -> bytes:
        progressed: list[bytes] = []
        for job in self.jobs.values():
            if job.link == link.index and job.progressed and len(progressed) < MAX_PROGRESSED:
                job.progressed = False
                progressed.append(job.job)
        stats = self.gauges | {
            "jobs_done": self.jobs_done,
            "audio_s": round(self.audio_s, 3),
            "engine_s": round(self.engine_s, 3),
            "restarts": self.restarts,
            "malformed": self.malformed,
            "fenced": self.fenced,
            "illegal_moves": self.referee.illegal,
        }
        free = sum(slot.state is SlotState.IDLE for slot in self.slots)
        return encode(Heartbeat(free, self._warm_voices(), progressed, stats))

    def _warm_voices(self) -> list[str]:
        voices = dict.fromkeys(voice for slot in self.slots for voice in slot.warm_voices)
        return list(voices)[-MAX_WARM_VOICES:]


def _interruption(job: Job) -> BusError:
    if job.reason is Reason.DEADLINE:
        return DeadlineExceeded("the job's deadline passed before it was spoken: give it a longer one")
    return Cancelled("the job was cancelled")
