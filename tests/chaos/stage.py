"""Everything that runs: two brokers behind proxies, workers and clients, some of them in namespaces.

The proxies stay when what is behind them is killed, so addresses last for the whole run. Processes that end
without having been killed are remembered: that is a finding, whatever the accounts say.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.chaos import sandbox
from tests.chaos.disk import Disk, Limit, Tmpfs
from tests.chaos.namespaces import Namespace
from tests.chaos.proxy import Proxy
from tests.chaos.totals import Totals
from voicebus.client.launch import WorkerPlan, broker_command, endpoints, worker_command
from voicebus.client.processes import Child

READY_S: Final = 60.0
PACE: Final = {"seconds_per_char": 0.002, "realtime_factor": 1.0}
CONFIG: Final[dict[str, Any]] = {
    "logging": {"file": None, "level": "ERROR"},
    "broker": {
        "default_engine": "tone",
        "heartbeat_interval_s": 0.25,
        "client_timeout_s": 4.0,
        "progress_lease_s": 3.0,
        # Faults come far closer together than they do in life: a job may meet several.
        "max_attempts": 8,
    },
    "workers": {"tone": {"heartbeat_interval_s": 0.25}},
}


@dataclass(frozen=True, slots=True)
class Cast:
    """Who is on the stage: local workers and clients, by role. Those in namespaces come on top."""

    workers: int = 4
    clients: tuple[str, ...] = ("plain", "plain", "fetch", "named")


class Broker:
    """A broker behind two proxies, with a disk of its own."""

    def __init__(self, name: str, folder: Path, *, mounts: bool, trace: bool) -> None:
        self.name = name
        self._bound = not mounts
        self._folder = folder
        self._config = folder / f"{name}.yaml"
        self.journal = folder / f"{name}-journal"
        self.disk: Disk = Tmpfs(self.journal) if mounts else Limit(self.journal)
        own = {**CONFIG, "broker": {**CONFIG["broker"], "name": name, "journal": str(self.journal)}}
        if trace:
            own["logging"] = {"file": str(folder / f"{name}.log"), "level": "INFO"}
        self._config.write_text(json.dumps(own))
        self.frontend = self.backend = "tcp://127.0.0.1:*"
        self.start()
        self.front, self.back = Proxy(_address(self.frontend)), Proxy(_address(self.backend))

    def start(self) -> None:
        """Start it, or start it again at the same addresses."""
        ends = ("--frontend", self.frontend, "--backend", self.backend)
        command = broker_command(("--config", str(self._config), *ends))
        self.child = Child(
            self.name, command, "vc-broker ready", on_line=_written(self._folder), bound=self._bound
        )
        self.frontend, self.backend = endpoints(self.child.wait_ready(READY_S))


class Far:
    """What the brokers are behind one namespace's cable."""

    def __init__(self, space: Namespace, targets: list[str]) -> None:
        self.space = space
        self.proxies = [Proxy(_address(target), space.near) for target in targets]


