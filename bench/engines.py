"""What the engines speak in a second, and what the bus costs beside calling the very same engine directly.

    python -m bench.engines [--rounds 5] [--xtts FOLDER]

Each engine runs twice, in a process of its own that is called through a pipe, and behind a real broker and
worker, with the same settings and the same texts. The two take turns and change who begins, so that a busy
machine is busy for both, and the overhead is the median of the ratios of such pairs. XTTS-v2 comes in its
true size with random weights: how long a step takes does not depend on their values, only what is heard does.
Each row is cut at the same number of audio tokens, and a pair whose audio differs in length is an error and
not a figure. Threads are not told who is waited for (`common/urgency.py`): jobs of a batch would give way
to whatever else runs here, and the engine alone would not.
"""

from __future__ import annotations

import multiprocessing
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
from .processes import CACHE, ROOT, load_average
from .tables import spread

PAGE: Final = Path(__file__).with_suffix(".md")
FULL: Final = CACHE / "xtts-full"
XTTS: Final = "true size (454 million parameters), random weights"
VOICE: Final = "amber"
LANGUAGE: Final = "en"
LOAD_S: Final = 600.0
BUDGET: Final = 1.02
"""Time over the bus by time of the engine alone."""
ROWS: Final = (1, 2, 4, 8)
SLOTS: Final = (1, 2)
TOKENS: Final = 40
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
    pairs: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    audio_s: float = 0.0
    "What is spoken each time."
    outside_s: list[float] = field(default_factory=list[float])
    "Of each time over the bus, what the engine's process did not spend; known where there is one."

    def row(self) -> dict[str, Any]:
        """The figures."""
        direct = [self.audio_s / alone for alone, _ in self.pairs]
        bus = [self.audio_s / bussed for _, bussed in self.pairs]
        return {
            "engine": self.engine,
            "form": self.form,
            "audio_s": self.audio_s,
            "direct_rate": direct,
            "bus_rate": bus,
            "ratio": [bussed / alone for alone, bussed in self.pairs],
            "outside_ms": [1000 * seconds for seconds in self.outside_s],
        }


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
            pipe.close()
            process.terminate()
            process.join()

    def speak(self, groups: Sequence[Sequence[str]]) -> tuple[float, float]:
        """Speak groups of texts, each by whichever process is free; seconds taken, and of audio."""
        begun, audio_s = time.perf_counter(), 0.0
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
        return time.perf_counter() - begun, audio_s


# ---- the same over the bus


def over_bus(client: Client, engine: str, texts: Sequence[str]) -> tuple[float, float, float]:
    """Speak texts at once; seconds taken, of audio, and of the engine processes. Raises `BusError`."""
    begun, audio_s, engine_s = time.perf_counter(), 0.0, 0.0
    for result in client.map(texts, engine=engine, voice=VOICE, language=LANGUAGE, window=len(texts)):
        if result.speech is None:
            raise result.error or RuntimeError("a result without speech and without an error")
        audio_s += result.speech.duration_s
        engine_s += result.speech.engine_s
    return time.perf_counter() - begun, audio_s, engine_s


