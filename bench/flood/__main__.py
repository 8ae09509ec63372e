"""What honest traffic notices of a million malformed messages from fifty peers.

    python -m bench.flood [--messages 1000000] [--peers 50] [--rounds 3]

A broker and a worker with the engine that takes no time, real processes on loopback, no keys. An honest
client speaks one short text after another (and others batches, with `--beside`); each answer is compared byte
by byte. Spans without and with the flood alternate. The flood has a pace; with `--pace 0` it is as fast as
can be, and then takes a processor from those whom it is to disturb, unlike one from elsewhere. Printed: the
median and 99th percentile of one job at a time in both, the broker's memory, and what became of all jobs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import count

import click

from bench.processes import rss_bytes
from voicebus.client import Client
from voicebus.client.launch import Bus

ENGINE = {"realtime_factor": 0, "seconds_per_char": 0.01}
CALM_S = 5.0
WINDOW = 8


@dataclass
class Span:
    """What was measured in one span."""

    taken_s: list[float] = field(default_factory=list[float])
    seconds: float = 0.0

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return sorted(self.taken_s)[int(share * (len(self.taken_s) - 1))] * 1000


class Honest:
    """Clients that go on all the time; `taken` is told how long each single job took."""

    def __init__(self, address: str, beside: int) -> None:
        self._address = address
        self._stop = threading.Event()
        self.span = Span()
        self.jobs = self.wrong = 0
        self._lock = threading.Lock()
        with Client(address) as client:
            self._texts = [f"Honest words, number {number}." for number in range(40)]
            self._audio = {text: client.say(text, engine="tone").samples.tobytes() for text in self._texts}
        self._threads = [threading.Thread(target=self._singles)]
        self._threads += [threading.Thread(target=self._batch) for _ in range(beside)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End when the jobs under way have ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _judge(self, text: str, samples: bytes) -> None:
        with self._lock:
            self.jobs += 1
            self.wrong += samples != self._audio[text]

    def _singles(self) -> None:
        with Client(self._address) as client:
            for number in count():
                if self._stop.is_set():
                    return
                text = self._texts[number % len(self._texts)]
                begun = time.perf_counter()
                speech = client.say(text, engine="tone")
                self.span.taken_s.append(time.perf_counter() - begun)
                self._judge(text, speech.samples.tobytes())

    def _batch(self) -> None:
        with Client(self._address) as client:
            while not self._stop.is_set():
                for result in client.map(self._texts, engine="tone", window=WINDOW):
                    speech = result.speech
                    self._judge(self._texts[result.index], speech.samples.tobytes() if speech else b"")


@click.command()
@click.option("--messages", default=1_000_000, show_default=True)
@click.option("--peers", default=50, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Spans with the flood; it is shared among them.")
@click.option("--pace", default=20_000, show_default=True, help="Malformed messages a second; 0: unbounded.")
@click.option("--beside", default=0, show_default=True, help="Honest clients that speak batches meanwhile.")
def main(messages: int, peers: int, rounds: int, pace: int, beside: int) -> None:
    """Measure."""
    with Bus({"tone": 1}, settings=ENGINE, config={"broker": {"journal": None}}) as bus:
        broker = bus.broker
        if broker is None:
            raise RuntimeError("no broker")
        honest = Honest(bus.frontend, beside)
        calm: list[Span] = []
        flooded: list[Span] = []
        sent = connections = 0
        peak = before = rss_bytes(broker.pid)
        for number in range(2 * rounds + 1):
            honest.span = Span()
            begun = time.monotonic()
            if number % 2:
                flood = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "bench.flood.peers"),
                        *("--peers", str(peers), "--messages", str(messages // rounds)),
                        *("--pace", str(pace)),
                        *("--address", bus.frontend, "--address", bus.backend),
                    ],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                while flood.poll() is None:
                    time.sleep(0.05)
                    peak = max(peak, rss_bytes(broker.pid))
                said = (flood.stdout.read() if flood.stdout else "").split("sent=")[-1]
                sent += int(said.split()[0])
                connections += int(said.split("connections=")[1].split()[0])
                flooded.append(honest.span)
            else:
                time.sleep(CALM_S)
                calm.append(honest.span)
            (flooded if number % 2 else calm)[-1].seconds = time.monotonic() - begun
        honest.stop()
        with Client(bus.frontend) as client:
            totals = client.status()["totals"]
        after = rss_bytes(broker.pid)
    for name, spans in (("calm", calm), ("flooded", flooded)):
        everything = Span([taken for span in spans for taken in span.taken_s])
        seconds = sum(span.seconds for span in spans)
        click.echo(
            f"{name:8} {len(everything.taken_s):7,} jobs one at a time in {seconds:.1f} s: "
            f"p50 {everything.percentile(0.5):.2f} ms, p99 {everything.percentile(0.99):.2f} ms"
        )
    calm_ms, flooded_ms = (
        statistics.median(span.percentile(0.99) for span in spans) for spans in (calm, flooded)
    )
    click.echo(
        f"p99 flooded / calm: {flooded_ms:.2f} / {calm_ms:.2f} ms = {flooded_ms / calm_ms:.2f}, of medians"
    )
    reached = sent / sum(span.seconds for span in flooded)
    click.echo(
        f"flood: {sent:,} malformed messages over {connections:,} connections, {reached:,.0f} a second; "
        f"answered {totals['protocol_errors']:,}, connections turned away {totals['turned_away']:,}"
    )
    mib = [size / 2**20 for size in (before, peak, after)]
    click.echo(f"broker memory: {mib[0]:.1f} MiB before, {mib[1]:.1f} at most, {mib[2]:.1f} after")
    click.echo(f"honest jobs: {honest.jobs:,}, wrong or lost: {honest.wrong}")
    if honest.wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
