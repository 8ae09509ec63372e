"""The promises under failure, on real processes: what is counted must be right, what is timed is shown.

    python -m bench.guarantees [NAME …]        # without names: all of them, about two minutes

Each scene breaks something while jobs run, prints what it saw and fails if a job was lost, failed, was
answered twice or was someone else's. Spans of time are printed with their budget beside them and judged by
the reader: a busy machine is no broken promise.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import click
import zmq

from voicebus.client import AsyncClient, Client
from voicebus.client.launch import Bus
from voicebus.common import wire
from voicebus.common.messages import Submit, encode

from .bus import percentile

MIB: Final = 1024 * 1024
WAIT_S: Final = 30.0


@dataclass
class Scene:
    """What a scene has found."""

    seen: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    wrong: list[str] = field(default_factory=list[str])

    def say(self, what: str, value: object, budget: str = "") -> None:
        """Note a figure."""
        self.seen.append((what, str(value), budget))

    def must(self, what: str, value: object, wanted: object) -> None:
        """Note a count that has to be right."""
        self.say(what, value, f"= {wanted}")
        if value != wanted:
            self.wrong.append(f"{what}: {value!r}, not {wanted!r}")


def until(condition: Callable[[], object], timeout_s: float = WAIT_S) -> float:
    """Seconds until something holds. Raises `TimeoutError`."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout_s:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.005)
    return time.monotonic() - begun


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def busy(client: Client) -> int:
    """Attempts that workers still hold."""
    return sum(int(worker["open"]) for worker in client.status()["workers"])


def durable(scene: Scene, jobs: int = 1000) -> None:
    """A client hands over durable jobs and dies, the broker is killed with them queued, others fetch them."""
    with tempfile.TemporaryDirectory() as folder:
        config = {"broker": {"journal": folder, "default_engine": "tone"}}
        with Bus(engines={}, config=config, settings={"seconds_per_char": 0.002}) as bus:
            hand_over = (
                "import os, sys\nfrom voicebus.client import Client\n"
                "bus = Client(sys.argv[1])\n"
                "jobs = [bus.submit(f'line {n}', engine='tone', voice='amber', durable=True)"
                " for n in range(int(sys.argv[2]))]\n"
                "print(*(job.id for job in jobs), flush=True)\n"
                "import time; time.sleep(60)\n"
            )
            child = subprocess.Popen(
                [sys.executable, "-c", hand_over, bus.frontend, str(jobs)], stdout=subprocess.PIPE, text=True
            )
            ids = child.stdout.readline().split() if child.stdout else []
            with Client(bus.frontend) as client:
                until(lambda: client.status()["jobs"]["queued"] == jobs)
            child.kill()
            child.wait()
            bus.kill_broker()
            begun = time.monotonic()
            bus.start_broker()
            scene.say("broker back with its jobs", f"{time.monotonic() - begun:.2f} s")
            for _ in range(2):
                bus.start_worker("tone")
            with Client(bus.frontend) as client:
                scene.must("recovered", client.status()["totals"]["recovered"], jobs)
                speeches = [client.job(job).result(timeout_s=WAIT_S) for job in ids]
                scene.must("fetched by another process", len(speeches), jobs)
                again = {
                    n: client.say(f"line {n}", engine="tone", voice="amber").pcm for n in range(0, jobs, 97)
                }
                right = sum(speeches[n].pcm == pcm for n, pcm in again.items())
                scene.must("with the right audio, of those compared", right, len(again))


