"""What the bus itself costs: time added to the first audio, and the broker's processor time per job.

    python -m bench.bus [--engine kokoro]

Added latency is measured one request at a time, alternating a call into the engine in this process with the
same call over the bus, so that both see the same machine. `tone` yields its audio at once: what the bus
adds stands alone there. With `kokoro` the engine's own time, and its noise, dwarf it; there the time as its
own process measured it is subtracted from what the client waited for the very same job.
Processor time is read from /proc (user + system of the broker process) over a run of `Client.map`.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

import click

from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.common.config import load_config
from voicebus.common.voices import VoiceStore
from voicebus.workers.engine import Engine, Reference, Request
from voicebus.workers.registry import create

TEXT = (
    "The ferry leaves the northern harbour at a quarter past nine, and the last bus back "
    "waits for everyone who missed it."
)
"""Twenty-two words."""


def cpu_s(pid: int) -> float:
    """User and system time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the sorted values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Direct:
    """The engine in this process, with the voice enrolled and warm."""

    def __init__(self, name: str, voice: str) -> None:
        self.engine: Engine[object] = create(name)
        self.engine.load({})
        store = VoiceStore(load_config(None).voices.path)
        recording = store.reference(voice)
        reference = Reference(voice, recording.samples, recording.rate_hz, recording.sha256)
        self.state = self.engine.voice(reference)

    def first_audio_s(self, text: str) -> float:
        """Time until the first segment yields."""
        begun = time.perf_counter()
        first = self.engine.segments(text, "en-us")[0]
        next(iter(self.engine.speak(Request(first, "en-us"), self.state)))
        return time.perf_counter() - begun


def over_bus_s(client: Client, text: str, engine: str, voice: str) -> float:
    """Time until the first chunk of a stream is here."""
    begun = time.perf_counter()
    stream = client.stream(text, engine=engine, voice=voice)
    next(iter(stream))
    taken = time.perf_counter() - begun
    for _ in stream:
        pass
    return taken


def latency(engine: str, voice: str, rounds: int) -> dict[str, float]:
    """Alternate direct and over the bus; seconds."""
    direct = Direct(engine, voice)
    with Bus(engines={engine: 1}) as bus, Client(bus.frontend) as client:
        over_bus_s(client, TEXT, engine, voice)
        direct.first_audio_s(TEXT)
        pairs = [(direct.first_audio_s(TEXT), over_bus_s(client, TEXT, engine, voice)) for _ in range(rounds)]
    alone, bussed = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return {
        "rounds": rounds,
        "direct_p50_ms": 1000 * statistics.median(alone),
        "bus_p50_ms": 1000 * statistics.median(bussed),
        "bus_p99_ms": 1000 * percentile(bussed, 0.99),
        "added_p50_ms": 1000 * (statistics.median(bussed) - statistics.median(alone)),
    }


def beside_engine(engine: str, voice: str, rounds: int) -> dict[str, float]:
    """What the client waited for a job of one segment beyond what the engine worked on it; seconds."""
    text = "The ferry leaves at nine."
    with Bus(engines={engine: 1}) as bus, Client(bus.frontend) as client:
        client.say(text, engine=engine, voice=voice)
        spoken = [client.say(text, engine=engine, voice=voice) for _ in range(rounds)]
    added = [speech.elapsed_s - speech.engine_s for speech in spoken]
    return {
        "rounds": rounds,
        "engine_p50_ms": 1000 * statistics.median(speech.engine_s for speech in spoken),
        "added_p50_ms": 1000 * statistics.median(added),
        "added_max_ms": 1000 * max(added),
    }


def throughput(jobs: int, workers: int) -> dict[str, float]:
    """Small `tone` jobs through one client; the broker's processor time per job."""
    settings = {"seconds_per_char": 0.001}
    with Bus(engines={"tone": workers}, settings=settings) as bus, Client(bus.frontend) as client:
        lines = [f"line {number}" for number in range(jobs)]
        list(client.map(lines[:200], engine="tone", voice="amber"))
        pid = bus.broker.pid if bus.broker else 0
        before, begun = cpu_s(pid), time.perf_counter()
        errors = sum(result.error is not None for result in client.map(lines, engine="tone", voice="amber"))
        taken, used = time.perf_counter() - begun, cpu_s(pid) - before
    return {
        "jobs": jobs,
        "workers": workers,
        "errors": errors,
        "jobs_per_s": jobs / taken,
        "broker_us_per_job": used / jobs * 1e6,
    }


def shown(figures: dict[str, float]) -> str:
    """Figures on one line."""
    return "  ".join(f"{key} {value:.2f}" for key, value in figures.items())


@click.command()
@click.option("--engine", "engines", multiple=True, default=("tone", "kokoro"), show_default=True)
@click.option("--voice", default="amber", show_default=True)
@click.option("--jobs", default=5000, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("out/bench-bus.json"))
def main(engines: tuple[str, ...], voice: str, jobs: int, output: Path) -> None:
    """Print and save the figures."""
    result: dict[str, object] = {"load_average": os.getloadavg()[0], "cores": os.cpu_count()}
    for engine in engines:
        figures = latency(engine, voice, 300) if engine == "tone" else beside_engine(engine, voice, 20)
        result[f"latency_{engine}"] = figures
        click.echo(
            f"first audio, {engine}: " + "  ".join(f"{key} {value:.2f}" for key, value in figures.items())
        )
    figures = throughput(jobs, 1)
    result["throughput"] = figures
    click.echo(f"throughput, tone: {shown(figures)}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
