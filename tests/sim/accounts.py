"""The books: what every client was owed and got, what every broker promised, and what is wrong with it.

A job is owed one answer, and the audio of its very text. What else may be answered depends on what happened:

=====================  ===============================================================================
code                   is a rightful end
=====================  ===============================================================================
text_too_long          of a text the engine refuses, and of no other
poison_job             of a text that kills or hangs engines; of others where faults could kill as many,
                       one fewer where they may have been spoken beside such a text
cancelled              of a job its caller cancelled
deadline_exceeded      not before the job's deadline; a durable one's may pass when the wall clock jumps
worker_lost            for a listener who has heard a part, and for a stream that was cut off repeatedly,
                       or beside a text that kills or hangs engines
client_lost            for a listener who has heard a part
broker_unreachable     when brokers or the network failed
overloaded             when a broker was stopped, or admits few jobs of one client
no_worker              when workers were stopped or lost
storage_error          of a durable job, when the disk was full
=====================  ===============================================================================

In a history without faults only the first four are. A record of a client that crashed is void, but a durable
job that was accepted must be there for whoever fetches it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from tests.sim.speech import Speech, understand
from voicebus.client.task import Task
from voicebus.common import wire
from voicebus.common.errors import BusError
from voicebus.common.messages import Submit, encode

if TYPE_CHECKING:
    from tests.sim.agents import Agent
    from tests.sim.brokers import Broker
    from tests.sim.network import Frames
    from tests.sim.world import World

WORKER_FAULTS = (
    "agent",
    "engine",
    "cut",
    "half-open",
    "partition",
    "drop",
    "delay",
    "admin",
    "broker",
    "clock",
)
EARLY_S = 0.01
"""Milliseconds on the wire are rounded down at each hop."""


@dataclass(slots=True, eq=False)
class Record:
    """One job of one caller."""

    number: int
    text: bytes
    submit: Submit
    flags: int
    listens: bool
    deadline_s: float
    cancel_after_s: float | None = None
    listen_after_s: float | None = None
    cancelled: bool = False
    state: str = "planned"
    deadline: float = inf
    heard: list[bytes] = field(default_factory=list[bytes])
    task: Task = field(init=False)

    @property
    def speech(self) -> Speech:
        return understand(self.text)

    def make_task(self, job: bytes, now: float) -> Task:
        """Hand the job in."""
        self.state = "open"
        self.deadline = now + self.deadline_s
        self.task = Task(
            job, encode(self.submit), self.text, deadline=self.deadline, flags=self.flags,
            listening=self.listens, tag=self, durable=self.submit.durable,
        )  # fmt: skip
        return self.task

    def describe(self) -> str:
        """The job in one line."""
        manner = "listening" if self.listens else "stream" if self.flags & wire.STREAM else "plain"
        durable = " durable" if self.submit.durable else ""
        return f"#{self.number} {manner}{durable} {self.submit.lane} {self.text.decode()!r}"


class Accounts:
    """All books of one history."""

    def __init__(self, world: World) -> None:
        self.records: list[Record] = []
        self.complaints: list[str] = []
        self.counts: Counter[str] = Counter()
        "How jobs ended: done, void, or a code."
        self.accepted = 0
        self.promised: dict[int, dict[bytes, None]] = {}
        "Broker → durable jobs it has accepted and not lost with its disk."
        self.by_job: dict[bytes, Record] = {}
        self._world = world
        self._owed: dict[tuple[bytes, bytes], int] = {}
        "(connection, job) → answers it has asked for and not got."
        self._killed: dict[tuple[int, int, bytes, int], int] = {}
        self._acceptances: Counter[tuple[int, int, bytes]] = Counter()

    def wrong(self, complaint: str) -> None:
        """Note that a promise was broken."""
        self._world.note(f"!! {complaint}")
        self.complaints.append(f"{self._world.elapsed_s:.3f} s: {complaint}")

    # ---- what brokers say

    def submitted(self, job: bytes, text: bytes) -> None:
        """A job arrives under an id; a client may give it another one when it asks anew."""
        self.by_job[job] = self.records[int(text[: text.index(b" ")])]

    def asked(self, peer: bytes, envelope: bytes) -> None:
        """A client has asked for a job's answer: by SUBMIT, FETCH, or a CANCEL of somebody's job."""
        key = (peer, envelope[4:20])
        self._owed[key] = self._owed.get(key, 0) + 1

    def told(self, broker: Broker, message: Frames) -> None:
        """A broker sends a message to a client."""
        envelope: bytes = message[1]
        kind, job = envelope[3], envelope[4:20]
        if kind == wire.ACCEPTED and not envelope[23]:
            self.accepted += 1
            self._acceptances[broker.index, broker.lives, job] += 1
            open_job = broker.core.ledger.jobs.get(job)
            if open_job is not None and open_job.durable:
                self.promised.setdefault(broker.index, {})[job] = None
        elif kind in (wire.DONE, wire.FAILED):
            key = (message[0], job)
            owed = self._owed.get(key, 0)
            if not owed:
                self.wrong(f"answered twice: {broker.name} to {message[0].decode()} of {job.hex()[-6:]}")
            self._owed[key] = max(0, owed - 1)

    # ---- what engines suffer

    def poisoned(self, agent: Agent, key: bytes) -> None:
        """A text has killed an engine."""
        job = agent.core.desk.jobs.get(key)
        if job is None:
            return
        broker = self._world.brokers[job.link]
        place = (
            broker.index,
            broker.lives,
            key[:16],
            self._acceptances[broker.index, broker.lives, key[:16]],
        )
        killed = self._killed[place] = self._killed.get(place, 0) + 1
        # Deaths nobody could report do not count: those whose FAILED went down with a connection or a worker.
        most = self._world.plan.settings.max_attempts + self._world.worker_breaks
        if killed > most:
            self.wrong(
                f"poison {key[:16].hex()[-6:]} has killed {killed} engines, {most} at most were its due"
            )

    def exited(self, agent: Agent, error: BusError) -> None:
        """An agent ended by itself. Only one whose engine never loads may."""
        if error.code != "engine_error":
            self.wrong(f"{agent.name} ended with {error}")

    # ---- what clients get

    def void(self, record: Record) -> None:
        """A client has crashed: nobody waits for the answer."""
        if record.state == "open":
            record.state = "void"
            self.counts["void"] += 1

    def touched(self, record: Record, now: float) -> None:
        """A client's task has new audio or has ended."""
        task, speech = record.task, record.speech
        while task.heard:
            record.heard.append(task.heard.popleft())
        heard = b"".join(record.heard)
        if not speech.truth.startswith(heard):
            self.wrong(f"wrong audio heard of {record.describe()}: {heard!r}")
        if not task.ended or record.state != "open":
            return
        record.state = "ended"
        if task.error is None:
            self.counts["done"] += 1
            audio = heard + b"".join(task.chunks)
            if audio != speech.truth:
                self.wrong(f"wrong audio of {record.describe()}: {audio!r}")
            return
        code = task.error.code
        self.counts[code] += 1
        jumped = record.submit.durable and self._world.faults["clock jump"] > 0
        if code == "deadline_exceeded" and now < record.deadline - EARLY_S and not jumped:
            self.wrong(f"{record.describe()} expired {record.deadline - now:.3f} s before its deadline")
        if code not in self._rightful(record):
            self.wrong(f"{record.describe()} ended with {task.error}; history: {task.history}")

    def _rightful(self, record: Record) -> set[str]:
        """The codes a job may end with."""
        fate, world = record.speech.fate, self._world
        struck, plan = world.faults, world.plan
        codes: set[str] = set()
        if fate == "refused":
            codes.add("text_too_long")
        if fate in ("poison", "hang"):
            codes.add("poison_job")
            if record.flags & wire.STREAM:
                codes.add("worker_lost")
        if record.cancelled:
            codes.add("cancelled")
        if record.deadline < inf or (record.submit.durable and struck["clock jump"]):
            codes.add("deadline_exceeded")
        if plan.settings.max_jobs_per_client < plan.jobs:
            codes.add("overloaded")
        if plan.shares_fate and record.flags & wire.STREAM:
            codes.add("worker_lost")
        if not struck:
            return codes
        codes.add("broker_unreachable")
        killers = sum(count for kind, count in struck.items() if kind.startswith(WORKER_FAULTS))
        # A job is beside others at its first try alone: they can cost it no more than that.
        if killers + plan.shares_fate >= plan.settings.max_attempts:
            codes.add("poison_job")
        if record.flags & wire.STREAM:
            codes.add("worker_lost")
        if record.listens:
            codes.add("client_lost")
        if any(
            kind.startswith(("agent", "admin", "cut", "half", "part", "delay", "drop")) for kind in struck
        ):
            codes.add("no_worker")
        if struck["broker drain"]:
            codes.add("overloaded")
        if struck["disk full"] and record.submit.durable:
            codes.add("storage_error")
        return codes

    # ---- the end

    def close(self) -> None:
        """Everything must be over: what is still open is lost."""
        for record in self.records:
            if record.state in ("planned", "open"):
                task = getattr(record, "task", None)
                self.counts["lost"] += 1
                self.wrong(f"lost: {record.describe()} {task!r}")

    def fetched(self, broker: Broker, job: bytes, code: str, audio: bytes) -> None:
        """What came of fetching a durable job after everything was over; `code` is empty if audio came."""
        record = self.by_job[job]
        self.counts["fetched"] += 1
        if not code and audio != record.speech.truth:
            self.wrong(f"wrong audio fetched from {broker.name} of {record.describe()}: {audio!r}")
        rightful = self._rightful(record)
        if record.deadline < inf:
            rightful.add("cancelled")  # by its client, which had waited a second longer than that
        if code and code not in rightful:
            self.wrong(f"{broker.name} answers FETCH of {record.describe()} with {code}")
