"""Large numbers against a real broker: 10,000 workers that beat, 100,000 jobs that wait, 1,000 clients.

    python -m bench.scale [--quick] [--json]

The broker is `vc-broker` with its default configuration and no journal. Workers and clients are plain sockets
that speak VB1. Each row stands beside its budget; a job that was lost or answered twice ends the run with 1.
Processor time is the broker's, from the kernel's scheduler accounts: `in all` is with libzmq's I/O
thread, which pays for every connection's own system calls, `mind` is the main thread alone. What many
workers cost in the core without any socket stands at the end, from `bench.scale_core`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final

import click

from voicebus.client.launch import endpoints

from . import scale_core
from .crowd import SPARE_FILES, TEXT, WAIT_S, Clients, raise_file_limit, sockets_per_process
from .herd import HerdProcess, Plan, herd
from .processes import Running, cpu_ns, load_average, percentile, python_command, rss_bytes, until

INTERVAL_S: Final = 10.0
WINDOW: Final = 64
HERD_PROCESSES: Final = 2


@dataclass(frozen=True, slots=True)
class Size:
    """How large everything is, and how long it is looked at."""

    workers: int
    jobs: int
    clients: int
    placed: int
    beat_s: float
    core_jobs: int


FULL: Final = Size(10_000, 100_000, 1_000, 20_000, 30.0, 1_000_000)
QUICK: Final = Size(1_000, 10_000, 100, 4_000, 10.0, 50_000)


@dataclass
class Report:
    """The rows, and what must not have happened."""

    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    wrong: list[str] = field(default_factory=list[str])
    say: Callable[[str], None] = print

    def add(self, what: str, value: float, unit: str, budget: float | None = None, note: str = "") -> None:
        """A figure, and the most it may be."""
        self.rows.append({"what": what, "value": value, "unit": unit, "budget": budget, "note": note})
        held = "" if budget is None else f"≤ {budget:,g}" + ("" if value <= budget else "  MISSED")
        self.say(f"  {what:<58} {value:>12,.2f} {unit:<12} {held:<14} {note}".rstrip())

    def must(self, what: str, value: int, wanted: int) -> None:
        """A count that has to be right."""
        self.rows.append({"what": what, "value": value, "unit": "", "wanted": wanted})
        self.say(f"  {what:<58} {value:>12,}              = {wanted:,}")
        if value != wanted:
            self.wrong.append(f"{what}: {value:,}, not {wanted:,}")


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor time of the broker since some moment."""

    pid: int
    begun_at: float
    all_ns: int
    mind_ns: int

    @classmethod
    def of(cls, pid: int) -> Cpu:
        """From now on."""
        return cls(pid, time.monotonic(), cpu_ns(pid), _main_thread_ns(pid))

    def taken(self) -> tuple[float, float, float]:
        """Seconds that passed; µs of all threads, and of the main one."""
        seconds = time.monotonic() - self.begun_at
        return (
            seconds,
            (cpu_ns(self.pid) - self.all_ns) / 1000,
            (_main_thread_ns(self.pid) - self.mind_ns) / 1000,
        )


def _main_thread_ns(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])


@dataclass(frozen=True, slots=True)
class Broker:
    """A running `vc-broker`."""

    process: Running
    frontend: str
    backend: str

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def clients(self, number: int) -> Clients:
        """Connections to it."""
        return Clients(self.frontend, number, self.process.check)