def measure(
    cells: Mapping[Cell, Sequence[Sequence[str]]],
    settings: Mapping[str, Any],
    slots: int,
    rounds: int,
    host: Mapping[str, Any] | None = None,
) -> None:
    """Fill cells of one engine and one number of slots: groups of texts that are spoken together.

    `host`: settings that the engine has only on the bus.
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
        for turn in range(rounds + 1):
            for cell, groups in cells.items():
                _pair(cell, groups, direct, client, bus_first=turn % 2 == 1, kept=turn > 0, slots=slots)


def _pair(
    cell: Cell,
    groups: Sequence[Sequence[str]],
    direct: Direct,
    client: Client,
    *,
    bus_first: bool,
    kept: bool,
    slots: int,
) -> None:
    texts = [text for group in groups for text in group]
    spoken = over_bus(client, cell.engine, texts) if bus_first else None
    alone_s, audio_s = direct.speak(groups)
    bussed_s, bussed_audio_s, engine_s = spoken or over_bus(client, cell.engine, texts)
    if abs(audio_s - bussed_audio_s) > SAME_S * len(texts):
        raise RuntimeError(
            f"{cell.engine}, {cell.form}: {audio_s:.3f} s of audio alone, {bussed_audio_s:.3f} s over the bus"
        )
    if kept:  # the first turn warms both up, and learns the voice
        cell.audio_s = audio_s
        cell.pairs.append((alone_s, bussed_s))
        if slots == 1:
            cell.outside_s.append(bussed_s - engine_s)


def measure_xtts(folder: Path, rows: Sequence[int], rounds: int, tokens: int, threads: int) -> list[Cell]:
    """Batches of one call each."""
    cells = [Cell("xtts", f"{count} at once") for count in rows]
    settings = {"model_dir": str(folder), "max_tokens": tokens, "threads": threads, "batch": max(2, *rows)}
    groups = {cell: [TEXTS[:count]] for cell, count in zip(cells, rows, strict=True)}
    # Random weights babble: the host would find most of it faulty, and have it said twice.
    measure(groups, settings, 1, rounds, host={"self_check": False})
    return cells


def measure_kokoro(slots: int, rounds: int, threads: int) -> list[Cell]:
    """Sentences one by one; the slots share the threads."""
    cell = Cell("kokoro", f"{slots} slot{'s' if slots > 1 else ''}")
    measure({cell: [[text] for text in TEXTS]}, {"threads": max(1, threads // slots)}, slots, rounds)
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


# ---- the page


def page(found: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    before, after = found["load_average"]
    host = found["machine"]
    lines = [
        "# Engines: what they speak in a second, and what the bus costs",
        "",
        f"Written by `{found['command']}` on {found['date']}. {host['cpu']}, {host['cores']} cores, "
        f"{host['system']}, Python {host['python']}, no GPU; load average {before:.2f} before and "
        f"{after:.2f} after. Where three figures stand, they are least – **middle** – most.",
        "",
        f"XTTS-v2: {found['xtts']}, float32, {found['tokens']} tokens a row; {found['threads']} threads. "
        "*Over the bus by alone*: the time of the same work through broker, worker and client by that of the "
        "engine called in a process of its own, pair by pair in one run. *Outside the engine*: what of the "
        "time over the bus the engine's process did not spend on the jobs. The host's look at each segment's "
        "sound is in Kokoro's figures; at the babble of random weights it is off.",
        "",
        "| engine | | audio s a round | audio s per s, alone | over the bus | over the bus by alone | budget "
        "| | outside the engine, ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        middle = statistics.median(row["ratio"])
        lines.append(
            f"| {row['engine']} | {row['form']} | {row['audio_s']:.1f} | {spread(row['direct_rate'], '.3f')} "
            f"| {spread(row['bus_rate'], '.3f')} | {spread(row['ratio'], '.3f')} | ≤ {BUDGET:g} "
            f"| {'kept' if middle <= BUDGET else '**missed**'} | {spread(row['outside_ms'], '.1f')} |"
        )
    lines += [f"\n- left out: {reason}" for reason in found["skipped"]]
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option(
    "--xtts", "folder", type=click.Path(path_type=Path), help="A checkpoint in place of the full one."
)
@click.option("--rows", "rows", multiple=True, default=ROWS, show_default=True, type=click.IntRange(1, 8))
@click.option("--tokens", default=TOKENS, show_default=True, type=click.IntRange(10, 60))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 64))
@click.option("--engine", "engines", multiple=True, default=("kokoro", "xtts"), show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=PAGE)
def main(
    rounds: int,
    folder: Path | None,
    rows: tuple[int, ...],
    tokens: int,
    threads: int,
    engines: tuple[str, ...],
    output: Path,
) -> None:
    """Print the figures and keep them."""
    before = load_average()
    cells: list[Cell] = []
    skipped: list[str] = []
    for engine in engines:
        try:
            if engine == "xtts":
                cells += measure_xtts(folder or full_xtts(), rows, rounds, tokens, threads)
            else:
                for slots in SLOTS:
                    cells += measure_kokoro(slots, rounds, threads)
        except BusError as error:
            skipped.append(f"{engine}: {error}")
    text = page(
        {
            "command": " ".join(["python -m bench.engines", *sys.argv[1:]]),
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": machine.describe(),
            "load_average": (before, load_average()),
            "tokens": tokens,
            "threads": threads,
            "xtts": XTTS if folder is None else f"the checkpoint in {folder}",
            "rows": [cell.row() for cell in cells],
            "skipped": skipped,
        }
    )
    click.echo(text)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
