"""Chaos on real processes: two brokers, four workers, clients, and somebody who breaks them.

    python -m tests.chaos [--jobs 5000] [--faults 40] [--seed 1]

Accounting as in Jepsen: every line a client was given must come back once, as the audio of that very line,
however often processes are killed or stopped and connections cut, slowed down or swallowed. A client that is
killed is replaced by one that speaks what its log does not hold. Ends with 1 if anything was lost, answered
twice, wrong, or failed.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from tests.chaos.accounts import Accounts
from tests.chaos.proxy import Mode, Proxy
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
        "max_attempts": 8,
    },
    "workers": {"tone": {"heartbeat_interval_s": 0.25}},
}


def address(endpoint: str) -> tuple[str, int]:
    """Host and port of tcp://host:port."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)


class Broker:
    """A broker behind two proxies, which stay when it is killed and started again."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._config = folder / f"{name}.yaml"
        own = {**CONFIG, "broker": {**CONFIG["broker"], "name": name, "journal": str(folder / name)}}
        self._config.write_text(json.dumps(own))
        self._frontend = self._backend = "tcp://127.0.0.1:*"
        self.start()
        self.front, self.back = Proxy(address(self._frontend)), Proxy(address(self._backend))

    def start(self) -> None:
        ends = ("--frontend", self._frontend, "--backend", self._backend)
        command = broker_command(("--config", str(self._config), *ends))
        self.child = Child(self.name, command, "vc-broker ready")
        self._frontend, self._backend = endpoints(self.child.wait_ready(READY_S))


class Stage:
    """Everything that runs, and how to break it."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self.brokers = [Broker(f"broker-{letter}", folder) for letter in "ab"]
        self._config = folder / "workers.yaml"
        self._config.write_text(json.dumps(CONFIG))
        self.workers = [self._worker(f"tone-{number}") for number in range(4)]
        for worker in self.workers:
            worker.wait_ready(READY_S)
        self.proxies = [proxy for broker in self.brokers for proxy in (broker.front, broker.back)]
        self.talkers: dict[str, Child] = {}

    def _worker(self, name: str) -> Child:
        backends = ",".join(broker.back.endpoint for broker in self.brokers) if self.brokers else ""
        pairs = tuple(f"--set={key}={value}" for key, value in PACE.items())
        plan = WorkerPlan("tone", name, ("--slots", "2", *pairs))
        return Child(name, worker_command(plan, backends, ("--config", str(self._config))), "vc-worker ready")

    def talk(self, name: str, first: int, last: int) -> None:
        frontends = ",".join(broker.front.endpoint for broker in self.brokers)
        log = str(self.folder / f"{name}.log")
        command = [sys.executable, "-m", "tests.chaos.talker", frontends, log, name, str(first), str(last)]
        self.talkers[name] = Child(name, command, "talker ready")

    def close(self) -> None:
        for child in (*self.talkers.values(), *self.workers, *(broker.child for broker in self.brokers)):
            child.signal(signal.SIGCONT)
            child.kill()
        for proxy in self.proxies:
            proxy.close()

    # ---- faults: each is over when its function returns

    def kill_broker(self) -> None:
        broker = self.chance.choice(self.brokers)
        broker.child.kill()
        time.sleep(self.chance.uniform(0, 1.5))
        broker.start()

    def kill_agent(self) -> None:
        number = self.chance.randrange(len(self.workers))
        name = self.workers[number].name
        self.workers[number].kill()
        self.workers[number] = self._worker(name)

    def kill_engine(self) -> None:
        engines = _children(self.chance.choice(self.workers).pid)
        if engines:
            _signal(self.chance.choice(engines), signal.SIGKILL)

    def drain_worker(self) -> None:
        number = self.chance.randrange(len(self.workers))
        name = self.workers[number].name
        self.workers[number].end(30)
        self.workers[number] = self._worker(name)

    def stop_broker(self) -> None:
        self._stop(self.chance.choice(self.brokers).child.pid)

    def stop_agent(self) -> None:
        self._stop(self.chance.choice(self.workers).pid)

    def stop_engine(self) -> None:
        engines = _children(self.chance.choice(self.workers).pid)
        if engines:
            self._stop(self.chance.choice(engines))

    def stop_client(self) -> None:
        self._stop(self.chance.choice(list(self.talkers.values())).pid)

    def kill_client(self) -> None:
        self.chance.choice(list(self.talkers.values())).kill()

    def cut(self) -> None:
        self.chance.choice(self.proxies).cut()

    def throttle(self) -> None:
        self._network(Mode.THROTTLE)

    def half_open(self) -> None:
        self._network(Mode.SWALLOW)

    def _network(self, mode: Mode) -> None:
        proxy = self.chance.choice(self.proxies)
        proxy.mode = mode
        time.sleep(self.chance.uniform(0.3, 2.5))
        if mode is Mode.SWALLOW:
            proxy.cut()
        else:
            proxy.mode = Mode.PASS

    def _stop(self, pid: int) -> None:
        if _signal(pid, signal.SIGSTOP):
            time.sleep(self.chance.uniform(0.2, 5.0))
            _signal(pid, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _signal(pid: int, number: signal.Signals) -> bool:
    import os

    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def faults_of(stage: Stage) -> dict[str, Callable[[], None]]:
    """Every kind of fault, by name."""
    return {
        "SIGKILL broker": stage.kill_broker,
        "SIGKILL agent": stage.kill_agent,
        "SIGKILL engine": stage.kill_engine,
        "SIGKILL client": stage.kill_client,
        "SIGSTOP broker": stage.stop_broker,
        "SIGSTOP agent": stage.stop_agent,
        "SIGSTOP engine": stage.stop_engine,
        "SIGSTOP client": stage.stop_client,
        "SIGTERM worker": stage.drain_worker,
        "connection cut": stage.cut,
        "throttled": stage.throttle,
        "half-open": stage.half_open,
    }


@click.command()
@click.option("--jobs", default=5000, show_default=True, type=click.IntRange(100))
@click.option("--faults", default=40, show_default=True, type=click.IntRange(0))
@click.option("--clients", default=4, show_default=True, type=click.IntRange(1, 16))
@click.option("--seed", type=int, help="Repeats the choice of faults (not their timing).")
@click.option("--patience", default=120.0, show_default=True, help="Seconds to finish after the last fault.")
def main(jobs: int, faults: int, clients: int, seed: int | None, patience: float) -> None:
    """Break the bus and count."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="voicebus-chaos-") as folder, ExitStack() as stack:
        stage = Stage(Path(folder), random.Random(seed))
        stack.callback(stage.close)
        accounts = Accounts(Path(folder), [f"client-{number}" for number in range(clients)], jobs // clients)
        sys.exit(0 if _run(stage, accounts, faults, patience) else 1)


def _run(stage: Stage, accounts: Accounts, faults: int, patience_s: float) -> bool:
    for name in accounts.names:
        stage.talk(name, 0, accounts.lines)
    kinds = faults_of(stage)
    order = [
        kind for _ in range(faults // len(kinds) + 1) for kind in stage.chance.sample(list(kinds), len(kinds))
    ]
    injected: Counter[str] = Counter()
    for kind in order[:faults]:
        if accounts.done_everything():
            break
        kinds[kind]()
        injected[kind] += 1
        _replace(stage, accounts)
        time.sleep(stage.chance.uniform(0.1, 0.8))
    until = time.monotonic() + patience_s
    while time.monotonic() < until and not accounts.done_everything():
        _replace(stage, accounts)
        time.sleep(0.2)
    for talker in stage.talkers.values():
        talker.wait(10)
    return accounts.report(injected)


def _replace(stage: Stage, accounts: Accounts) -> None:
    """Whoever was killed is followed by one that speaks what is missing."""
    for name, talker in list(stage.talkers.items()):
        if talker.exit_code not in (None, 0):
            missing = accounts.missing(name)
            if missing:
                accounts.killed(name, missing)
                stage.talk(name, missing[0], accounts.lines)


if __name__ == "__main__":
    main()
