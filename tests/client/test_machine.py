"""The client's core under any order of losses, repeats, lost workers and dying brokers.

Whatever happens, what a listener hears is a beginning of the job's true audio, a job that ends well has all
of it, whether it was heard as it was spoken or fetched, and every job ends once.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from voicebus.client.brokers import LineState
from voicebus.client.task import Task
from voicebus.common import wire

from .model import Broker, BrokerJob, Desk, true_audio

pick = st.integers(0, 1000)
kinds = st.sampled_from(["plain", "plain", "stream", "listening", "durable", "durable", "sought", "fetched"])


class ClientMachine(RuleBasedStateMachine):
    desk: Desk

    @initialize(brokers=st.integers(1, 2), seed=pick, kinds=st.lists(kinds, min_size=2, max_size=5))
    def begin(self, brokers: int, seed: int, kinds: list[str]) -> None:
        self.desk = Desk(brokers, seed)
        for kind in kinds:
            self.submit(kind, 60.0)
        for number in range(brokers):
            self.desk.deliver(number)

    def broker(self, n: int) -> Broker:
        return self.desk.brokers[n % len(self.desk.brokers)]

    def line(self, n: int) -> int:
        return n % len(self.desk.brokers)

    @rule(kind=kinds, deadline_s=st.sampled_from([3.0, 60.0]), n=pick, known=st.booleans())
    def submit(self, kind: str, deadline_s: float, n: int = 0, known: bool = True) -> None:
        """`known`: an earlier client's job, under way or ended at one of the brokers, or one of our own."""
        if kind in ("sought", "fetched"):
            job = self.desk.new_id()
            broker = self.broker(n)
            if known:
                broker.jobs[job] = BrokerJob(False, durable=True, listened=False)
            if known and n % 3 == 0:
                broker.end(job, "done" if n % 2 else "engine_error")
            own = [task.job for task in self.desk.tasks]
            if kind == "fetched":
                self.desk.fetch(own[n % len(own)] if n % 3 == 1 and own else job)
            else:
                self.desk.submit(durable=True, seeks=True, job=job, deadline_s=deadline_s)
            return
        self.desk.submit(
            listening=kind == "listening",
            stream=kind == "stream",
            durable=kind == "durable",
            deadline_s=deadline_s,
        )

    @rule(n=pick, times=st.integers(1, 8))
    def deliver(self, n: int, times: int) -> None:
        for _ in range(times):
            self.desk.deliver(self.line(n))

    @rule(n=pick, at=pick)
    def lose(self, n: int, at: int) -> None:
        queue = self.broker(n).queue
        if queue:
            queue.pop(at % len(queue))
            self.deliver(n, len(queue))

    @rule(n=pick, at=pick)
    def repeat(self, n: int, at: int) -> None:
        queue = self.broker(n).queue
        if queue:
            late = queue[at % len(queue)]
            self.deliver(n, at % len(queue) + 1)
            queue.append(late)

    @rule(n=pick, at=pick)
    def overtake(self, n: int, at: int) -> None:
        queue = self.broker(n).queue
        if queue:
            self.desk.deliver(self.line(n), at % len(queue))

    @rule(n=pick, which=pick)
    def start(self, n: int, which: int) -> None:
        broker = self.broker(n)
        if broker.jobs:
            broker.start(list(broker.jobs)[which % len(broker.jobs)])

    @rule(n=pick, which=pick, times=st.integers(1, 5))
    def speak(self, n: int, which: int, times: int) -> None:
        broker = self.broker(n)
        for _ in range(times):
            running = [job for job, state in broker.jobs.items() if state.running]
            if running:
                broker.speak(running[which % len(running)])

    @rule(n=pick, chunks=st.integers(1, 10), hurry=st.integers(0, 20))
    def work(self, n: int, chunks: int, hurry: int) -> None:
        """What a bus mostly does: without it, chance would hardly ever finish a job."""
        broker = self.broker(n)
        for _ in range(chunks):
            for job in list(broker.jobs):
                if broker.jobs[job].running:
                    broker.speak(job)
                else:
                    broker.start(job)
        self.deliver(n, hurry)

    @rule(n=pick, which=pick, code=st.sampled_from(["overloaded", "worker_lost", "engine_error"]))
    def fail(self, n: int, which: int, code: str) -> None:
        broker = self.broker(n)
        if broker.jobs:
            broker.fail(list(broker.jobs)[which % len(broker.jobs)], code)

    @rule(which=pick)
    def listen(self, which: int) -> None:
        streams = [task for task in self.desk.tasks if task.flags & wire.STREAM and not task.ended]
        if streams:
            self.desk.core.listen(streams[which % len(streams)])
            self.desk.flush()

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 1.5]))
    def tick(self, seconds: float) -> None:
        self.desk.tick(seconds)

    @rule(n=pick, times=st.integers(1, 3))
    def refuse_readers(self, n: int, times: int) -> None:
        self.broker(n).busy += times

    @rule(
        what=st.sampled_from(["cancel", "leave", "crash", "revive", "disconnect", "cut off", "forget"]),
        n=pick,
    )
    def mishap(self, what: str, n: int) -> None:
        """One rule for all of them: each ends jobs, and too many of them leave nothing to look at."""
        line = self.desk.core.lines[self.line(n)]
        if what in ("cancel", "leave"):
            task = self.desk.tasks[n % len(self.desk.tasks)]
            (self.desk.core.cancel if what == "cancel" else self.desk.core.leave)(task)
        elif what == "cut off":
            self.broker(n).cut_off()
        elif what == "forget":
            self.broker(n).forget()
        elif what == "crash":
            self.broker(n).crash()
        elif what == "revive":
            self.broker(n).alive = True
        elif line.state is LineState.UP:
            self.broker(n).connection_lost()
            self.desk.core.disconnected(line, self.desk.now)
        self.desk.flush()

    @invariant()
    def heard_is_true(self) -> None:
        if hasattr(self, "desk"):
            for task in self.desk.tasks:
                check(self.desk, task)

    def teardown(self) -> None:
        if hasattr(self, "desk"):
            self.desk.settle()
            for task in self.desk.tasks:
                check(self.desk, task)
                assert self.desk.ends[id(task)] == 1
            assert not self.desk.core.tasks


def check(desk: Desk, task: Task) -> None:
    audio = [chunk for segment in true_audio(task.job) for chunk in segment]
    heard = desk.heard.get(id(task), [])
    assert heard == audio[: len(heard)], "what is heard is the beginning of the truth"
    if task.ended and task.error is None:
        assert desk.audio_of(task) == audio, "a job that ended well has all its audio"


ClientMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestClientMachine = ClientMachine.TestCase
