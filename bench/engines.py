"""What the engines speak in a second, and what the bus costs beside calling the very same engine directly.

    python -m bench.engines [--starts 12] [--rounds 1] [--xtts FOLDER] [--set device=cuda:0]

Each engine runs twice, in a process of its own that is called through a pipe, and behind a real broker and
worker, with the same settings and the same texts. The two take turns and change who begins, so that a busy
machine is busy for both, and the overhead is the median of the ratios of such pairs. Pairs are short and
many, and a short one is taken more often: from one call to the next the same process may be a tenth slower.
A process may also be 2.5 % slower or faster than its twin for as long as it lives, so all are started anew
after every few pairs, and how well the median is known is said by drawing whole starts (`intervals.py`).
XTTS-v2 has its true size and random weights: how long a step takes does not depend on their values, only what
is heard does. Each row is cut at the same number of audio tokens, and a pair whose audio differs in length is
an error and not a figure. Threads are not told who is waited for (`common/urgency.py`): jobs of a batch would
give way to whatever else runs here, and the engine alone would not.
"""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle, islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import click

from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.common.config import load_config
from voicebus.common.errors import BusError
from voicebus.common.urgency import OFF
from voicebus.common.voices import VoiceStore
from voicebus.workers.engine import Engine, Reference, Request, Row
from voicebus.workers.registry import create

from . import machine
from .engine_page import page
from .interactive import family
from .intervals import of_middle
from .processes import CACHE, ROOT, cpu_ns, load_average, until

PAGE: Final = Path(__file__).with_suffix(".md")
FULL: Final = CACHE / "xtts-full"
XTTS: Final = "true size (454 million parameters), random weights"
VOICE: Final = "amber"
LANGUAGE: Final = "en"
LOAD_S: Final = 600.0
ROWS: Final = (1, 2, 4, 8)
SLOTS: Final = (1, 2)
TOKENS: Final = 20
OFTEN: Final = 4
"""Pairs of one row in each round; of more rows as many as take about as long, at least one."""
SENTENCES: Final = 2
"""Of Kokoro, which speaks one at a time in each slot."""
KOKORO_ROUNDS: Final = 2
"""Pairs of Kokoro for one of XTTS."""
SAME_S: Final = 0.001
"""What the audio of a pair may differ by: nothing but the rounding of a sum."""
TEXTS: Final = (
    "The ferry leaves the northern harbour at nine tomorrow.",
    "Nobody had told her that the gate would be closed so early.",
    "A small brown bird was sitting on the old garden fence.",
    "They walked along the river until the light was gone.",
    "My brother keeps his letters in a box under the stairs.",
    "The last train to the coast was late again this evening.",
    "We could hear the sea from every window of the house.",
    "Please leave the key with the neighbour before you go.",
)
"""A segment each, of more characters than the tokens that they are cut at last for."""


@dataclass(eq=False)
class Cell:
    """One engine in one form: pairs of the seconds it took alone and over the bus."""

    engine: str
    form: str
    often: int = 1
    "Pairs in each round."
    starts: list[list[tuple[float, float]]] = field(default_factory=list[list[tuple[float, float]]])
    "Pairs by the start of the processes that they are of."
    audio_s: float = 0.0
    "What is spoken each time."
    processor: list[float] = field(default_factory=list[float])
    "Processor time over the bus by that alone, everybody's who took part, pair by pair."
    outside_s: list[float] = field(default_factory=list[float])
    "Of each time over the bus, what the engine's process did not spend; known where there is one."

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """All of them, in order."""
        return [pair for start in self.starts for pair in start]

    def row(self) -> dict[str, Any]:
        """The figures."""
        pairs = self.pairs
        direct = [self.audio_s / alone for alone, _ in pairs]
        bus = [self.audio_s / bussed for _, bussed in pairs]
        return {
            "engine": self.engine,
            "form": self.form,
            "audio_s": self.audio_s,
            "direct_rate": direct,
            "bus_rate": bus,
            "ratio": [bussed / alone for alone, bussed in pairs],
            "middle": of_middle([[bussed / alone for alone, bussed in start] for start in self.starts]),
            "processor": self.processor,
            "outside_ms": [1000 * seconds for seconds in self.outside_s],
        }


@dataclass(frozen=True, slots=True)
class Taken:
    """What speaking something took."""

    seconds: float
    audio_s: float
    processor_ns: int
    engine_s: float = 0.0
    "As the engine processes on the bus say it themselves."


def used_ns(pids: Iterable[int]) -> int:
    """Processor time of some processes and of this one."""
    return time.process_time_ns() + sum(map(cpu_ns, pids))


# ---- the engine alone


