"""`vc voices`: the voice store. It needs no broker: workers look voices up in the same store.

Who adds and removes is written down (`common/audit.py`), as at the edge.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ...common.printable import printable
from .shared import Setting, console, with_setting

if TYPE_CHECKING:
    from ...common.audit import Audit
    from ...common.voices import VoiceStore


@click.group()
def voices() -> None:
    """Add, list, show and remove voices."""


def _store(setting: Setting) -> VoiceStore:
    from ...common.voices import VoiceStore

    config = setting.config()
    return VoiceStore(config.voices.path)


def _audit(setting: Setting) -> Audit:
    from ...common.audit import Audit

    return Audit(setting.config().security.audit)


@voices.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@with_setting
def list_voices(setting: Setting, as_json: bool) -> None:
    """List all voices, the shipped ones included."""
    found = _store(setting).list()
    if as_json:
        _print_json([asdict(voice) for voice in found])
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("voice", "name", "language", "seconds", "licence"):
        table.add_column(title, justify="right" if title == "seconds" else "left")
    for voice in found:
        table.add_row(
            voice.id,
            escape(printable(voice.name)),
            voice.language,
            f"{voice.seconds:.1f}",
            escape(printable(voice.licence)),
        )
    console().print(table)


@voices.command()
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@with_setting
def show(setting: Setting, id: str, as_json: bool) -> None:
    """Show all that is known of the voice ID."""
    voice = asdict(_store(setting).get(id))
    if as_json:
        _print_json(voice)
        return
    for key, value in voice.items():
        if value is not None:
            click.echo(f"{key}: {printable(str(value))}")


@voices.command()
@click.argument("id")
@click.argument("recording", type=click.Path())
@click.option("--consent", required=True, help="Whose voice it is and that they agree, in words.")
@click.option("--name", help="A name for people; default: the id.")
@click.option("--language", default="en-us", show_default=True, metavar="TAG", help="What is spoken in it.")
@click.option("--licence", default="private", show_default=True, help="Under which licence it may be used.")
@click.option("--text", help="What is said in it, word for word; some engines clone better with it.")
@click.option("--replace", is_flag=True, help="Replace a voice of this id.")
@with_setting
def add(
    setting: Setting,
    id: str,
    recording: str,
    consent: str,
    name: str | None,
    language: str,
    licence: str,
    text: str | None,
    replace: bool,
) -> None:
    """Keep RECORDING (a file of some seconds of clean speech) as the voice ID."""
    from ...common.audit import user

    store = _store(setting)
    with _audit(setting).act(
        "voice.add",
        user(),
        voice=id,
        voice_name=name or id,
        consent=consent,
        licence=licence,
        recording=recording,
        replace=replace,
    ) as act:
        voice = store.add(
            id,
            recording,
            consent=consent,
            name=name,
            language=language,
            licence=licence,
            text=text,
            replace=replace,
        )
        act.add(sha256=voice.sha256)
    click.echo(f'{voice.id}: {voice.seconds:.1f} s of speech kept; try: vc say "Hello." --voice {voice.id}')


@voices.command()
@click.argument("id")
@with_setting
def remove(setting: Setting, id: str) -> None:
    """Remove the voice ID and what was learnt of it."""
    from ...common.audit import user
    from ...common.errors import BusError, UnknownVoice

    store = _store(setting)
    try:
        sha256 = store.get(id).sha256
    except UnknownVoice:
        raise
    except BusError:
        sha256 = None  # its record is broken, which is a reason to remove it
    with _audit(setting).act("voice.remove", user(), voice=id, sha256=sha256):
        store.remove(id)
    click.echo(f"{id}: removed")


def _print_json(found: Any) -> None:
    click.echo(printable(json.dumps(found, indent=2, ensure_ascii=False), lines=True))
