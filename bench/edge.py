"""What the HTTP edge costs: requests a second beside bare aiohttp and FastAPI, and time to first audio.

    python -m bench.edge [-o bench/edge.md]

Three servers answer the same POST of the same text with the same WAV, driven by wrk in turns in one pass:
aiohttp with a handler that has its answer ready (the floor of any aiohttp service), the edge before a bus
whose engine speaks at once, and the seed's shape, a FastAPI gateway before a FastAPI worker
(`bench.peers`). Time to first audio is the kokoro engine's, called in this process and through edge and
bus, in turns.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import httpx

from voicebus.client.launch import Bus
from voicebus.client.processes import Child

from .bus import TEXT, Direct
from .machine import describe
from .peers.http_gateway import SYSTEMS as GATEWAYS
from .peers.install import fetch_python, place
from .peers.plan import text_of
from .processes import cpu_ns, load_average

SAID: Final = "Hello there."
CONNECTIONS: Final = 32
TONES: Final = 300
READY_S: Final = 60.0
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_LATENCY = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)", re.MULTILINE)
_BAD = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_SCALE_MS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Stand:
    """A server under load, and its own processes; those behind it share the cores uncounted."""

    name: str
    url: str
    body: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """What wrk saw in one turn."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    "Processor time of the HTTP server alone, a request."


def load(stand: Stand, seconds: int) -> Round:
    """Drive one server. Raises `RuntimeError` where an answer was none."""
    script = f'wrk.method="POST" wrk.headers["Content-Type"]="application/json" wrk.body=\'{stand.body}\''
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        before = sum(cpu_ns(pid) for pid in stand.pids)
        done = subprocess.run(
            ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", file.name, stand.url],
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 60,
        )
        used = sum(cpu_ns(pid) for pid in stand.pids) - before
    bad = _BAD.search(done.stdout)
    if bad is not None:
        raise RuntimeError(f"{stand.name}: {bad[1]} answers were errors")
    latency = {found[1]: float(found[2]) * _SCALE_MS[found[3]] for found in _LATENCY.finditer(done.stdout)}
    rate = _RATE.search(done.stdout)
    assert rate is not None, done.stdout
    per_s = float(rate[1])
    return Round(per_s, latency["50"], latency["99"], used / 1000 / (per_s * seconds))


BARE: Final = """
import sys
from aiohttp import web
answer = open(sys.argv[1], "rb").read()
async def speak(request):
    await request.json()
    return web.Response(body=answer, content_type="audio/wav")
app = web.Application()
app.router.add_post("/v1/audio/speech", speak)
runner_print = lambda _: print("bare ready", flush=True)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), access_log=None, print=runner_print)
"""


def stands(stack: ExitStack) -> list[Stand]:
    """Start all three."""
    from .processes import free_port

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voicebus-bench-")))
    bus = stack.enter_context(
        Bus(engines={"tone": 1}, slots=4, settings={"seconds_per_char": 0.002, "realtime_factor": 0})
    )
    edge, url = _edge(stack, bus.frontend, folder)
    body = {"input": SAID, "model": "tone", "voice": "amber", "response_format": "wav"}
    answer = httpx.post(f"{url}/v1/audio/speech", json=body)
    answer.raise_for_status()
    wav = folder / "answer.wav"
    wav.write_bytes(answer.content)
    port = free_port()
    program = folder / "bare.py"
    program.write_text(BARE)
    bare = Child("bare", [sys.executable, str(program), str(wav), str(port)], "bare ready", bound=True)
    stack.callback(bare.end, 10)
    bare.wait_ready(READY_S)
    made = [
        Stand("bare aiohttp", f"http://127.0.0.1:{port}/v1/audio/speech", json.dumps(body), (bare.pid,)),
        Stand("voicebus: edge, broker, worker", f"{url}/v1/audio/speech", json.dumps(body), (edge.pid,)),
    ]
    for system in GATEWAYS:
        fetch_python(system.python, place())
        started = system.start(stack, place())
        text = json.dumps({"text": text_of(1, len(answer.content)).decode()})
        made.append(Stand(system.what, f"{started.address}/speak", text, tuple(started.middle)))
    return made