def _serve(pipe: Connection, name: str, settings: Mapping[str, Any]) -> None:
    """A process with one engine: it is sent lists of texts, and answers with seconds of audio."""
    engine: Engine[Any] = create(name)
    engine.load(settings)
    recording = VoiceStore(load_config(None).voices.path).reference(VOICE)
    voice = engine.voice(Reference(VOICE, recording.samples, recording.rate_hz, recording.sha256))
    pipe.send(0.0)
    while texts := pipe.recv():
        pipe.send(_spoken_s(engine, texts, voice))


def _spoken_s(engine: Engine[Any], texts: Sequence[str], voice: Any) -> float:
    segments = [segment for text in texts for segment in engine.segments(text, LANGUAGE)]
    requests = [Request(segment, LANGUAGE) for segment in segments]
    if engine.batch > 1:
        rows = [Row(request, voice) for request in requests]
        parts = [samples for _, samples in engine.speak_batch(rows) if samples is not None]
    else:
        parts = [samples for request in requests for samples in engine.speak(request, voice)]
    return sum(part.size for part in parts) / engine.sample_rate


class Direct:
    """As many processes with an engine as there are slots; they are called, and there is no bus."""

    def __init__(self, engine: str, settings: Mapping[str, Any], slots: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for _ in range(slots):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, engine, dict(settings)), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        for pipe in self._pipes:
            pipe.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            process.terminate()
            process.join()
            pipe.close()

    def speak(self, groups: Sequence[Sequence[str]]) -> Taken:
        """Speak groups of texts, each by whichever process is free."""
        pids = [process.pid for process in self._processes]
        used, begun, audio_s = used_ns(pids), time.perf_counter(), 0.0
        left = [list(group) for group in groups]
        free, busy = list(self._pipes), set[Connection]()
        while left or busy:
            while left and free:
                pipe = free.pop()
                pipe.send(left.pop(0))
                busy.add(pipe)
            for ready in wait(list(busy)):
                pipe = next(pipe for pipe in busy if pipe is ready)
                audio_s += pipe.recv()
                busy.remove(pipe)
                free.append(pipe)
        return Taken(time.perf_counter() - begun, audio_s, used_ns(pids) - used)


# ---- the same over the bus


def over_bus(client: Client, engine: str, texts: Sequence[str], pids: Sequence[int]) -> Taken:
    """Speak texts at once, on a bus of these processes. Raises `BusError`."""
    used, begun, audio_s, engine_s = used_ns(pids), time.perf_counter(), 0.0, 0.0
    for result in client.map(texts, engine=engine, voice=VOICE, language=LANGUAGE, window=len(texts)):
        if result.speech is None:
            raise result.error or RuntimeError("a result without speech and without an error")
        audio_s += result.speech.duration_s
        engine_s += result.speech.engine_s
    return Taken(time.perf_counter() - begun, audio_s, used_ns(pids) - used, engine_s)


def calls_of(client: Client, rows: int) -> int:
    """In how many calls the worker's engine has spoken so many rows, once the broker knows of all."""

    def stats() -> Mapping[str, Any]:
        return client.status()["workers"][0]["stats"]

    until(lambda: stats().get("rows_spoken") == rows, LOAD_S, f"word of {rows} rows")
    return int(stats()["generate_calls"])


def measure(
    cells: Mapping[Cell, Sequence[Sequence[str]]],
    settings: Mapping[str, Any],
    slots: int,
    rounds: int,
    host: Mapping[str, Any] | None = None,
    look: Callable[[Client], None] = lambda _: None,
) -> None:
    """Fill cells of one engine and one number of slots, after one start: groups of texts spoken together.

    `host`: settings that the engine has only on the bus. `look` is called at the end.
    """
    engine = next(iter(cells)).engine
    with ExitStack() as stack:
        direct = stack.enter_context(Direct(engine, settings, slots))
        bus = stack.enter_context(
            Bus(
                {engine: 1},
                settings={**settings, **(host or {})},
                slots=slots,
                environ={OFF: "off"},
                ready_timeout_s=LOAD_S,
            )
        )
        client = stack.enter_context(Client(bus.frontend))
        children = [child for child in (bus.broker, *bus.workers) if child is not None]
        pids = [pid for child in children for pid in family(child.pid)]
        for cell in cells:
            cell.starts.append([])
        for turn in range(rounds + 1):
            for cell, groups in cells.items():
                texts = [text for group in groups for text in group]
                for _ in range(cell.often if turn else 1):
                    bussed = over_bus(client, engine, texts, pids) if len(cell.pairs) % 2 else None
                    alone = direct.speak(groups)
                    bussed = bussed or over_bus(client, engine, texts, pids)
                    keep(cell, alone, bussed, texts=len(texts), slots=slots, kept=turn > 0)
        look(client)


