"""How long a listener waits for the first audio while others pull results of 2 MB.

    python -m bench.interactive [--quick] [--json]

A real broker, real clients and real workers. One client asks for one sentence after the other; 16 more fetch
two megabytes each, over and over, from engines of their own: an engine is always free for the sentence, so
what is compared is the way and not the queue. The bulk engine is `tone` under a second name. Loads take turns
in one pass: none, what a rack of fast engines speaks, half of what the machine can carry, all it can carry.
Then the same on a bus whose threads do not tell the kernel who is waited for (`common/urgency.py`). On a
machine with few cores everybody waits for a processor when all are busy. How long the sentence's processes
did is read from the kernel and shown beside, so that this is not taken for the broker's doing; and PINGs,
which no worker has to do with, show the broker's own part.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from voicebus.client import Client
from voicebus.client.benchmark import Pings, ping
from voicebus.client.launch import Bus
from voicebus.common.urgency import OFF

from .processes import load_average, percentile, until

BULK: Final = "bulk"
BULK_CLIENTS: Final = 16
BULK_PROCESSES: Final = 2
BULK_WORKERS: Final = 4
BULK_CHARS: Final = 364
BULK_SECONDS_PER_CHAR: Final = 0.12
BULK_BYTES: Final = round(BULK_CHARS * BULK_SECONDS_PER_CHAR * 24_000) * 2
"""43.7 s of speech."""
SPEECH_TIMES: Final = 1000
"""What many fast engines speak together: a thousand seconds of audio in a second, 48 MB."""
SENTENCE: Final = "The ferry leaves the northern harbour at nine."
BUDGET: Final = 2.0
"""The p99 beside bulk by that without."""
SETTLE_S: Final = 0.5
PINGS: Final = 100
WAIT_S: Final = 60.0
PAUSED: Final = -1.0


@dataclass(frozen=True, slots=True)
class Size:
    """How long it is looked at."""

    rounds: int
    sentences: int
    round_s: float
    "A round of one load is over after this, however few sentences came."


FULL: Final = Size(5, 200, 5.0)
QUICK: Final = Size(2, 60, 1.5)


@dataclass
class Load:
    """What was seen under one load."""

    name: str
    first_audio_s: list[float] = field(default_factory=list[float])
    pings_s: list[float] = field(default_factory=list[float])
    seconds: float = 0.0
    bulk_bytes: int = 0
    bulk_s: float = 0.0
    "The bulk is counted from its beginning, before the first sentence is asked for."
    busy_s: float = 0.0
    "Processor time of the whole machine."
    waits_ns: dict[str, int] = field(default_factory=dict[str, int])
    "How long threads that could have run waited for a processor, by whose they are."

    def row(self, unloaded_p99_s: float) -> dict[str, Any]:
        """The figures."""
        p99_s = percentile(self.first_audio_s, 0.99)
        sentences = len(self.first_audio_s)
        return {
            "load": self.name,
            "sentences": sentences,
            "first_audio_p50_ms": 1000 * percentile(self.first_audio_s, 0.5),
            "first_audio_p99_ms": 1000 * p99_s,
            "p99_to_unloaded": p99_s / unloaded_p99_s,
            "ping_p50_ms": 1000 * percentile(self.pings_s, 0.5),
            "ping_p99_ms": 1000 * percentile(self.pings_s, 0.99),
            "bulk_mb_per_s": self.bulk_bytes / 1e6 / self.bulk_s,
            "processors_busy_percent": 100 * self.busy_s / self.seconds / (os.cpu_count() or 1),
            "waited_for_a_processor_ms": {who: ns / 1e6 / sentences for who, ns in self.waits_ns.items()},
        }


# ---- what the kernel knows


def run_queue_ns(pids: Iterable[int]) -> int:
    """How long the threads of some processes have waited, ready to run, for a processor."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[1])
    return total


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def machine_busy_s() -> float:
    """Processor time that all of the machine has used, in seconds."""
    fields = [int(part) for part in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


# ---- the bulk


def _pull(frontend: str, clients: int, gap_s: Any, under_way: Any, pulled: Any, wrong: Any) -> None:
    """A process with bulk clients, a thread each; ends with its parent."""

    def work() -> None:
        with Client(frontend) as client:
            while True:
                with under_way.get_lock():
                    gap = gap_s.value
                    under_way.value += gap >= 0
                if gap < 0:
                    time.sleep(0.01)
                    continue
                begun = time.monotonic()
                speech = client.submit("x" * BULK_CHARS, engine=BULK, lane="batch").result(WAIT_S)
                with pulled.get_lock():
                    pulled.value += len(speech.pcm)
                if len(speech.pcm) != BULK_BYTES:
                    wrong.value += 1
                with under_way.get_lock():
                    under_way.value -= 1
                time.sleep(max(0.0, begun + gap - time.monotonic()))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()


class Bulk:
    """The clients that pull: paused, as fast as they can, or at a rate."""

    def __init__(self, frontend: str, clients: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._gap_s = spawn.Value("d", PAUSED)
        self._under_way = spawn.Value("i", 0)
        self._pulled = spawn.Value("q", 0)
        self._wrong = spawn.Value("i", 0)
        self.clients = clients
        shares = [clients // BULK_PROCESSES + (n < clients % BULK_PROCESSES) for n in range(BULK_PROCESSES)]
        self._processes = [
            spawn.Process(
                target=_pull,
                daemon=True,
                args=(frontend, share, self._gap_s, self._under_way, self._pulled, self._wrong),
            )
            for share in shares
        ]
        for process in self._processes:
            process.start()

    def __enter__(self) -> Bulk:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join(5)

    @property
    def pulled_bytes(self) -> int:
        """All that came."""
        return int(self._pulled.value)

    @property
    def wrong(self) -> int:
        """Results that had not the right length."""
        return int(self._wrong.value)

    def pull(self, bytes_per_s: float | None) -> None:
        """Begin, at this rate in all, or without a limit; returns when the first results have come."""
        before = self.pulled_bytes
        self._gap_s.value = 0.0 if bytes_per_s is None else self.clients * BULK_BYTES / bytes_per_s
        until(lambda: self.pulled_bytes > before, WAIT_S, "the first bulk result")

    def pause(self) -> None:
        """Stop, and wait until nothing is under way."""
        self._gap_s.value = PAUSED

        def over() -> bool:
            # Whoever still looked at the gap as it was has counted itself before the lock is ours.
            with self._under_way.get_lock():
                return self._under_way.value == 0

        until(over, WAIT_S, "the end of the bulk")


@contextmanager
def second_name() -> Generator[dict[str, str]]:
    """An environment in which the engine `tone` is also installed as `bulk`, as a package would do it."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "voicebus_bench_bulk-0.dist-info")
        package.mkdir()
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: voicebus-bench-bulk\nVersion: 0\n")
        (package / "entry_points.txt").write_text(
            f"[voicebus.engines]\n{BULK} = voicebus.workers.engines.tone:ToneEngine\n"
        )
        known = os.environ.get("PYTHONPATH", "")
        yield {"PYTHONPATH": f"{folder}{os.pathsep}{known}" if known else folder}


@contextmanager
def switched(urgency: str | None) -> Generator[None]:
    """This process and those it starts with the switch of urgency set, or not."""
    before = os.environ.pop(OFF, None)
    if urgency is not None:
        os.environ[OFF] = urgency
    try:
        yield
    finally:
        os.environ.pop(OFF, None)
        if before is not None:
            os.environ[OFF] = before


# ---- the sentence


class Scene:
    """A bus with its interactive and bulk ends, and the loads in turn."""

    def __init__(self, bus: Bus, client: Client, bulk: Bulk, size: Size) -> None:
        self._bus, self._client, self._bulk, self._size = bus, client, bulk, size
        self._broker = bus.broker.pid if bus.broker else 0
        tones = [worker.pid for worker in bus.workers if worker.name.startswith("tone")]
        self._sides = {
            "broker": [self._broker],
            "worker and engine": [member for pid in tones for member in family(pid)],
            "client": [os.getpid()],
        }

    def first_audio_s(self) -> float:
        """The time until the first chunk of a sentence is here. The rest is listened to as well."""
        begun = time.perf_counter()
        stream = self._client.stream(SENTENCE, engine="tone")
        next(stream)
        taken = time.perf_counter() - begun
        for _ in stream:
            pass
        return taken

    def round(self, load: Load, bytes_per_s: float | None = 0.0) -> None:
        """One round under a load: 0 no bulk, None without limit."""
        if bytes_per_s != 0:
            self._bulk.pull(bytes_per_s)
        pulled, pulls = self._bulk.pulled_bytes, time.monotonic()
        time.sleep(SETTLE_S)
        busy_s, begun = machine_busy_s(), time.monotonic()
        waits = {who: run_queue_ns(pids) for who, pids in self._sides.items()}
        spans: list[float] = []
        while len(spans) < self._size.sentences and time.monotonic() < begun + self._size.round_s:
            spans.append(self.first_audio_s())
        for who, pids in self._sides.items():
            load.waits_ns[who] = load.waits_ns.get(who, 0) + run_queue_ns(pids) - waits[who]
        load.first_audio_s += spans
        pings = Pings(self._bus.frontend)
        ping(pings, PINGS, time.monotonic() + self._size.round_s, lambda _done: None)
        load.pings_s += pings.spans_s
        load.seconds += time.monotonic() - begun
        load.bulk_bytes += self._bulk.pulled_bytes - pulled
        load.bulk_s += time.monotonic() - pulls
        load.busy_s += machine_busy_s() - busy_s
        if bytes_per_s != 0:
            self._bulk.pause()

    def play(self, how: str = "") -> list[dict[str, Any]]:
        """All loads in turn, and their rows; `how` is put behind their names."""
        alone, even = Load("none" + how), Load(f"{SPEECH_TIMES:,} × real time{how}")
        half, full = Load("half of what can be carried" + how), Load("all that can be carried" + how)
        self.round(Load("warm"))
        first = Load("first")
        self.round(first, None)
        half_rate = first.bulk_bytes / first.bulk_s / 2
        for _ in range(self._size.rounds):
            self.round(alone)
            self.round(even, SPEECH_TIMES * 24_000 * 2)
            self.round(half, half_rate)
            self.round(full, None)
        unloaded = percentile(alone.first_audio_s, 0.99)
        rows = [load.row(unloaded) for load in (alone, even, half, full)]
        return [row | {"urgency": not how} for row in rows]


def measure(size: Size, clients: int = BULK_CLIENTS) -> dict[str, Any]:
    """Play on a bus as it is, then on one without urgency."""
    background = load_average()
    played = [_play(size, clients, how, urgency) for how, urgency in (("", None), (", no urgency", "off"))]
    return {
        "load_average_before": background,
        "cores": os.cpu_count(),
        "bulk_clients": clients,
        "bulk_result_bytes": BULK_BYTES,
        "budget_p99_to_unloaded": BUDGET,
        "rows": [row for rows, _, _ in played for row in rows],
        "failed": sum(failed for _, failed, _ in played),
        "wrong_bulk_results": sum(wrong for _, _, wrong in played),
    }


def _play(size: Size, clients: int, how: str, urgency: str | None) -> tuple[list[dict[str, Any]], int, int]:
    """Start everything, and play: rows, failed jobs, wrong results."""
    config = {"broker": {"journal": None, "default_engine": "tone"}, "workers": {"tone": {}, BULK: {}}}
    pace = {"seconds_per_char": BULK_SECONDS_PER_CHAR}
    with (
        second_name() as environ,
        switched(urgency),
        Bus(engines={"tone": 2}, config=config, environ=environ) as bus,
        Client(bus.frontend) as client,
        Bulk(bus.frontend, clients) as bulk,
    ):
        for number in range(BULK_WORKERS):
            bus.start_worker(BULK, name=f"{BULK}-{number}", settings=pace)
        rows = Scene(bus, client, bulk, size).play(how)
        totals = client.status()["totals"]
        return rows, totals["failed"] + totals["cancelled"], bulk.wrong


def shown(found: dict[str, Any]) -> Generator[str]:
    """For people."""
    yield (
        f"{found['bulk_clients']} clients pull {found['bulk_result_bytes'] / 1e6:.1f} MB each, "
        f"{found['cores']} cores, load average before {found['load_average_before']:.1f}"
    )
    yield (
        f"  {'bulk':<40} {'MB/s':>6} {'busy':>6}   first audio, ms: p50    p99  by unloaded    PING p50   p99"
    )
    for row in found["rows"]:
        ratio = row["p99_to_unloaded"]
        verdict = f"{ratio:>6.2f} ×  {'≤ 2' if ratio <= BUDGET else 'over 2'}"
        yield (
            f"  {row['load']:<40} {row['bulk_mb_per_s']:>6.0f} {row['processors_busy_percent']:>5.0f}%"
            f"   {row['first_audio_p50_ms']:>20.2f} {row['first_audio_p99_ms']:>6.2f} {verdict:<14}"
            f" {row['ping_p50_ms']:>8.2f} {row['ping_p99_ms']:>6.2f}"
        )
        waits = ", ".join(f"{who} {ms:.2f}" for who, ms in row["waited_for_a_processor_ms"].items())
        yield f"  {'':<40} ready to run but waiting for a processor, ms a sentence: {waits}"
    yield f"  failed {found['failed']}, bulk results of a wrong length {found['wrong_bulk_results']}"


@click.command()
@click.option("--quick", is_flag=True, help="Two short rounds.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("out/bench-interactive.json"))
def main(quick: bool, as_json: bool, output: Path) -> None:
    """Print the first audio of a sentence beside bulk; exit 1 if a job failed or was not whole."""
    found = measure(QUICK if quick else FULL)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        for line in shown(found):
            click.echo(line)
    if found["failed"] or found["wrong_bulk_results"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
