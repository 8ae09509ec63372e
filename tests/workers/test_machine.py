"""The worker's core under every order of events Hypothesis can think of, its invariants checked after each.

The model of the outside is small: each attempt that a broker gave and that was not cut off with its link
is answered exactly once; an engine never gets more jobs than it takes, nor any while it is told to rest;
nothing is sent without a socket; and a worker that was told to stop always comes to an end. `World` asserts
the rest with every action it carries out.
"""

from __future__ import annotations

from collections import Counter
from math import inf

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.workers.model import World
from voicebus.common import wire
from voicebus.common.errors import Cancelled, EngineError
from voicebus.common.wire import pack_envelope
from voicebus.workers import control
from voicebus.workers.states import JobState, LinkState

LINKS = st.integers(0, 1)
SLOTS = st.integers(0, 1)
JOBS = st.integers(1, 6)
ATTEMPTS = st.integers(1, 2)
ANSWERS = {"DONE", "FAILED", "RETURN"}


class Machine(RuleBasedStateMachine):
    @initialize(
        brokers=st.integers(1, 2),
        slots=st.integers(1, 2),
        jitter=st.floats(0, 1),
        batch=st.sampled_from([1, 1, 3]),
        idle_s=st.sampled_from([inf, 2.0]),
    )
    def start(self, brokers: int, slots: int, jitter: float, batch: int, idle_s: float) -> None:
        self.world = World(brokers, slots, random=jitter, batch=batch, idle_s=idle_s)
        self.answered: Counter[tuple[int, bytes, int]] = Counter()
        self.given: Counter[tuple[int, bytes, int]] = Counter()

    def collect(self) -> None:
        for link, messages in enumerate(self.world.sent):
            for message in messages:
                if message.name in ANSWERS and message.job != bytes(16):
                    if message.name == "FAILED" and message.header[0] == "protocol_error":
                        continue
                    self.answered[link, message.job, message.attempt] += 1
            messages.clear()

    @property
    def alive(self) -> bool:
        return self.world.exit is None

    def on(self, link: int) -> bool:
        return self.alive and link < len(self.world.sockets) and self.world.sockets[link]

    def runs(self, slot: int) -> bool:
        return self.alive and slot < len(self.world.slots) and self.world.slots[slot].running

    # The brokers.

    @rule(link=LINKS, kind=st.sampled_from([wire.HEARTBEAT, wire.REREGISTER, wire.DRAIN, wire.GOODBYE]))
    def broker_says(self, link: int, kind: int) -> None:
        if self.on(link) and not (kind in (wire.DRAIN, wire.GOODBYE) and self.world.now % 4 > 1):
            self.world.broker(kind, link=link)

    @rule(link=LINKS, interval_ms=st.integers(50, 5000), liveness=st.integers(1, 5))
    def broker_welcomes(self, link: int, interval_ms: int, liveness: int) -> None:
        if self.on(link):
            self.world.welcome(link, interval_ms, liveness)

    @rule(link=LINKS, job=JOBS, attempt=ATTEMPTS, ms=st.sampled_from([0, 500, 60_000]))
    def broker_gives(self, link: int, job: int, attempt: int, ms: int) -> None:
        if self.on(link):
            key = job.to_bytes(16, "big") + attempt.to_bytes(2, "big")
            known = self.world.core.desk.jobs.get(key)
            if known is None or known.link != link or known.state is JobState.ABANDONED:
                self.given[link, key[:16], attempt] += 1
            self.world.give(job, attempt, link=link, ms=ms)

    @rule(link=LINKS, job=JOBS, attempt=ATTEMPTS)
    def broker_cancels(self, link: int, job: int, attempt: int) -> None:
        if self.on(link):
            self.world.cancel(job, attempt, link=link)

    @rule(link=LINKS, noise=st.binary(max_size=40), frames=st.integers(0, 3))
    def broker_babbles(self, link: int, noise: bytes, frames: int) -> None:
        if self.on(link):
            message = [noise, *[noise] * frames]
            self.world.do(self.world.core.broker_message, link, message, self.world.now)

    # The engines.

    @rule(slot=SLOTS)
    def engine_loads(self, slot: int) -> None:
        if self.runs(slot) and not self.world.slots[slot].killed:
            self.world.loaded(slot)

    @rule(slot=SLOTS, what=st.sampled_from(["begin", "chunk", "finish", "fail", "cancelled"]))
    def engine_works(self, slot: int, what: str) -> None:
        if not self.runs(slot) or self.world.slots[slot].job is None:
            return
        if what == "fail":
            self.world.fail(slot, EngineError("no"))
        elif what == "cancelled":
            self.world.fail(slot, Cancelled())
        else:
            getattr(self.world, what)(slot)

    @rule(slot=SLOTS, kind=st.sampled_from([wire.CHUNK, wire.DONE, wire.STARTED]), job=JOBS)
    def engine_says_something_stale(self, slot: int, kind: int, job: int) -> None:
        if self.runs(slot):
            envelope = pack_envelope(kind, job.to_bytes(16, "big"), 9)
            self.world.child(slot, [envelope, b"\x90"])

    @rule(slot=SLOTS)
    def engine_reports(self, slot: int) -> None:
        if self.runs(slot):
            self.world.child(slot, control.message(control.LEARNING))
            self.world.child(slot, control.message(control.REPORT, control.Report(["amber"])))

    @rule(slot=SLOTS)
    def engine_dies(self, slot: int) -> None:
        if self.runs(slot):
            self.world.die(slot)

    # Time and the operator.

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        if self.alive:
            self.world.tick(seconds)

    @precondition(lambda self: self.world.now > 110)
    @rule(now=st.booleans())
    def stopped(self, now: bool) -> None:
        if self.alive:
            core = self.world.core
            self.world.do(core.stop_now if now else core.stop, self.world.now)

    @invariant()
    def answers_match(self) -> None:
        self.collect()
        core = self.world.core
        for attempt, count in self.answered.items():
            # Cut off with its link, an attempt may be given again by the same number: one answer each time.
            assert count <= self.given[attempt], f"{attempt} answered {count} times"
        core.check_invariants()

    def teardown(self) -> None:
        """Whatever happened: everything still open can come to its end."""
        world = self.world
        if world.exit is None:
            world.do(world.core.stop, world.now)
        for _ in range(50):
            if world.exit is not None:
                break
            for number, slot in enumerate(world.slots):
                if world.exit is not None:
                    break
                if slot.running and slot.job is not None and not slot.killed:
                    world.finish(number)
                elif slot.running and (slot.killed or slot.told_to_go):
                    world.die(number, "exit code 0")
            if world.exit is None:
                world.tick(1.0)
        assert world.exit is not None, "a worker that was told to stop did not end"
        assert not world.core.desk.jobs
        assert all(link.state is LinkState.LEFT for link in world.core.links)
        assert all(job.state is not JobState.QUEUED for job in world.core.desk.jobs.values())


Machine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestMachine = Machine.TestCase
