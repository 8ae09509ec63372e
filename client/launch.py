"""A whole bus as child processes: for `vc up`, demonstrations, benchmarks and tests.

    with Bus(engines={"tone": 2}) as bus, Client(bus.frontend) as client:
        client.say("Hello.", engine="tone")

The ports are free ones unless chosen. Entering waits for the broker's and every worker's ready line; leaving
ends workers first, so that nothing is lost, then the broker.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

from ..common.errors import ConfigError, EngineError
from .processes import Child, LineHandler

ANY_PORT: Final = "tcp://127.0.0.1:*"
READY_S: Final = 120.0
"""Loading a model takes a while on a cold disk."""
END_S: Final = 10.0
_ENDPOINTS = re.compile(r"frontend=(\S+) backend=(\S+)")


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One worker process to start: its engine, name on the bus and command line."""

    engine: str
    name: str
    arguments: tuple[str, ...] = ()


def broker_command(arguments: tuple[str, ...] = ()) -> list[str]:
    """The command line of a broker in this interpreter."""
    return [sys.executable, "-m", "voicebus.broker.cli", *arguments]


def worker_command(plan: WorkerPlan, backend: str, arguments: tuple[str, ...] = ()) -> list[str]:
    """The command line of a worker in this interpreter."""
    return [
        *(sys.executable, "-m", "voicebus.workers.cli", plan.engine),
        *("--broker", backend, "--id", plan.name),
        *arguments,
        *plan.arguments,
    ]


def endpoints(ready_line: str) -> tuple[str, str]:
    """Frontend and backend out of a broker's ready line."""
    found = _ENDPOINTS.search(ready_line)
    if found is None:
        raise EngineError(f"the broker's ready line names no addresses: {ready_line}")
    return found[1], found[2]


class Bus:
    """A broker and workers on loopback, for as long as the `with` block runs.

    `engines` maps an engine to its number of workers. `settings` go to the engines: for all of them, or by
    engine name. `config` is the rest of config.yaml, such as `{"broker": {"strategy": "least_load"}}`.
    `slots` is the number of engines in each worker. Raises what a child that does not start says.
    Where the process is killed, its bus ends too, if the main thread started it and the system is Linux.
    """

    def __init__(
        self,
        engines: Mapping[str, int] | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        slots: int = 1,
        frontend: str = ANY_PORT,
        backend: str = ANY_PORT,
        environ: Mapping[str, str] | None = None,
        ready_timeout_s: float = READY_S,
        on_line: LineHandler | None = None,
    ) -> None:
        self._engines = dict({"tone": 1} if engines is None else engines)
        self._settings = dict(settings or {})
        self._config = dict(config or {})
        self._slots = slots
        self._environ = environ
        self._ready_timeout_s = ready_timeout_s
        self._on_line = on_line
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._names = count()
        self.frontend = frontend
        self.backend = backend
        self.broker: Child | None = None
        self.workers: list[Child] = []

    def __enter__(self) -> Bus:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def config_file(self) -> Path:
        """The config.yaml the processes read."""
        if self._folder is None:
            raise ConfigError("the bus is not running: use it in a `with` block")
        return Path(self._folder.name, "config.yaml")

    def start_broker(self) -> Child:
        """Start the broker, or start it again at the same addresses after `kill_broker`."""
        self.broker = Child(
            "broker",
            broker_command(
                ("--config", str(self.config_file), "--frontend", self.frontend, "--backend", self.backend)
            ),
            "vc-broker ready",
            environ=self._environ,
            on_line=self._on_line,
            bound=_lasts(),
        )
        self.frontend, self.backend = endpoints(self.broker.wait_ready(self._ready_timeout_s))
        return self.broker

    def start_worker(
        self,
        engine: str = "tone",
        *,
        name: str | None = None,
        wait: bool = True,
        settings: Mapping[str, Any] | None = None,
    ) -> int:
        """Start one more worker and return its number in `workers`."""
        number = next(self._names)
        chosen = {**self._settings_of(engine), **(settings or {})}
        pairs = tuple(f"--set={key}={json.dumps(value)}" for key, value in chosen.items())
        plan = WorkerPlan(engine, name or f"{engine}-{number}", ("--slots", str(self._slots), *pairs))
        child = Child(
            plan.name,
            worker_command(plan, self.backend, ("--config", str(self.config_file))),
            "vc-worker ready",
            environ=self._environ,
            on_line=self._on_line,
            bound=_lasts(),
        )
        self.workers.append(child)
        if wait:
            child.wait_ready(self._ready_timeout_s)
        return len(self.workers) - 1

    def kill_worker(self, number: int) -> None:
        """SIGKILL a worker."""
        self.workers[number].kill()

    def stop_worker(self, number: int, patience_s: float = END_S) -> int:
        """SIGTERM a worker and return its exit code: 0 when it drained."""
        return self.workers[number].end(patience_s)

    def kill_broker(self) -> None:
        """SIGKILL the broker."""
        if self.broker is not None:
            self.broker.kill()

    def close(self) -> None:
        """End all that is left: workers first. Idempotent."""
        for child in self.workers:
            child.signal(signal.SIGTERM)
        for child in self.workers:
            child.end(END_S)
        if self.broker is not None:
            self.broker.end(END_S)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="voicebus-")
        quiet = {"logging": {"file": None, "level": "WARNING"}}
        # YAML is a superset of JSON.
        self.config_file.write_text(json.dumps({**quiet, **self._config}), encoding="utf-8")
        self.start_broker()
        numbers = [
            self.start_worker(engine, wait=False)
            for engine, workers in self._engines.items()
            for _ in range(workers)
        ]
        for number in numbers:
            self.workers[number].wait_ready(self._ready_timeout_s)

    def _settings_of(self, engine: str) -> Mapping[str, Any]:
        if any(name in self._settings for name in self._engines):
            return cast("Mapping[str, Any]", self._settings.get(engine) or {})
        return self._settings


def _lasts() -> bool:
    """Whether this thread is there for as long as the process: its end is taken for that of the process."""
    return threading.current_thread() is threading.main_thread()
