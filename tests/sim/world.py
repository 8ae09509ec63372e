"""One history: a bus that is made from a seed, used, broken, left in peace, and then audited.

Everything takes its chances from one `random.Random` and its time from one schedule, so a seed is the whole
history. After the last fault every process is brought back, and whatever is still open some minutes of
virtual time later is lost: retries, leases, timeouts and backoffs have had time for all they do.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf
from typing import Final

from tests.sim import plan as plans
from tests.sim.accounts import Accounts, Record
from tests.sim.agents import Agent
from tests.sim.brokers import Broker
from tests.sim.clients import Client
from tests.sim.faults import Faults
from tests.sim.network import Network
from tests.sim.prober import Prober
from tests.sim.process import Process
from tests.sim.schedule import BEGIN_S, Schedule
from tests.sim.speech import FATES, compose
from voicebus.common import wire
from voicebus.common.messages import Submit
from voicebus.workers.states import LinkState

PEACE_S: Final = 480.0
"""How long after the last fault everything must be over."""
CHECK_EVERY: Final = 64
"""Turns between two checks of a core's invariants, on average, unless every turn is checked."""
FATAL_MOST: Final = 5
BREAKS: Final = (
    "agent",
    "admin",
    "cut",
    "half-open",
    "partition",
    "drop",
    "delay",
    "broker",
    "engine",
    "duplicate",
)
"""Faults that may keep a broker from hearing that an engine died, by the beginnings of their names."""


@dataclass
class Outcome:
    """What a history came to."""

    seed: int
    complaints: list[str]
    counts: Counter[str]
    faults: Counter[str]
    accepted: int
    healed_s: float
    "Virtual seconds from the last fault to the end."
    trace: list[str] = field(default_factory=list[str])

    @property
    def digest(self) -> str:
        """A hash of the whole trace."""
        return blake2b("\n".join(self.trace).encode(), digest_size=16).hexdigest()


