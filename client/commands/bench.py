"""`vc bench`: how fast the bus at hand is, from where one stands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import click

from .shared import Setting, console, is_terminal, with_setting

if TYPE_CHECKING:
    from ...common.errors import BusError
    from ..benchmark import Batch, Pings, Singles, Wishes

PINGS: Final = 500
SINGLES: Final = 200
TEXT: Final = "The ferry leaves the northern harbour at nine."


@click.command()
@click.option("--engine", "-e", default="", help="Which engine; default: the broker's.")
@click.option("--voice", "-v", default="", metavar="ID", help="Whose voice; default: the worker's.")
@click.option("--language", "-l", default="", metavar="TAG", help="Language of the text, like en-us.")
@click.option("--text", "-t", default=TEXT, show_default=True, help="What every job speaks.")
@click.option(
    "--jobs", "-n", type=click.IntRange(1), default=1000, show_default=True, help="Jobs of the batch at most."
)
@click.option(
    "--window",
    "-w",
    type=click.IntRange(1, 100_000),
    help="Jobs under way at once; default: enough for all workers.",
)
@click.option(
    "--seconds", "-s", type=click.FloatRange(1, 86_400), default=30.0, show_default=True, metavar="S",
    help="How long it may take once the first job is spoken.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON document.")
@with_setting
def bench(
    setting: Setting,
    engine: str,
    voice: str,
    language: str,
    text: str,
    jobs: int,
    window: int | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure the bus: PINGs, then single jobs one after the other, then a batch.

    The engine's own time is in the figures of jobs; compare with `-e tone`, an engine that takes none. The
    first job is apart, as a model may be loaded for it and a voice learned; it is given two minutes. Ctrl-C
    shows what was found so far. Ends with 1 if not a single job was spoken.
    """
    from ..benchmark import Wishes

    wishes = Wishes(text, engine, voice, language)
    found = _Found()
    try:
        with _progress() as part:
            _measure(setting, wishes, found, jobs, window, seconds, part)
    except KeyboardInterrupt:
        found.interrupted = True
        _show(found, wishes, as_json)
        raise
    _show(found, wishes, as_json)
    if not found.done:
        raise found.errors[0]


@dataclass
class _Found:
    pings: list[Pings] = field(default_factory=list["Pings"])
    singles: Singles | None = None
    batch: Batch | None = None
    places: dict[str, int] = field(default_factory=dict[str, int])
    "Workers and slots of the engine."
    interrupted: bool = False

    @property
    def done(self) -> int:
        """Jobs that were spoken."""
        return (self.singles.done if self.singles else 0) + (self.batch.done if self.batch else 0)

    @property
    def errors(self) -> list[BusError]:
        """Why jobs failed."""
        return [error for part in (self.singles, self.batch) if part for error in part.errors]


Part = Callable[[str, int], Callable[[int], None]]
"""A part begins, with so many steps: gives what is to be told of each look."""


def _measure(
    setting: Setting,
    wishes: Wishes,
    found: _Found,
    jobs: int,
    window: int | None,
    seconds: float,
    part: Part,
) -> None:
    from .. import benchmark as work
    from ..face import limits_of

    addresses = setting.addresses()
    with setting.client() as bus:
        # A bus that is not there is told at once.
        status = bus.status()
        limits = limits_of(status)
        known = status.get("engines", {}).get(wishes.engine or limits.default_engine, {})
        found.places = {name: int(known.get(name, 0)) for name in ("workers", "slots")}
        for address in addresses:
            found.pings.append(work.Pings(address))
            work.ping(found.pings[-1], PINGS, monotonic() + work.PINGS_S, part("ping", PINGS))
        found.singles = singles = work.Singles()
        cold_end = monotonic() + work.COLD_S
        work.one_at_a_time(bus, wishes, singles, 1, cold_end, cold_end, part("first", 1))
        if not singles.done:
            return
        begun = monotonic()
        end, most = begun + seconds, min(jobs, SINGLES)
        until = begun + work.SINGLES_SHARE * seconds
        work.one_at_a_time(bus, wishes, singles, most, until, end, part("single", most))
        found.batch = work.Batch(window or limits.window(wishes.engine))
        work.all_at_once(bus, wishes, found.batch, jobs, end, part("batch", jobs))


@contextmanager
def _progress() -> Generator[Part]:
    if not is_terminal():
        yield lambda _name, _steps: lambda _done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    # It is drawn only when it is told something: a thread that draws by itself would do so during a job.
    with Progress(
        TextColumn("{task.description:<6}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console(stderr=True), auto_refresh=False, transient=True,
    ) as bar:  # fmt: skip

        def part(name: str, steps: int) -> Callable[[int], None]:
            task = bar.add_task(name, total=steps)
            bar.refresh()

            def look(done: int) -> None:
                bar.update(task, completed=done)
                bar.refresh()

            return look

        yield part


def _show(found: _Found, wishes: Wishes, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_figures(found, wishes), indent=2, ensure_ascii=False))
    else:
        for line in _lines(found):
            click.echo(line)


def _figures(found: _Found, wishes: Wishes) -> dict[str, Any]:
    from ..benchmark import codes

    return {
        "engine": wishes.engine,
        "voice": wishes.voice,
        "characters": len(wishes.text),
        **found.places,
        "ping": [pings.figures() for pings in found.pings],
        "single": found.singles.figures() if found.singles else None,
        "batch": found.batch.figures() if found.batch else None,
        "errors": codes(found.errors),
        "interrupted": found.interrupted,
    }


def _lines(found: _Found) -> Generator[str]:
    from ..benchmark import codes, percentile

    def spread(spans_s: list[float]) -> str:
        return "  ".join(f"p{share} {_ms(percentile(spans_s, share / 100))}" for share in (50, 95, 99))

    if found.places:
        yield f"bus      {found.places['workers']} workers with {found.places['slots']} slots for this engine"
    for pings in found.pings:
        lost = f", {pings.lost} lost" if pings.lost else ""
        yield f"ping     {spread(pings.spans_s)}  ({pings.address}, {len(pings.spans_s)} answered{lost})"
    singles, batch = found.singles, found.batch
    if singles is not None and singles.done:
        yield f"single   first audio after {spread(singles.first_audio_s)}"
        yield f"         all of it after   {spread(singles.whole_s)}"
        yield f"         {singles.done} jobs, the very first one heard after {_ms(singles.cold_s)}"
    if batch is not None and batch.done:
        yield (
            f"batch    {batch.jobs_per_s:,.1f} jobs/s, {batch.audio_per_s:,.2f} s of audio a second; "
            f"{batch.done:,} jobs, {batch.window} at once, in {batch.seconds:.1f} s"
        )
        if batch.stream_factors:
            factors = (percentile(batch.stream_factors, share) for share in (0.5, 0.95))
            yield "         each stream: real-time factor " + "  ".join(
                f"p{share} {factor:.2g}" for share, factor in zip((50, 95), factors, strict=True)
            )
        if batch.unfinished:
            yield f"         {batch.unfinished} were under way when the time was over"
    if found.errors:
        yield "errors   " + ", ".join(f"{code} {number}" for code, number in codes(found.errors).items())
    if found.interrupted:
        yield "         interrupted: these are the figures so far"


def _ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"