@contextmanager
def broker() -> Generator[Broker]:
    """A broker with the default limits, on free ports."""
    config = {
        "broker": {"journal": None, "frontend": "tcp://127.0.0.1:*", "backend": "tcp://127.0.0.1:*"},
        "logging": {"file": None, "level": "ERROR"},
        "workers": {"tone": {}},
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(json.dumps(config))
        command = python_command("voicebus.broker.cli", "--config", str(file))
        with Running(command, output=PIPE, errors=None, end_s=2.0) as running:
            frontend, backend = endpoints(running.stdout.readline())
            yield Broker(running, frontend, backend)


def register(processes: list[HerdProcess], workers: int) -> float:
    """Have a whole herd connect and register at once; seconds until the last was welcome."""
    begun = time.monotonic()
    for process in processes:
        process.order("register")
    reports: list[tuple[int, float, int]] = []

    def all_here() -> bool:
        time.sleep(0.05)  # a report costs the herd time it needs for itself
        reports[:] = [process.report(WAIT_S) for process in processes]
        return sum(report[0] for report in reports) >= workers

    until(all_here, WAIT_S, f"the registration of {workers:,} workers")
    return max(report[1] for report in reports) - begun


def idle_us_per_s(clients: Clients, pid: int, seconds: float) -> tuple[float, float]:
    """What the broker takes while nothing is asked of it but life."""
    cpu = Cpu.of(pid)
    clients.pump_for(seconds)
    taken_s, all_us, mind_us = cpu.taken()
    return all_us / taken_s, mind_us / taken_s


def place(clients: Clients, pid: int, jobs: int, idle: tuple[float, float]) -> tuple[float, float]:
    """µs a job, in all and of the main thread, without what beating takes meanwhile."""
    clients.flow(jobs // 10, WINDOW)
    cpu = Cpu.of(pid)
    clients.flow(jobs, WINDOW)
    seconds, all_us, mind_us = cpu.taken()
    return (all_us - idle[0] * seconds) / jobs, (mind_us - idle[1] * seconds) / jobs


def one_worker(report: Report, size: Size) -> tuple[float, float]:
    """The cost of a job where there is one worker: what the herd is compared with."""
    with broker() as bus, bus.clients(1) as clients:
        plan = Plan(bus.backend, 1, slots=WINDOW, interval_s=INTERVAL_S)
        with herd(plan, 1) as processes:
            register(processes, 1)
            found = place(clients, bus.pid, size.placed, idle_us_per_s(clients, bus.pid, 1.0))
    report.add("a job with 1 worker of 64 slots, in all", found[0], "µs")
    report.add("a job with 1 worker of 64 slots, mind", found[1], "µs")
    return found


def many_workers(report: Report, size: Size, alone: tuple[float, float]) -> None:
    """Thousands of workers come at once, beat, and are given jobs."""
    workers = min(size.workers, HERD_PROCESSES * sockets_per_process(), raise_file_limit() - SPARE_FILES)
    if workers < size.workers:
        report.say(f"  only {workers:,} workers: this system grants {raise_file_limit():,} open files")
    with broker() as bus, bus.clients(1) as clients:
        clients.ping_s()
        before = rss_bytes(bus.pid)
        quiet = [clients.ping_s() for _ in range(200)]
        with herd(Plan(bus.backend, workers, interval_s=INTERVAL_S), HERD_PROCESSES) as processes:
            cpu = Cpu.of(bus.pid)
            report.add(
                f"{workers:,} workers at once: all registered after", register(processes, workers), "s"
            )
            report.add("the broker's work for one registration", cpu.taken()[1] / workers, "µs")
            report.add("memory of one worker", (rss_bytes(bus.pid) - before) / workers / 1024, "KiB")
            idle = idle_us_per_s(clients, bus.pid, size.beat_s)
            share = f"{workers:,} workers beat every {INTERVAL_S:g} s: share of a core"
            report.add(share, idle[0] / 1e4, "%", 10)
            report.must("still registered after that", clients.workers(), workers)
            beside = [clients.ping_s() for _ in range(200)]
            report.add("PING with no worker, p99", 1e3 * percentile(quiet, 0.99), "ms")
            report.add(f"PING while {workers:,} workers beat, p99", 1e3 * percentile(beside, 0.99), "ms")
            in_all, mind = place(clients, bus.pid, size.placed, idle)
            report.add(f"a job among {workers:,} workers, in all", in_all, "µs")
            report.add(f"a job among {workers:,} workers, mind", mind, "µs")
            report.add("times one worker's, mind", mind / alone[1], "×", 1.5)
            seen = [process.report(WAIT_S)[2] for process in processes]
        report.must("jobs given to workers", sum(seen), clients.submitted)
        _answered_once(report, clients)


def _answered_once(report: Report, clients: Clients) -> None:
    report.must("jobs answered", len(clients.answers), clients.submitted)
    report.must("answered more than once", sum(count > 1 for count in clients.answers.values()), 0)
    report.must("failed", sum(clients.failures.values()), 0)


def deep_queue(report: Report, size: Size) -> None:
    """As many jobs as the broker takes wait for a worker that holds two; then workers appear."""
    with (
        broker() as bus,
        bus.clients(10) as many,
        bus.clients(size.clients) as singles,
        herd(Plan(bus.backend, 1, interval_s=INTERVAL_S, answers=False, prefix="busy"), 1) as busy,
    ):
        register(busy, 1)
        _fill(report, size, bus, many, singles)
        busy[0].order("leave")
        with herd(Plan(bus.backend, 8, slots=8, interval_s=INTERVAL_S), 1) as workers:
            _drain(report, bus, many, singles, workers)
        for clients in (many, singles):
            _answered_once(report, clients)


def _fill(report: Report, size: Size, bus: Broker, many: Clients, singles: Clients) -> None:
    # The first jobs bring what is imported and allocated once.
    many.submit_all(100)
    before = rss_bytes(bus.pid)
    costs: list[float] = []
    tenth = (size.jobs - size.clients - many.submitted) // 10
    for _ in range(10):
        cpu = Cpu.of(bus.pid)
        many.submit_all(tenth)
        costs.append(cpu.taken()[1] / tenth)
    per_job = (rss_bytes(bus.pid) - before) / (10 * tenth)
    report.add(f"memory of one of {many.submitted:,} waiting jobs of {len(TEXT)} B", per_job, "B", 1024)
    report.add(f"a SUBMIT behind {0:,} to {tenth:,}", costs[0], "µs")
    report.add(f"a SUBMIT behind {9 * tenth:,} to {10 * tenth:,}", costs[-1], "µs", round(1.5 * costs[0], 1))
    rss, begun = rss_bytes(bus.pid), time.monotonic()
    singles.submit_all(size.clients)
    report.add(
        f"{size.clients:,} more clients with a job each: accepted after", time.monotonic() - begun, "s"
    )
    report.add("memory of such a client", (rss_bytes(bus.pid) - rss) / size.clients / 1024, "KiB")


def _drain(report: Report, bus: Broker, many: Clients, singles: Clients, workers: list[HerdProcess]) -> None:
    begun, full = time.monotonic(), many.open + singles.open
    costs: list[float] = []
    jobs = full
    for limit in (full * 9 // 10, full // 10, 0):
        cpu = Cpu.of(bus.pid)
        if jobs == full:
            for worker in workers:
                worker.order("register")

        def reached(limit: int = limit) -> bool:
            singles.pump(0)
            return many.open + singles.open <= limit

        many.pump_until(reached, "the answers")
        left = many.open + singles.open
        costs.append(cpu.taken()[1] / max(1, jobs - left))
        jobs = left
    report.add("all answered by workers that appeared after", time.monotonic() - begun, "s")
    report.add(f"a job's way out of a queue of {full:,}", costs[0], "µs", round(1.5 * costs[-1], 1))
    report.add("a job's way out of the last tenth of it", costs[-1], "µs")


def core(report: Report, size: Size) -> None:
    """The same without sockets."""
    settled: list[float] = []
    for row in scale_core.simulate(size.core_jobs):
        where = f"core: {row.workers:,} workers, {row.queued:,} queued, jobs {row.first:,}–{row.last:,}"
        report.add(where, row.us_per_job, "µs", note=f"sweeps {row.sweeps_us_per_s / 1e4:.2f} % of a core")
        if row.first:
            settled.append(row.us_per_job)
    report.add("core: dearest row by the cheapest, first jobs aside", max(settled) / min(settled), "×", 2)


def measure(*, quick: bool, say: Callable[[str], None]) -> Report:
    """All rows."""
    size = QUICK if quick else FULL
    report = Report(say=say)
    many_workers(report, size, one_worker(report, size))
    deep_queue(report, size)
    core(report, size)
    return report


@click.command()
@click.option("--quick", is_flag=True, help="A tenth of everything.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the rows as JSON; what is seen meanwhile to stderr."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("out/bench-scale.json"))
def main(quick: bool, as_json: bool, output: Path) -> None:
    """Print what large numbers cost; exit 1 if a job was lost or answered twice."""
    background = load_average()
    report = measure(quick=quick, say=lambda line: click.echo(line, err=as_json))
    found = {"quick": quick, "load_average_before": background, "rows": report.rows, "wrong": report.wrong}
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for line in report.wrong:
        click.echo(f"wrong: {line}", err=True)
    sys.exit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