def failover(scene: Scene, clients: int = 16, seconds: float = 8.0) -> None:
    """Two brokers share the load; one is killed. Nobody loses a job, and nobody waits long."""
    with ExitStack() as stack:
        config = {"broker": {"default_engine": "tone", "journal": None}}
        first, second = (stack.enter_context(Bus(engines={}, config=config)) for _ in range(2))
        first.backend = f"{first.backend},{second.backend}"
        for _ in range(4):
            first.start_worker("tone", settings={"seconds_per_char": 0.002, "realtime_factor": 1.0})
        brokers = f"{first.frontend},{second.frontend}"
        ends: list[list[float]] = [[] for _ in range(clients)]
        errors: list[str] = []
        stop = time.monotonic() + seconds

        def talk(number: int) -> None:
            with Client(brokers) as client:
                while time.monotonic() < stop:
                    try:
                        client.say(f"client {number}", engine="tone", voice="amber")
                    except Exception as error:
                        errors.append(repr(error))
                    ends[number].append(time.monotonic())

        threads = [threading.Thread(target=talk, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        until(lambda: time.monotonic() > stop - 0.6 * seconds)
        second.kill_broker()
        killed = time.monotonic()
        for thread in threads:
            thread.join()
        pauses = [max(b - a for a, b in pairwise(row) if b > killed) for row in ends]
        scene.say("jobs answered", sum(map(len, ends)))
        scene.must("failed", errors, [])
        scene.say("longest pause of a client, p50", f"{percentile(pauses, 0.5):.2f} s")
        scene.say("longest pause of a client, p99", f"{percentile(pauses, 0.99):.2f} s", "≤ 3 s")


def wedged(scene: Scene) -> None:
    """An engine hangs and is found by its lease; a poison job ends after three engines and no agent."""
    config = {"broker": {"progress_lease_s": 2.0, "default_engine": "tone", "journal": None}}
    with Bus(engines={}, config=config) as bus, Client(bus.frontend) as client:
        bus.start_worker("tone", name="wedges", settings={"hang_on": "stuck"})
        job = client.submit("stuck", engine="tone")
        until(lambda: busy(client))
        bus.start_worker("tone", name="sound")
        begun = time.monotonic()
        speech = job.result(timeout_s=WAIT_S)
        scene.must("the wedged job was done by", speech.worker, "sound")
        scene.say("after it wedged", f"{time.monotonic() - begun:.1f} s", "lease 2 s")
    poisonous = Bus(engines={"tone": 5}, settings={"crash_on": "poison"}, config=config)
    with poisonous as bus, Client(bus.frontend) as client:
        error: Exception | None = None
        try:
            client.say("poison", engine="tone")
        except Exception as raised:
            error = raised
        scene.must("the poison job ended in", getattr(error, "code", None), "poison_job")
        until(lambda: all(w["stats"].get("restarts") is not None for w in client.status()["workers"]))
        time.sleep(1.2)  # a beat of every worker carries its count of restarts
        restarts = sum(int(worker["stats"]["restarts"]) for worker in client.status()["workers"])
        scene.must("engines it brought down", restarts, 3)
        scene.must("agents alive", sum(worker.exit_code is None for worker in bus.workers), 5)
        scene.must("and the bus works", client.say("well", engine="tone").attempts, 1)


def fairness(scene: Scene, jobs: int = 10_000) -> None:
    """One tenant queues ten thousand batch jobs; another's interactive job waits for one of them at most."""
    pace = {"seconds_per_char": 0.05, "realtime_factor": 1.0}
    text = "a job of one second."
    with Bus(settings=pace) as bus, Client(bus.frontend, tenant="many") as many:
        queued = [many.submit(text, engine="tone", lane="batch") for _ in range(jobs)]
        with Client(bus.frontend, tenant="few") as few:
            until(lambda: few.status()["jobs"]["open"] == jobs)
            waits: list[float] = []
            for _ in range(8):
                begun = time.monotonic()
                stream = few.stream("quick", engine="tone")
                next(stream)
                waits.append(time.monotonic() - begun)
                list(stream)
            # The engine paces its audio in slices of 50 ms, and the first one is waited for as well.
            scene.say("first audio of an interactive job, worst", f"{max(waits):.2f} s", "≤ 1 s + 50 ms")
            scene.say("median", f"{percentile(waits, 0.5):.2f} s")
        scene.must(
            "batch jobs still there or spoken",
            sum(not job.done() or len(job.result().pcm) > 0 for job in queued),
            jobs,
        )


def disconnects(scene: Scene) -> None:
    """Ctrl-C of a batch, a stream closed half-way and a killed client: their jobs end at the next chunk."""
    pace = {"seconds_per_char": 0.05, "realtime_factor": 1.0}
    config = {"broker": {"journal": None}}
    with Bus(settings=pace, config=config) as bus, Client(bus.frontend) as client:
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(folder, "lines.txt")
            lines.write_text("\n".join(f"this is line {n}, which takes two seconds." for n in range(50)))
            command = [
                sys.executable,
                "-m",
                "voicebus.client.cli",
                "batch",
                str(lines),
                "-o",
                f"{folder}/out",
            ]
            for what, number in (
                ("Ctrl-C of vc batch", signal.SIGINT),
                ("SIGKILL of vc batch", signal.SIGKILL),
            ):
                child = subprocess.Popen(
                    [*command, "--engine", "tone", "--broker", bus.frontend, "--resume"],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                until(lambda: client.status()["jobs"]["running"] == 1)
                child.send_signal(number)
                vanished_s = until(lambda: client.status()["jobs"]["open"] == 0)
                stopped_s = vanished_s + until(lambda: busy(client) == 0)
                child.wait()
                scene.say(f"{what}: queued jobs gone", f"{vanished_s * 1000:.0f} ms")
                scene.say(f"{what}: running one stopped", f"{stopped_s * 1000:.0f} ms", "chunk 50 ms")

        async def half() -> None:
            async with AsyncClient(bus.frontend) as other:
                stream = other.stream("a text of which only the beginning is heard. " * 8, engine="tone")
                await anext(stream)
                await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue] - an async generator
                begun = time.monotonic()
                while (await other.status())["jobs"]["open"] or busy(client):
                    pass
                scene.say("a stream that was closed: stopped", f"{(time.monotonic() - begun) * 1000:.0f} ms")

        asyncio.run(half())


def slow_reader(scene: Scene) -> None:
    """A client asks for 200 MB and does not read; the broker's memory and the others do not feel it."""
    settings = {"seconds_per_char": 0.042, "realtime_factor": 0.001}
    config = {"broker": {"journal": None}}
    with Bus(engines={"tone": 2}, settings=settings, config=config) as bus, Client(bus.frontend) as client:
        broker = bus.broker.pid if bus.broker else 0
        most = 0

        def p99_s(times: int) -> float:
            nonlocal most
            spans: list[float] = []
            for _ in range(times):
                begun = time.monotonic()
                client.say("a", engine="tone")
                spans.append(time.monotonic() - begun)
                most = max(most, rss_bytes(broker))
            return percentile(spans, 0.99)

        text = ("x" * 399 + ". ") * 248
        header = encode(Submit("tone", characters=len(text)))
        reader = zmq.Context.instance().socket(zmq.DEALER)
        reader.rcvhwm = 1
        reader.connect(bus.frontend)

        def ask() -> None:
            reader.send_multipart([wire.pack_envelope(wire.SUBMIT, os.urandom(16)), header, text.encode()])

        def read() -> None:
            while reader.recv_multipart()[0][3] not in (wire.DONE, wire.FAILED):
                pass

        p99_s(200)
        alone_s = p99_s(1000)
        ask()
        reading = threading.Thread(target=read)
        reading.start()
        beside_reader_s = p99_s(1000)
        reading.join()
        base, most = most, 0
        ask()
        beside_sleeper_s = p99_s(1000)
        until(lambda: client.status()["totals"]["slow_consumers"])
        reader.close(0)
        scene.say("result asked for", f"{len(text) * 0.042 * 48_000 / 1e6:.0f} MB")
        scene.say("broker's memory grew by", f"{(most - base) / MIB:.1f} MiB", "≤ 64 MiB")
        scene.say("others' p99, with nobody else there", f"{1000 * alone_s:.1f} ms")
        scene.say("others' p99, beside one who reads it", f"{1000 * beside_reader_s:.1f} ms")
        scene.say("others' p99, beside one who does not", f"{1000 * beside_sleeper_s:.1f} ms", "as before")
        scene.must("slow readers cut off", client.status()["totals"]["slow_consumers"], 1)


def rolling(scene: Scene, jobs: int = 1500) -> None:
    """Four workers are drained and started again, one after the other, under load."""
    pace = {"seconds_per_char": 0.01, "realtime_factor": 1.0}
    with Bus(engines={"tone": 4}, settings=pace) as bus, Client(bus.frontend) as client:
        lines = (f"line {number}" for number in range(jobs))
        codes: list[int] = []
        done = threading.Event()

        def restart() -> None:
            for number in range(4):
                worker = bus.workers[number]
                with Client(bus.frontend) as operator:
                    operator.drain(worker.name)
                code = worker.wait(WAIT_S)
                codes.append(-1 if code is None else code)
                bus.start_worker("tone", name=worker.name)
            done.set()

        thread = threading.Thread(target=restart)
        thread.start()
        results = list(client.map(lines, engine="tone", voice="amber"))
        while not done.is_set():
            results += client.map((f"more {number}" for number in range(100)), engine="tone", voice="amber")
        thread.join()
        totals = client.status()["totals"]
        scene.say("jobs", len(results))
        scene.must("exit codes of the drained", codes, [0, 0, 0, 0])
        scene.must("failed", sum(result.error is not None for result in results), 0)
        scene.must("retried", totals["retried"], 0)
        scene.say("handed back unbegun", totals["returned"])


SCENES: Final[dict[str, Callable[[Scene], None]]] = {
    scene.__name__: scene
    for scene in (durable, failover, wedged, fairness, disconnects, slow_reader, rolling)
}


def _rows(scene: Scene) -> Iterator[str]:
    for what, value, budget in scene.seen:
        yield f"  {what:<48} {value:>22}  {budget}"


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(SCENES)))
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("out/bench-guarantees.json"))
def main(names: tuple[str, ...], output: Path) -> None:
    """Play scenes and print what was seen; exit 1 if a promise was broken."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # In the background of a script Ctrl-C is ignored, and what we start would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    found: dict[str, Any] = {}
    wrong: list[str] = []
    for name in names or SCENES:
        scene = Scene()
        play = SCENES[name]
        click.echo(f"{name}: {(play.__doc__ or '').splitlines()[0]}")
        with suppress(KeyboardInterrupt):
            play(scene)
        for row in _rows(scene):
            click.echo(row)
        found[name] = scene.seen
        wrong += [f"{name}: {what}" for what in scene.wrong]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for row in wrong:
        click.echo(f"broken: {row}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
