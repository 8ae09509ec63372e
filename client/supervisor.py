"""What `vc up` does: starts the processes of a bus, keeps them running, and ends them in order.

The broker comes first, as it knows its real ports. A child that ends before it was ever ready stops the
start, with the child's own error: a missing model or a taken port does not mend itself. One that ends later
is started again, after a pause that grows while it keeps failing. Everything waits on one event, set by the
children's threads and by signals, so a Ctrl-C is acted on at any point.
"""

from __future__ import annotations

import importlib.metadata
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from ..common.errors import EngineError
from ..common.printable import printable
from .launch import READY_S, WorkerPlan, broker_command, endpoints, worker_command
from .processes import Child

if TYPE_CHECKING:
    from types import FrameType

    from ..common.config import Config

RESTART_FIRST_S: Final = 0.5
RESTART_MOST_S: Final = 30.0
STEADY_S: Final = 60.0
"""A child that ran this long has its failures forgotten."""
BROKER_END_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `drain_s` bounds how long workers may take to finish what they began."""

    workers: Sequence[WorkerPlan]
    edge: str | None = None
    drain_s: float = 60.0


@dataclass(slots=True)
class _Service:
    name: str
    command: Callable[[], list[str]]
    ready: str
    child: Child | None = None
    was_ready: bool = False
    left: bool = False
    failures: int = 0
    started_at: float = 0.0
    start_at: float = 0.0


def plans(config: Config, engines: Sequence[str] = ()) -> Plan:
    """The processes of a configuration; `engines` names the only workers wanted."""
    host = socket.gethostname()
    counts = {name: section.count for name, section in config.workers.items()}
    if engines:
        counts = {name: max(1, counts.get(name, 1)) for name in dict.fromkeys(engines)}
    workers = [
        WorkerPlan(engine, f"{host}-{engine}-{number}")
        for engine, count in counts.items()
        for number in range(1, count + 1)
    ]
    return Plan(workers, edge_module() if config.edge.enabled else None, config.broker.drain_timeout_s)


def edge_module() -> str | None:
    """The module behind `vc-edge`, where the installed voicebus has one."""
    for script in importlib.metadata.entry_points(group="console_scripts", name="vc-edge"):
        return script.module
    return None


class Supervisor:
    """Runs a plan until it is told to stop. `say` takes lines for the terminal."""

    def __init__(self, plan: Plan, config_file: str | None, say: Callable[[str], object]) -> None:
        self._plan = plan
        self._say = say
        self._options = ("--config", config_file) if config_file else ()
        self._news = threading.Event()
        self._stops = 0
        self._frontend = self._backend = ""
        self._announced = False
        self._say_lock = threading.Lock()
        broker = _Service("broker", lambda: broker_command(self._options), "vc-broker ready")
        self._broker = broker
        self._others = [
            _Service(
                worker.name,
                lambda worker=worker: worker_command(worker, self._backend, self._options),
                "vc-worker ready",
            )
            for worker in plan.workers
        ]
        if plan.edge:
            self._others.append(_Service("edge", self._edge_command, "vc-edge ready"))

    def run(self) -> int:
        """Start, watch, and end everything. Returns 0; raises the error of a child that cannot start."""
        # SIGHUP too: a closed terminal must not leave the children behind.
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            self._watch()
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)
        return 0

    # -- running ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        begun_at = time.monotonic()
        while not self._stops:
            now = time.monotonic()
            next_at = self._look_after(self._broker, now)
            if self._broker.was_ready:
                for service in self._others:
                    next_at = min(next_at, self._look_after(service, now))
            if not self._announced:
                next_at = min(next_at, begun_at + READY_S)
                self._announce(now - begun_at)
            self._news.wait(None if next_at == inf else max(0.0, next_at - time.monotonic()))
            self._news.clear()

    def _look_after(self, service: _Service, now: float) -> float:
        """Start, restart or note a service. Returns when to look again."""
        child = service.child
        if child is None:
            if service.left:
                return inf
            if now < service.start_at:
                return service.start_at
            self._start(service, now)
            return inf
        if child.ready_line is not None and not service.was_ready:
            service.was_ready = True
            if service is self._broker:
                self._frontend, self._backend = endpoints(child.ready_line)
        if not child.ended:
            return inf
        if not service.was_ready:
            raise child.error()
        service.child = None
        if child.exit_code == 0 and service is not self._broker:
            self._line("vc up", f"{service.name} has left")
            service.left = True
            return inf
        if now - service.started_at >= STEADY_S:
            service.failures = 0
        pause_s = min(RESTART_MOST_S, RESTART_FIRST_S * 2**service.failures)
        service.failures += 1
        service.start_at = now + pause_s
        self._line("vc up", f"{child.error().message}; starting {service.name} again in {pause_s:g} s")
        return service.start_at

    def _start(self, service: _Service, now: float) -> None:
        service.started_at = now
        command = service.command()
        if service is self._broker and self._frontend:
            # Again at the same ports, or nobody would find it.
            command += ["--frontend", self._frontend, "--backend", self._backend]
        service.child = Child(
            service.name,
            command,
            service.ready,
            on_line=lambda child, line: self._line(child.name, line),
            on_change=self._news.set,
            bound=True,
        )

    def _announce(self, after_s: float) -> None:
        waiting = [service.name for service in self._others if not (service.was_ready or service.left)]
        if self._broker.was_ready and not waiting:
            self._announced = True
            engines: dict[str, int] = {}
            for worker in self._plan.workers:
                engines[worker.engine] = engines.get(worker.engine, 0) + 1
            workers = ", ".join(f"{count} x {engine}" for engine, count in engines.items()) or "no workers"
            self._say(f"voicebus ready: {self._frontend} ({workers})")
        elif after_s >= READY_S:
            late = ", ".join(waiting) or "the broker"
            raise EngineError(f"{late} was not ready within {READY_S:g} s: see its lines above")

    def _edge_command(self) -> list[str]:
        edge = self._plan.edge or ""
        return [sys.executable, "-m", edge, "--broker", self._frontend, *self._options]

    # -- ending -------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Workers and edge first, then the broker; at once on a second signal."""
        others = [service.child for service in self._others if service.child is not None]
        broker = [self._broker.child] if self._broker.child is not None else []
        if self._stops and self._announced and any(not child.ended for child in others):
            self._line("vc up", "draining; Ctrl-C again ends everything at once")
        self._end_all(others, self._plan.drain_s)
        self._end_all(broker, BROKER_END_S)

    def _end_all(self, children: Sequence[Child], patience_s: float) -> None:
        for child in children:
            child.signal(signal.SIGTERM)
        until = time.monotonic() + patience_s
        while any(not child.ended for child in children):
            left_s = until - time.monotonic()
            if self._stops > 1 or left_s <= 0:
                for child in children:
                    child.kill()
                return
            self._news.wait(left_s)
            self._news.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stops += 1
        self._news.set()

    def _line(self, name: str, line: str) -> None:
        with self._say_lock:
            # A child prints what libraries do, and those what they were given.
            self._say(f"[{name}] {printable(line)}")