def keep(cell: Cell, alone: Taken, bussed: Taken, *, texts: int, slots: int, kept: bool) -> None:
    """Put a pair into its cell if it is `kept`. Raises `RuntimeError` where the two differ in length."""
    if abs(alone.audio_s - bussed.audio_s) > SAME_S * texts:
        raise RuntimeError(
            f"{cell.engine}, {cell.form}: {alone.audio_s:.3f} s of audio alone, "
            f"{bussed.audio_s:.3f} s over the bus"
        )
    if kept:  # the first turn warms both up, and learns the voice
        cell.audio_s = alone.audio_s
        cell.starts[-1].append((alone.seconds, bussed.seconds))
        cell.processor.append(bussed.processor_ns / alone.processor_ns)
        if slots == 1:
            cell.outside_s.append(bussed.seconds - bussed.engine_s)


def measure_xtts(
    settings: Mapping[str, Any], rows: Sequence[int], starts: int, rounds: int
) -> tuple[list[Cell], str]:
    """Batches that are to be one call each; also a sentence on whether they were."""
    cells = [Cell("xtts", f"{count} at once", max(1, OFTEN // count)) for count in rows]
    settings = {**settings, "batch": max(2, *rows)}
    groups = {cell: [list(islice(cycle(TEXTS), count))] for cell, count in zip(cells, rows, strict=True)}
    calls = list[int]()
    batches = {count: 1 + rounds * cell.often for cell, count in zip(cells, rows, strict=True)}
    spoken = sum(count * times for count, times in batches.items())
    for _ in range(starts):
        # Random weights babble: the host would find most of it faulty, and have it said twice.
        measure(
            groups,
            settings,
            1,
            rounds,
            host={"self_check": False},
            look=lambda client: calls.append(calls_of(client, spoken)),
        )
    sent = starts * sum(batches.values())
    return cells, f"{sent} batches were sent over the bus, and spoken in {sum(calls)} calls."


def measure_kokoro(slots: int, starts: int, rounds: int, threads: int) -> list[Cell]:
    """Sentences one by one; the slots share the threads."""
    cell = Cell("kokoro", f"{slots} slot{'s' if slots > 1 else ''}")
    sentences = [[text] for text in TEXTS[:SENTENCES]]
    for _ in range(starts):
        measure({cell: sentences}, {"threads": max(1, threads // slots)}, slots, KOKORO_ROUNDS * rounds)
    return [cell]


def full_xtts(folder: Path = FULL) -> Path:
    """The checkpoint of true size with random weights, 1.9 GB, made where it is not there yet."""
    if not (folder / "speakers_xtts.pth").exists():
        new = folder.with_name(f"{folder.name}.new")
        script = ROOT / "tests" / "workers" / "engines" / "checkpoints.py"
        subprocess.run([sys.executable, script, "xtts", new, "--full"], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    return folder


@click.command()
@click.option(
    "--starts", default=12, show_default=True, type=click.IntRange(1, 100), help="Of all processes."
)
@click.option(
    "--rounds",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Of pairs after each start: one of many rows, four of one row, two of Kokoro.",
)
@click.option(
    "--xtts", "folder", type=click.Path(path_type=Path), help="A checkpoint in place of the full one."
)
@click.option("--rows", "rows", multiple=True, default=ROWS, show_default=True, type=click.IntRange(1, 64))
@click.option("--tokens", default=TOKENS, show_default=True, type=click.IntRange(10, 60))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 64))
@click.option("--set", "chosen", multiple=True, metavar="KEY=VALUE", help="A setting of xtts.")
@click.option("--engine", "engines", multiple=True, default=("kokoro", "xtts"), show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=PAGE)
def main(
    starts: int,
    rounds: int,
    folder: Path | None,
    rows: tuple[int, ...],
    tokens: int,
    threads: int,
    chosen: tuple[str, ...],
    engines: tuple[str, ...],
    output: Path,
) -> None:
    """Print the figures and keep them."""
    before = load_average()
    cells: list[Cell] = []
    notes: list[str] = []
    for engine in engines:
        try:
            if engine == "xtts":
                settings: dict[str, Any] = {"model_dir": str(folder or full_xtts()), "max_tokens": tokens}
                settings |= {"threads": threads, **dict(pair.split("=", 1) for pair in chosen)}
                measured, note = measure_xtts(settings, rows, starts, rounds)
                cells += measured
                notes.append(note)
            else:
                for slots in SLOTS:
                    cells += measure_kokoro(slots, starts, rounds, threads)
        except BusError as error:
            notes.append(f"Left out: {engine}: {error}")
    text = page(
        {
            "command": " ".join(["python -m bench.engines", *sys.argv[1:]]),
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": machine.describe(),
            "load_average": (before, load_average()),
            "tokens": tokens,
            "threads": threads,
            "settings": "".join(f", {pair}" for pair in chosen),
            "xtts": XTTS if folder is None else f"the checkpoint in {folder}",
            "rows": [cell.row() for cell in cells],
            "notes": notes,
        }
    )
    click.echo(text)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
