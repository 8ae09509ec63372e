"""`vc say`: one text to one file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from ...common.errors import BadRequest
from ...common.printable import printable
from ...common.yaml_reading import read_yaml
from .shared import Setting, note, with_setting

if TYPE_CHECKING:
    from ..speech import Speech

MAX_FILE_BYTES = 16 * 1024 * 1024


@click.command()
@click.argument("text", required=False)
@click.option("--file", "-f", "source", type=click.Path(), help="Read the text from a file instead.")
@click.option("--voice", "-v", default="", metavar="ID", help="Whose voice; see `vc voices list`.")
@click.option(
    "-o", "--output", default="speech.wav", show_default=True, help="Where to; `-` is stdout, as WAV."
)
@click.option("--engine", "-e", default="", help="Which engine; default: the broker's.")
@click.option("--language", "-l", default="", metavar="TAG", help="Language of the text, like en-us.")
@click.option("--speed", type=float, default=1.0, metavar="X", help="A factor from 0.25 to 4.")
@click.option("--lane", type=click.Choice(["interactive", "batch"]), default="interactive", show_default=True)
@click.option("--deadline", type=float, metavar="SECONDS", help="Give up after this long.")
@click.option("--option", "pairs", multiple=True, metavar="KEY=VALUE", help="An option of the engine.")
@with_setting
def say(
    setting: Setting,
    text: str | None,
    source: str | None,
    voice: str,
    output: str,
    engine: str,
    language: str,
    speed: float,
    lane: str,
    deadline: float | None,
    pairs: tuple[str, ...],
) -> None:
    """Speak TEXT (`-`: read it from stdin) and write it to a file.

    The file's format follows from its name: .wav, .flac, .mp3, .opus. Nothing is written on failure.
    """
    words = read_text(text, source)
    check_output(output)
    with setting.client() as bus:
        speech = bus.say(
            words,
            voice=voice,
            engine=engine,
            language=language,
            speed=speed,
            lane=lane,
            deadline_s=deadline,
            options=options_of(pairs),
        )
    write(output, voice, speech)


def write(output: str, voice: str, speech: Speech) -> None:
    """Write speech to a file, or to stdout as WAV, and say what was made."""
    if output == "-":
        from ...common.audio import encode

        sys.stdout.buffer.write(encode(speech.samples, speech.sample_rate_hz, "wav"))
        sys.stdout.buffer.flush()
        note(summary("stdout", voice, speech))
    else:
        speech.save(output)
        click.echo(summary(output, voice, speech))


def summary(place: str, voice: str, speech: Speech) -> str:
    """The one line that says what was made and how fast."""
    duration_s = speech.duration_s
    factor = f"{speech.elapsed_s / duration_s:.3f}" if duration_s else "-"
    return (
        f"{place}: engine={printable(speech.engine)} worker={printable(speech.worker)} "
        f"voice={voice or 'default'} "
        f"audio={duration_s:.2f}s first_audio={speech.first_audio_s:.3f}s real_time_factor={factor}"
    )


def read_text(text: str | None, source: str | None) -> str:
    """The text of the argument, of stdin or of a file. Raises `UsageError` for none or two of them."""
    if (text is None) == (source is None):
        raise click.UsageError("give the text as an argument, `-` to read stdin, or --file FILE")
    if source is not None:
        try:
            with open(source, "rb") as file:
                return _decoded(source, file)
        except OSError as error:
            raise click.UsageError(f"{source} cannot be read: {error.strerror}") from None
    if text == "-":
        return _decoded("stdin", sys.stdin.buffer)
    return text or ""


def _decoded(name: str, file: BinaryIO) -> str:
    """All of a file, which may be a pipe without an end."""
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise click.UsageError(f"{name} is larger than {MAX_FILE_BYTES:,} bytes: speak it with vc batch")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"{name} is not UTF-8 text: convert it first") from None


def check_output(output: str) -> None:
    """Refuse a file that could not be written, before anything is spoken. Raises `UsageError`."""
    from ..saving import format_of

    if output == "-":
        return
    try:
        format_of(output)
    except BadRequest as error:
        raise click.UsageError(error.message) from None
    folder = Path(output).absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise click.UsageError(f"{folder} is not a folder that can be written to: make it first")
    if Path(output).is_dir():
        raise click.UsageError(f"{output} is a folder: name a file in it")


def options_of(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read KEY=VALUE pairs; values are read as YAML, so numbers are numbers. Raises `UsageError`."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--option takes KEY=VALUE, not {pair!r}")
        try:
            options[key] = read_yaml(value) if value else ""
        except ValueError:
            raise click.UsageError(f"--option {key}: its value is not valid YAML: put it in quotes") from None
    return options
