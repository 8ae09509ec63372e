"""`vc batch`: a file of lines to a folder of audio files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import click

from ...common.errors import BrokerUnreachable
from .say import options_of
from .shared import Setting, console, is_terminal, note, with_setting

if TYPE_CHECKING:
    from ..batch import Tally

PLAIN_EVERY_S: Final = 5.0


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path())
@click.option("-o", "--output", "folder", required=True, type=click.Path(), help="The folder to write to.")
@click.option("--resume", is_flag=True, help="Take up a batch that was interrupted: do only what is missing.")
@click.option("--voice", "-v", default="", metavar="ID", help="For lines that name no voice.")
@click.option("--engine", "-e", default="", help="For lines that name no engine.")
@click.option("--language", "-l", default="", metavar="TAG", help="For lines that name no language.")
@click.option("--speed", type=float, default=1.0, metavar="X", help="For lines that name no speed.")
@click.option(
    "--format", type=click.Choice(["wav", "flac", "mp3", "opus", "pcm"]), default="wav", show_default=True
)
@click.option("--lane", type=click.Choice(["interactive", "batch"]), default="batch", show_default=True)
@click.option("--deadline", type=float, metavar="SECONDS", help="Give a line up after this long.")
@click.option("--window", type=click.IntRange(1, 100_000), help="Lines under way at once.")
@click.option(
    "--durable", is_flag=True, help="Have the broker go on by itself when this is interrupted, or it is."
)
@click.option("--option", "pairs", multiple=True, metavar="KEY=VALUE", help="An option of the engine.")
@with_setting
def batch(
    setting: Setting,
    source: str,
    folder: str,
    resume: bool,
    voice: str,
    engine: str,
    language: str,
    speed: float,
    format: str,
    lane: str,
    deadline: float | None,
    window: int | None,
    durable: bool,
    pairs: tuple[str, ...],
) -> int:
    """Speak every line of INPUT: .txt (a line an utterance), .csv or .jsonl.

    CSV columns and JSON keys: text, and optionally voice, engine, language, speed, id. Files are named by
    line and id; manifest.jsonl says what became of each line. Interrupted at any point, the same command with
    --resume does what is missing; with --durable it also fetches what has been spoken meanwhile. Ends with 1
    when any line failed.
    """
    from .. import batch as work
    from ..batch_input import read_lines

    lines = read_lines(source)
    wishes = work.Wishes(voice, engine, language, speed, options_of(pairs), format)
    again = f"vc batch {source} -o {folder} --resume, with the same options"
    if durable:
        again += " (the broker goes on meanwhile)"
    if work.has_manifest(folder) and not resume:
        raise click.UsageError(
            f"{folder} holds a batch already: add --resume to take it up, or name another folder"
        )
    tally = work.Tally(len(lines))
    with setting.client() as bus:
        # Before the folder is touched: a bus that is not there is told at once.
        bus.status()
        try:
            with work.Folder(folder) as output, _progress(len(lines)) as progress:
                for tally in work.run(
                    bus,
                    lines,
                    output,
                    wishes,
                    durable=durable,
                    lane=lane,
                    deadline_s=deadline,
                    window=window,
                ):
                    progress.show(tally)
        except KeyboardInterrupt:
            note(
                f"interrupted: {tally.kept + tally.done} of {tally.total} lines are done; go on with: {again}"
            )
            raise
        except BrokerUnreachable:
            note(f"stopped: {tally.kept + tally.done} of {tally.total} lines are done; go on with: {again}")
            raise
        except OSError as error:
            raise click.UsageError(f"{folder} cannot be written to: {error.strerror or error}") from None
    kept = f" ({tally.kept} from before)" if tally.kept else ""
    over = f"{tally.kept + tally.done} of {tally.total} lines done{kept}"
    click.echo(f"{folder}: {over}, {tally.audio_s:.1f} s of audio")
    if tally.codes:
        codes = ", ".join(f"{code} {count}" for code, count in sorted(tally.codes.items()))
        note(f"vc: {tally.failed} of {tally.total} lines failed: {codes}; try them again with: {again}")
        return 1
    return 0


class _Shown(Protocol):
    def show(self, tally: Tally) -> None:
        """Show how far the batch is."""


@contextmanager
def _progress(total: int) -> Generator[_Shown]:
    if not is_terminal():
        yield _Plain()
        return
    with contextlib.ExitStack() as stack:
        yield _Bar(total, stack)


class _Bar:
    def __init__(self, total: int, stack: contextlib.ExitStack) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = stack.enter_context(
            Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[failed]}"),
                console=console(stderr=True),
            )
        )
        self._task = self._bar.add_task("", total=total, rate="", failed="")
        self._clock = _Clock()
        self._begun = False

    def show(self, tally: Tally) -> None:
        if not self._begun:
            self._begun = True
            # What was done before must not count as speed.
            self._bar.reset(self._task, total=tally.total, completed=tally.kept)
        self._bar.update(
            self._task,
            completed=tally.kept + tally.done + tally.failed,
            rate=f"{self._clock.rate(tally):.1f}/s",
            failed=f"{tally.failed} failed" if tally.failed else "",
        )


class _Plain:
    def __init__(self) -> None:
        self._clock = _Clock()
        self._next_at = time.monotonic() + PLAIN_EVERY_S

    def show(self, tally: Tally) -> None:
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + PLAIN_EVERY_S
        over = tally.kept + tally.done + tally.failed
        rate = self._clock.rate(tally)
        left = f"{(tally.total - over) / rate:.0f} s left" if rate else "unknown time left"
        note(f"{over} of {tally.total} lines, {rate:.1f} lines/s, {tally.failed} failed, {left}")


class _Clock:
    def __init__(self) -> None:
        self._begun_at = time.monotonic()

    def rate(self, tally: Tally) -> float:
        """Lines a second in this run."""
        seconds = time.monotonic() - self._begun_at
        return (tally.done + tally.failed) / seconds if seconds > 0 else 0.0
