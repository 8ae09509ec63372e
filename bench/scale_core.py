"""How the broker's mind scales, without sockets: the cost of a job must not grow with what is there already.

    python -m bench.scale_core [--jobs 10000000]

`BrokerCore` is driven by method calls, SUBMIT → STARTED → CHUNK → DONE, with every worker in use in turn:
up to 100,000 workers, up to ten million jobs one after the other (four minutes), with nothing or 100,000 jobs
in the queue. Each row is one range of jobs, so that a cost that grows with the jobs that passed is seen too.
Processor time is this process's own, so other work on the machine hardly shows. What grows with time and not
with jobs, the sweeps, stands in a column of its own.
"""

from __future__ import annotations

import gc
import json
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import click

from voicebus.broker.core import BrokerCore
from voicebus.common import wire
from voicebus.common.config import Broker
from voicebus.common.messages import Done, Ready, Started, Submit, encode

WINDOW: Final = 64
"""Jobs that are open at once beside those in the queue, unless there are fewer places."""
JOB_EVERY_S: Final = 20e-6
"""How fast simulated time runs: 50,000 jobs a second. All workers are thus heard of within their liveness."""
INTERVAL_MS: Final = 60_000
DECADES: Final = tuple(10**power for power in range(3, 8))

TEXT: Final = b"The ferry leaves the northern harbour at a quarter past nine."
AUDIO: Final = bytes(200)
SUBMIT: Final = encode(Submit("tone", "amber", "en", characters=len(TEXT)))
STARTED: Final = encode(Started("simulated", "tone", 24_000, 1))
DONE: Final = encode(Done(1, len(AUDIO) // 2, 0.01))


class LostJobError(RuntimeError):
    """A job was not answered, or not once."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a job cost while the jobs numbered from `first` to `last` passed."""

    workers: int
    queued: int
    first: int
    last: int
    us_per_job: float
    "In the messages of a job."
    sweeps_us_per_s: float
    "In the sweeps, per second of the broker's time: they walk all workers twice a second."


class Simulation:
    """A core, its workers and a client, and time that passes with the jobs."""

    def __init__(self, workers: int, queued: int) -> None:
        most_jobs = queued + 2 * workers + WINDOW
        settings = Broker(
            default_engine="tone", journal=None, max_jobs=most_jobs, max_jobs_per_client=most_jobs,
            max_queued_bytes=1 << 40, max_queued_bytes_per_client=1 << 40,
        )  # fmt: skip
        self.now = 1000.0
        self.core = BrokerCore(settings, random.Random(1).randrange, self.now)
        self.workers, self.queued = workers, queued
        self.submitted = self.ended = 0
        self.sweeps_ns = 0
        self._at_workers: deque[tuple[bytes, bytes]] = deque()
        "(worker, job id and attempt) of the JOBs that were handed out, oldest first."
        for number in range(workers):
            ready = Ready(f"w{number}", 1, "tone", ["en"], 1, INTERVAL_MS, 24_000)
            self.core.ready(number.to_bytes(5, "big"), encode(ready), self.now)
        self._take()

    def fill(self) -> None:
        """Give every worker all it may hold, and the queue its jobs; or just a window of jobs."""
        open_jobs = self.queued + 2 * self.workers if self.queued else min(WINDOW, self.workers)
        while len(self.core.ledger.jobs) < open_jobs:
            self._submit()

    def run(self, jobs: int) -> tuple[int, int]:
        """End so many jobs, each replaced by a new one; (processor time of jobs, of sweeps) in ns."""
        core, at_workers = self.core, self._at_workers
        sweeps_ns, begun_ns = self.sweeps_ns, time.process_time_ns()
        for _ in range(jobs):
            peer, key = at_workers.popleft()
            job, attempt = key[:16], int.from_bytes(key[16:])
            core.started(peer, wire.pack_envelope(wire.STARTED, job, attempt), STARTED, self.now)
            chunk = wire.pack_envelope(wire.CHUNK, job, attempt, wire.SEGMENT_END)
            core.chunk(peer, chunk, AUDIO, self.now)
            core.done(peer, wire.pack_envelope(wire.DONE, job, attempt), DONE, self.now)
            self._submit()
            self.now += JOB_EVERY_S
            if self.now >= core.next_deadline():
                self._tick()
        taken_ns, swept_ns = time.process_time_ns() - begun_ns, self.sweeps_ns - sweeps_ns
        return taken_ns - swept_ns, swept_ns

    def check(self) -> None:
        """Raise `LostJobError` unless every job is open or was done, once."""
        totals, still_open = self.core.ledger.totals, len(self.core.ledger.jobs)
        if self.ended + still_open != self.submitted or totals["done"] != self.ended:
            raise LostJobError(
                f"{self.submitted} submitted, {self.ended} answered, {still_open} open: {totals}"
            )

    def _submit(self) -> None:
        self.submitted += 1
        envelope = wire.pack_envelope(wire.SUBMIT, self.submitted.to_bytes(16, "big"))
        self.core.submit(b"client", envelope, SUBMIT, TEXT, self.now)
        self.core.flush(self.now)
        self._take()

    def _take(self) -> None:
        for message in self.core.to_workers:
            if message[1][3] == wire.JOB:
                self._at_workers.append((message[0], message[1][4:22]))
        for message in self.core.to_clients:
            self.ended += message[1][3] in (wire.DONE, wire.FAILED)
        self.core.to_workers.clear()
        self.core.to_clients.clear()

    def _tick(self) -> None:
        begun_ns = time.process_time_ns()
        self.core.tick(self.now)
        self.sweeps_ns += time.process_time_ns() - begun_ns
        self.core.flush(self.now)
        self._take()


def measure(workers: int, queued: int, jobs: int) -> Iterator[Row]:
    """A row for each decade of jobs up to `jobs`."""
    # As the broker's loop does it, before anybody has registered.
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 20)
    try:
        simulation = Simulation(workers, queued)
        simulation.fill()
        first = 0
        for decade in (*(decade for decade in DECADES if decade < jobs), jobs):
            begun = simulation.now
            jobs_ns, sweeps_ns = simulation.run(decade - first)
            simulation.check()
            us_per_s = sweeps_ns / 1000 / (simulation.now - begun)
            yield Row(workers, queued, first, decade, jobs_ns / 1000 / (decade - first), us_per_s)
            first = decade
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def plan(jobs: int) -> list[tuple[int, int, int]]:
    """(workers, queued, jobs): a row of workers with each queue, and one long run of `jobs`."""
    short = max(1000, jobs // 10)
    deep = min(100_000, short)
    rows = [(workers, 0, short) for workers in (1, 10_000, 100_000)]
    rows += [(workers, deep, short) for workers in (1, 100, 10_000)]
    return [(100, 0, jobs), *rows]


def simulate(jobs: int) -> Iterator[Row]:
    """All rows, as they come."""
    for workers, queued, number in plan(jobs):
        yield from measure(workers, queued, number)


def shown(row: Row) -> str:
    """A row for people."""
    return (
        f"{row.workers:>9,} {row.queued:>9,} {row.first:>11,} – {row.last:<11,}"
        f"{row.us_per_job:>8.1f} µs a job {row.sweeps_us_per_s / 1e4:>8.2f} % of a core in sweeps"
    )


@click.command()
@click.option("--jobs", type=click.IntRange(1000, 10_000_000), default=1_000_000, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(jobs: int, as_json: bool) -> None:
    """Print what a job costs, by workers, queue and jobs that passed before."""
    rows: list[dict[str, Any]] = []
    if not as_json:
        click.echo("  workers    queued        jobs")
    for row in simulate(jobs):
        rows.append(asdict(row))
        if not as_json:
            click.echo(shown(row))
    if as_json:
        click.echo(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
