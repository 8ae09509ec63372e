"""The kinds of fault, each over when its function returns.

A fault returns whether anything was hurt: one that found no victim is not counted, but tried again. Those
that last may run in a thread of their own while others strike, so a broker, a proxy or a cable is taken while
somebody breaks it: a broker cannot start on a full disk, and a proxy that swallowed must not pass again.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from tests.chaos.diary import read
from tests.chaos.proxy import Mode
from tests.chaos.stage import Broker, Stage
from tests.chaos.victims import Victim, child_of
from voicebus.client.processes import Child

DRAIN_S: Final = 60.0
NOTICED_S: Final = 8.0
"""A disk stays full until a client was refused for it, or for so long."""
LASTING: Final = frozenset(
    {
        "SIGSTOP broker", "SIGSTOP agent", "SIGSTOP engine", "SIGSTOP client", "throttled", "half-open",
        "disk full", "link down", "link lossy", "link slow",
    }
)  # fmt: skip
"""Kinds during which nothing ends for good: others may strike meanwhile."""
Fault = Callable[[], bool]
Thing = TypeVar("Thing")


class Faults:
    """Everything that can be done to a stage. No fault lasts much longer than `longest_s`."""

    def __init__(self, stage: Stage, longest_s: float) -> None:
        self._stage = stage
        self._chance = stage.chance
        self._longest_s = longest_s
        self.full: list[tuple[float, float]] = []
        "When a disk was full: from, until."
        self.unnoticed = 0
        "Full disks of which no client heard."
        self._taken: set[int] = set()
        self._changed = threading.Condition()

    def note(self, what: str, victim: Any) -> None:
        """Write down who is hurt next: beside the diaries, it tells what happened when."""
        name = getattr(victim, "name", None) or getattr(victim, "endpoint", None) or victim
        with open(self._stage.folder / "faults.log", "a") as file:
            file.write(f"{time.monotonic():.3f} {what} {name}\n")

    def kinds(self) -> dict[str, Fault]:
        """Every kind the stage has victims for, by name."""
        kinds: dict[str, Fault] = {
            "SIGKILL broker": self._kill_broker,
            "SIGKILL agent": self._kill_agent,
            "SIGKILL engine": self._kill_engine,
            "SIGKILL client": lambda: self._kill_client("plain"),
            "SIGKILL durable": lambda: self._kill_client("fetch", "named"),
            "SIGSTOP broker": self._stop_broker,
            "SIGSTOP agent": lambda: self._stop(self._stage.worker()),
            "SIGSTOP engine": self._stop_engine,
            "SIGSTOP client": lambda: self._stop(self._stage.talker()),
            "SIGTERM broker": self._drain_broker,
            "SIGTERM worker": self._drain_worker,
            "connection cut": self._cut,
            "throttled": self._throttle,
            "half-open": self._half_open,
            "disk full": self._fill_disk,
            "disk full, killed": self._fill_disk_and_kill,
        }
        if self._stage.spaces:
            kinds |= {"link down": self._pull, "link lossy": self._lose, "link slow": self._slow}
        return kinds

    def remarks(self) -> dict[str, str]:
        """How some kinds were done on this machine."""
        remarks = {
            "SIGKILL durable": "a client with durable jobs, which its successor fetches",
            "disk full": self._stage.brokers[0].disk.how
            + (f"; {self.unnoticed} times no client was refused" if self.unnoticed else ""),
            "disk full, killed": "and the broker killed while it was",
        }
        if self._stage.spaces:
            netem = self._stage.spaces[0].has_netem
            remarks["link lossy"] = (
                "netem" if netem else "pulled many times a second: this kernel has no netem"
            )
        return remarks

    def pause(self) -> None:
        """Leave the bus alone for a moment."""
        time.sleep(self._chance.uniform(0.02, 0.16) * self._longest_s)

    def _while(self, shortest: float = 0.04) -> float:
        return self._chance.uniform(shortest, 1.0) * self._longest_s

    @contextmanager
    def _one_of(self, things: Sequence[Thing]) -> Generator[Thing]:
        """One that nobody else is breaking; waits for one."""
        with self._changed:
            self._changed.wait_for(lambda: any(id(thing) not in self._taken for thing in things))
            thing = self._chance.choice([thing for thing in things if id(thing) not in self._taken])
            self._taken.add(id(thing))
        self.note("takes", thing)
        try:
            yield thing
        finally:
            with self._changed:
                self._taken.discard(id(thing))
                self._changed.notify_all()
            self.note("leaves", thing)

    # ---- processes

    def _kill_broker(self) -> bool:
        with self._one_of(self._stage.brokers) as broker:
            self._stage.totals.add(broker.frontend)
            broker.child.kill()
            time.sleep(self._chance.uniform(0, 0.3) * self._longest_s)
            broker.start()
        return True

    def _stop_broker(self) -> bool:
        with self._one_of(self._stage.brokers) as broker:
            return self._stop(broker.child)

    def _drain_broker(self) -> bool:
        with self._one_of(self._stage.brokers) as broker:
            self._stage.totals.add(broker.frontend)
            code = broker.child.end(DRAIN_S)
            if code:
                self._stage.findings.append(f"{broker.name} drained with exit code {code}")
            broker.start()
        return True

    def _kill_agent(self) -> bool:
        worker = self._stage.worker()
        self.note("kills", worker)
        worker.kill()
        self._stage.start_worker(worker.name)
        return True

    def _drain_worker(self) -> bool:
        worker = self._stage.worker()
        self.note("drains", worker)
        code = worker.end(DRAIN_S)
        if code:
            self._stage.findings.append(f"{worker.name} drained with exit code {code}")
        self._stage.start_worker(worker.name)
        return True

    def _kill_engine(self) -> bool:
        with self._engine() as engine:
            return engine is not None and engine.signal(signal.SIGKILL)

    def _stop_engine(self) -> bool:
        with self._engine() as engine:
            return engine is not None and engine.stop(self._while())

    @contextmanager
    def _engine(self) -> Generator[Victim | None]:
        worker = self._stage.worker()
        with child_of(worker.pid, self._chance.randrange(8)) as engine:
            self.note("takes an engine of", worker)
            yield engine
            self.note("leaves an engine of", worker)

    def _kill_client(self, *roles: str) -> bool:
        talker = self._stage.talker(*roles)
        self.note("kills", talker)
        talker.kill()
        return True

    def _stop(self, child: Child) -> bool:
        with Victim(child.pid) as victim:
            self.note("stops", child)
            stopped = victim.stop(self._while())
            self.note("continues", child)
            return stopped

    # ---- connections

    def _cut(self) -> bool:
        with self._one_of(self._stage.proxies) as proxy:
            proxy.cut()
        return True

    def _throttle(self) -> bool:
        with self._one_of(self._stage.proxies) as proxy:
            proxy.mode = Mode.THROTTLE
            time.sleep(self._while(0.1) * 0.6)
            proxy.mode = Mode.PASS
        return True

    def _half_open(self) -> bool:
        with self._one_of(self._stage.proxies) as proxy:
            proxy.mode = Mode.SWALLOW
            time.sleep(self._while(0.1))
            proxy.cut()
        return True

    # ---- networks and disks

    def _pull(self) -> bool:
        with self._one_of(self._stage.spaces) as space:
            space.pull(self._while(0.1), self._chance)
        return True

    def _lose(self) -> bool:
        with self._one_of(self._stage.spaces) as space:
            space.lose(self._while(0.3))
        return True

    def _slow(self) -> bool:
        with self._one_of(self._stage.spaces) as space:
            space.slow(self._while(0.3))
        return True

    def _fill_disk(self) -> bool:
        with self._one_of(self._stage.brokers) as broker:
            self._full(broker, broker.child.pid)
        return True

    def _fill_disk_and_kill(self) -> bool:
        """What a broker could write half of only, it has to make sense of when it starts again."""
        with self._one_of(self._stage.brokers) as broker:
            self._stage.totals.add(broker.frontend)
            self._full(broker, broker.child.pid, broker.child.kill)
            broker.start()
        return True

    def _full(self, broker: Broker, pid: int, last: Callable[[], object] = bool) -> None:
        """Fill a disk until that was noticed, do the last thing, and make room again."""
        refused = self._refusals()
        since = time.monotonic()
        broker.disk.fill(pid)
        try:
            time.sleep(self._while(0.2))
            while self._refusals() == refused and time.monotonic() < since + NOTICED_S:
                time.sleep(0.1)
            last()
        finally:
            broker.disk.free(pid)
            self.full.append((since, time.monotonic()))
        self.unnoticed += self._refusals() == refused

    def _refusals(self) -> int:
        return sum(
            row.what == "refused" for name in self._stage.clients for row in read(self._stage.diary(name))
        )