class World:
    """All processes of a history and what they share."""

    def __init__(self, seed: int, *, tracing: bool = False, strict: bool = False) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.plan = plans.draw(self.dice)
        self.schedule = Schedule()
        self.striking = True
        self.tracing = tracing
        self.trace: list[str] = []
        self.faults: Counter[str] = Counter()
        self._strict = strict
        self._until_check = 1
        self.accounts = Accounts(self)
        self.network = Network(self)
        self.brokers = [Broker(self, index) for index in range(self.plan.brokers)]
        self.agents = [Agent(self, index) for index in range(self.plan.workers)]
        self.clients = [Client(self, index) for index in range(self.plan.clients)]

    # ---- what the others ask

    @property
    def elapsed_s(self) -> float:
        """Since the beginning."""
        return self.schedule.now - BEGIN_S

    @property
    def worker_breaks(self) -> int:
        """Faults after which a broker may not know how an attempt ended."""
        return sum(count for kind, count in self.faults.items() if kind.startswith(BREAKS))

    def soon(self) -> float:
        """A moment, such as the network needs to tell that a connection has gone."""
        return self.plan.latency_s * (0.5 + self.dice.random())

    def struck(self, kind: str) -> None:
        """Count a fault."""
        self.faults[kind] += 1

    def note(self, line: str) -> None:
        """Write a line into the trace."""
        if self.tracing:
            self.trace.append(f"{self.elapsed_s:11.6f} {line}")

    def check(self, invariants: Callable[[], None]) -> None:
        """Check a core's invariants, now and then or always."""
        self._until_check -= 1
        if self._strict or self._until_check <= 0:
            self._until_check = 1 + int(self.dice.random() * 2 * CHECK_EVERY)
            invariants()

    # ---- the history

    def run(self) -> Outcome:
        """Let it happen."""
        healed_s = 0.0
        try:
            healed_s = self._happen()
        except AssertionError as error:
            self.accounts.wrong(f"{type(error).__name__}: {error}")
        except Exception as error:  # whatever a core raises is a finding, not the end of the soak
            self.accounts.wrong(f"raised {type(error).__name__}: {error} at {_place(error)}")
        return Outcome(
            self.seed, self.accounts.complaints, self.accounts.counts, self.faults, self.accounts.accepted,
            healed_s, self.trace,
        )  # fmt: skip

    def _happen(self) -> float:
        for process in (*self.brokers, *self.agents, *self.clients):
            self.schedule.at(BEGIN_S + 0.3 * self.dice.random(), process.start)
        for number in range(self.plan.jobs):
            self._plan_job(number)
        faults = Faults(self)
        for at, kind in self.plan.faults:
            self.schedule.at(BEGIN_S + at, faults.strike, kind)
        self.schedule.run(BEGIN_S + self.plan.span_s)
        self._heal()
        healed_at = self.schedule.now
        step_s = 0.25
        while not self._is_over():
            if self.schedule.now > healed_at + PEACE_S:
                self.accounts.close()
                self._tell_what_is_open()
                return PEACE_S
            self.schedule.run(self.schedule.now + step_s)
            step_s = min(2.0, step_s * 1.25)
        healed_s = self.schedule.now - healed_at
        for core in (*self.brokers, *self.agents, *self.clients):
            if core.up:
                core.core.check_invariants()
        Prober(self).run()
        return healed_s

    def _plan_job(self, number: int) -> None:
        dice = self.dice
        fate = dice.choices(FATES, self.plan.fates)[0]
        kind = dice.choices(("plain", "stream", "listening", "later", "durable"), (6, 2, 3, 1, 4))[0]
        text = compose(number, fate, dice)
        submit = Submit(
            plans.ENGINE,
            voice=dice.choice(("", "", "amber", "basil")),
            lane=dice.choice(("interactive", "batch", "batch")),
            tenant=dice.choice(("", "", "ann", "bob")),
            characters=len(text),
            durable=kind == "durable",
        )
        record = Record(
            number, text, submit,
            flags=wire.STREAM if kind in ("stream", "listening", "later") or dice.random() < 0.05 else 0,
            listens=kind == "listening",
            deadline_s=dice.choice((1.0, 5.0, 20.0)) if dice.random() < 0.1 else inf,
            cancel_after_s=dice.expovariate(1.0) if dice.random() < 0.05 else None,
            listen_after_s=dice.expovariate(2.0) if kind == "later" else None,
        )  # fmt: skip
        self.accounts.records.append(record)
        burst = 0.5 if number % 2 else self.plan.span_s
        self.schedule.at(BEGIN_S + burst * dice.random(), dice.choice(self.clients).submit, record)

    def _heal(self) -> None:
        """The last fault is over: everybody is there, and stays."""
        self.striking = False
        self.network.until_fault = inf
        self.network.parted.clear()
        if self.tracing:
            self.note("-- no more faults")
        for broker in self.brokers:
            broker.disk.full = False
        for process in (*self.brokers, *self.agents, *self.clients):
            process.resume()
            if not process.up:
                process.start()
        for agent in self.agents:
            # One that was told by a broker to leave does not come back to it: an operator starts it anew.
            if agent.up and any(
                link.state in (LinkState.DRAINING, LinkState.LEFT) for link in agent.core.links
            ):
                agent.stop(at_once=False)

    def _is_over(self) -> bool:
        if any(record.state in ("planned", "open") for record in self.accounts.records):
            return False
        processes: tuple[Process, ...] = (*self.brokers, *self.agents, *self.clients)
        if not all(process.up for process in processes):
            return False
        for broker in self.brokers:
            core = broker.core
            if core.ledger.jobs or core.durables.busy:
                return False
            if any(worker.inflight for worker in core.members.by_peer.values()):
                return False
        return not any(agent.core.desk.jobs for agent in self.agents)

    def _tell_what_is_open(self) -> None:
        for broker in self.brokers:
            core = broker.core
            if broker.up and (core.ledger.jobs or core.durables.busy):
                jobs = [
                    job.hex()[-6:]
                    for job in (*core.ledger.jobs, *core.durables.pending, *core.durables.ending)
                ]
                self.accounts.wrong(f"{broker.name} still holds {jobs[:FATAL_MOST]}")
            for worker in core.members.by_peer.values():
                if worker.inflight:
                    self.accounts.wrong(
                        f"{broker.name} believes {worker.info.worker} to hold {len(worker.inflight)}"
                    )
        for agent in self.agents:
            jobs = [f"{job.name} {job.state.value}" for job in agent.core.desk.jobs.values()]
            if jobs:
                self.accounts.wrong(f"{agent.name} still holds {jobs[:FATAL_MOST]}")


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (
        "?" if trace is None else f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
    )