def _edge(stack: ExitStack, broker: str, folder: Path) -> tuple[Child, str]:
    config = folder / "edge.json"
    open_ = {
        "port": 0,
        "ip_rpm": 10**9,
        "global_rpm": 10**9,
        "concurrency": 1000,
        "jobs": str(folder / "jobs"),
    }
    config.write_text(json.dumps({"edge": open_, "logging": {"file": None, "level": "WARNING"}}))
    command = [sys.executable, "-m", "voicebus.edge.cli", "--config", str(config), "--broker", broker]
    edge = Child("edge", command, "vc-edge ready", bound=True)
    stack.callback(edge.end, 10)
    return edge, edge.wait_ready(READY_S).partition("http=")[2].split()[0]


def first_audio(engine: str, rounds: int) -> list[tuple[float, float]]:
    """Seconds to the first audio, in pairs: the engine called here, and through edge and bus."""
    direct = Direct(engine, "amber")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voicebus-bench-")))
        bus = stack.enter_context(Bus(engines={engine: 1}))
        _, url = _edge(stack, bus.frontend, folder)
        http = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        over_http_s(http, engine)
        direct.first_audio_s(TEXT)
        return [(direct.first_audio_s(TEXT), over_http_s(http, engine)) for _ in range(rounds)]


def over_http_s(http: httpx.Client, engine: str) -> float:
    """Until the first bytes of sound; the rest is read, so that the engine is free for the next."""
    body = {"input": TEXT, "model": engine, "voice": "amber", "response_format": "pcm"}
    begun = time.perf_counter()
    with http.stream("POST", "/v1/audio/speech", json=body) as answer:
        parts = answer.iter_raw()
        next(parts)
        taken = time.perf_counter() - begun
        for _ in parts:
            pass
    return taken


def middle(values: list[float], form: Callable[[float], str]) -> str:
    """Least, middle and most."""
    return f"{form(min(values))} – **{form(statistics.median(values))}** – {form(max(values))}"


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=5, show_default=True, help="Of each turn.")
@click.option("--speeches", default=20, show_default=True, help="Pairs of time to first audio by kokoro.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("bench/edge.md"), show_default=True
)
def main(rounds: int, seconds: int, speeches: int, output: Path) -> None:
    """Measure, and write the page."""
    if shutil.which("wrk") is None:
        raise click.ClickException("wrk is not installed: apt-get install wrk")
    before = load_average()
    with ExitStack() as stack:
        servers = stands(stack)
        seen: dict[str, list[Round]] = {stand.name: [] for stand in servers}
        for _ in range(rounds):
            for stand in servers:
                seen[stand.name].append(load(stand, seconds))
    pairs = {"tone": first_audio("tone", TONES), "kokoro": first_audio("kokoro", speeches)}
    lines = _page(seen, pairs, before)
    output.write_text("\n".join(lines) + "\n")
    click.echo("\n".join(lines))


def _page(
    seen: dict[str, list[Round]], pairs: dict[str, list[tuple[float, float]]], before: float
) -> list[str]:
    machine = describe()
    floor = statistics.median(round.per_s for round in next(iter(seen.values())))
    lines = [
        "# The edge: requests, and time to first audio",
        "",
        f"Written by `python -m bench.edge`. {machine['cpu']}, {machine['cores']} cores, Python "
        f"{machine['python']}; load average {before:.2f} before.",
        f"wrk with {CONNECTIONS} connections shares the cores with what it drives.",
        "Where three figures stand, they are least – **middle** – most of the turns.",
        "",
        "| server | requests a second | of bare aiohttp | p50, ms | p99, ms "
        "| the HTTP server's own processor time a request, µs |",
        "|---|---|---|---|---|---|",
    ]
    for name, rounds in seen.items():
        rates = [round.per_s for round in rounds]
        lines.append(
            f"| {name} | {middle(rates, '{:.0f}'.format)} | {statistics.median(rates) / floor:.2f} "
            f"| {middle([round.p50_ms for round in rounds], '{:.1f}'.format)} "
            f"| {middle([round.p99_ms for round in rounds], '{:.1f}'.format)} "
            f"| {middle([round.cpu_us for round in rounds], '{:.0f}'.format)} |"
        )
    lines += [
        "",
        "Time to first audio, in pairs: the engine called directly, then through edge and bus.",
        "",
        "| engine | pairs | directly, ms | over HTTP, ms | difference of a pair, ms |",
        "|---|---|---|---|---|",
    ]
    for engine, taken in pairs.items():
        columns = (
            [1000 * alone for alone, _ in taken],
            [1000 * over for _, over in taken],
            [1000 * (over - alone) for alone, over in taken],
        )
        figures = " | ".join(middle(column, "{:.1f}".format) for column in columns)
        lines.append(f"| {engine} | {len(taken)} | {figures} |")
    return lines


if __name__ == "__main__":
    main()