class Stage:
    """The whole bus. `without` says why there are no namespaces, if so."""

    def __init__(self, folder: Path, cast: Cast, chance: random.Random, without: str, *, trace: bool) -> None:
        self.folder = folder
        self.chance = chance
        self.totals = Totals()
        self._bound = bool(without)
        "Without a process namespace, whoever runs must be told to end when the run is killed."
        self.findings: list[str] = []
        "What the accounts do not show: processes that ended, but not by our hand."
        self.spaces: list[Namespace] = []
        self.proxies: list[Proxy] = []
        self.brokers: list[Broker] = []
        self.workers: dict[str, Child] = {}
        self.talkers: dict[str, Child] = {}
        self.lives: dict[str, int] = defaultdict(int)
        self._roles: dict[str, str] = {}
        self._paths: dict[str, tuple[tuple[str, ...], str]] = {}
        "By worker or client: what to put before its command, and the brokers' addresses as it sees them."
        self._config = folder / "workers.yaml"
        self._config.write_text(json.dumps(CONFIG))
        try:
            self._set(cast, mounts=not without, trace=trace)
        except BaseException:
            self.close()
            raise

    def _set(self, cast: Cast, *, mounts: bool, trace: bool) -> None:
        if mounts:
            sandbox.set_up()
        for letter in "ab":
            broker = Broker(f"broker-{letter}", self.folder, mounts=mounts, trace=trace)
            self.brokers.append(broker)
            self.proxies += (broker.front, broker.back)
        workers: dict[str, tuple[tuple[str, ...], list[Proxy]]]
        workers = {f"tone-{number}": ((), self.proxies[1::2]) for number in range(cast.workers)}
        clients: dict[str, tuple[tuple[str, ...], list[Proxy]]]
        clients = {f"{role}-{number}": ((), self.proxies[::2]) for number, role in enumerate(cast.clients)}
        if mounts:
            worker, client = Namespace("far-worker", 0), Namespace("far-client", 1)
            self.spaces = [worker, client]
            backs = Far(worker, [broker.backend for broker in self.brokers])
            fronts = Far(client, [broker.frontend for broker in self.brokers])
            workers["tone-far"] = (worker.prefix, backs.proxies)
            clients["fetch-far"] = (client.prefix, fronts.proxies)
            self.proxies += (*backs.proxies, *fronts.proxies)
        for name, (prefix, proxies) in (workers | clients).items():
            self._paths[name] = (prefix, ",".join(proxy.endpoint for proxy in proxies))
        self._roles = {name: name.partition("-")[0] for name in clients}
        for name in workers:
            self.start_worker(name)
        for worker in self.workers.values():
            worker.wait_ready(READY_S)

    @property
    def clients(self) -> list[str]:
        """The names of the clients, whoever bears them at the moment."""
        return list(self._roles)

    @property
    def enough(self) -> Path:
        """The file that tells clients to come to an end."""
        return self.folder / "enough"

    def diary(self, client: str) -> Path:
        """Where a client writes."""
        return self.folder / f"{client}.diary"

    def start_worker(self, name: str) -> None:
        """Start a worker, or the next one of that name."""
        prefix, backends = self._paths[name]
        pairs = tuple(f"--set={key}={value}" for key, value in PACE.items())
        plan = WorkerPlan("tone", name, ("--slots", "2", *pairs))
        command = [*prefix, *worker_command(plan, backends, ("--config", str(self._config)))]
        self.workers[name] = Child(
            name, command, "vc-worker ready", on_line=_written(self.folder), bound=self._bound
        )

    def start_talker(self, name: str, least: int) -> None:
        """Start a client, or its successor."""
        prefix, frontends = self._paths[name]
        self.lives[name] += 1
        arguments = [self._roles[name], frontends, str(self.diary(name)), name, str(self.lives[name])]
        command = [
            *prefix,
            sys.executable,
            "-m",
            "tests.chaos.talker",
            *arguments,
            str(least),
            str(self.enough),
        ]
        self.talkers[name] = Child(
            name, command, "talker ready", on_line=_written(self.folder), bound=self._bound
        )

    def replace(self, least: int) -> None:
        """Give a killed client a successor, and note who ended without having been killed."""
        for name, talker in list(self.talkers.items()):
            if talker.exit_code == -signal.SIGKILL:
                self.start_talker(name, least)
            elif talker.exit_code not in (None, 0):
                self._mourn(talker)
                self.start_talker(name, least)
        for name, worker in list(self.workers.items()):
            if worker.exit_code is not None:
                self._mourn(worker)
                self.start_worker(name)
        for broker in self.brokers:
            if broker.child.exit_code is not None:
                self._mourn(broker.child)
                broker.start()

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for child in (
            *self.talkers.values(), *self.workers.values(), *(broker.child for broker in self.brokers)
        ):  # fmt: skip
            child.signal(signal.SIGCONT)
            child.kill()
        for proxy in self.proxies:
            proxy.close()

    def _mourn(self, child: Child) -> None:
        self.findings.append(f"{child.name} ended by itself with exit code {child.exit_code}")

    # ---- choosing

    def worker(self) -> Child:
        """One of the workers that are ready; waits for one."""
        return self._ready(self.workers)

    def talker(self, *roles: str) -> Child:
        """One of the clients that have begun, of one of these roles; of any, without."""
        return self._ready(
            {name: talker for name, talker in self.talkers.items() if not roles or self._roles[name] in roles}
        )

    def _ready(self, children: dict[str, Child]) -> Child:
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            ready = [c for c in children.values() if c.ready_line is not None and c.exit_code is None]
            if ready:
                return self.chance.choice(ready)
            time.sleep(0.05)
        raise TimeoutError(f"none of {', '.join(children)} became ready within {READY_S:g} s")


def _address(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def _written(folder: Path) -> Any:
    """Keep what a process prints: on failure that is all there is to go by."""

    def write(child: Child, line: str) -> None:
        with open(folder / f"{child.name}.out", "a") as file:
            file.write(f"{time.monotonic():.3f} {child.pid} {line}\n")

    return write
