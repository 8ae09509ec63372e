"""`vc keys`: who may connect to the bus, and (`vc keys api`) who may use the edge.

Secrets are written to files of this user's alone and never printed. What `show` prints is public: it may be
sent to whoever sets up the other end.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ...common.errors import ConfigError
from .api_keys import api
from .shared import Setting, console, with_setting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ...common.keyring import Keyring, Listed

DEFAULT_FOLDER = "keys"
ROLES = ("client", "worker", "admin")


@click.group()
def keys() -> None:
    """Make, list and revoke keys."""


keys.add_command(api)


def _in_folder(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--keys", "folder", metavar="FOLDER", help="Default: security.keys of the configuration, else ./keys."
    )(with_setting(command))


def _keyring(setting: Setting, folder: str | None) -> Keyring:
    from ...common.keyring import Keyring

    return Keyring(folder or setting.config().security.keys or DEFAULT_FOLDER)


@keys.command()
@click.option("--if-missing", is_flag=True, help="Where there are keys already, leave them and end well.")
@_in_folder
def init(setting: Setting, folder: str | None, if_missing: bool) -> None:
    """Make the server's key and one each for clients, workers and operators."""
    ring = _keyring(setting, folder)
    if if_missing and ring.exists:
        click.echo(f"keys are in {ring.folder} already")
        return
    for key in ring.init():
        click.echo(f"{key.role:6}  {ring.file(key.name)}")
    click.echo(f"server  {ring.file('server')}")
    if setting.config().security.keys is None:
        click.echo(
            f"to use them set `security.keys: {ring.folder}` in config.yaml, or VOICEBUS_SECURITY__KEYS",
            err=True,
        )


@keys.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What its holder may be.")
@click.option("--tenant", help="The only tenant that it may speak for (clients).")
@_in_folder
def new(setting: Setting, folder: str | None, name: str, role: str, tenant: str | None) -> None:
    """Make one more key, called NAME: a file to give to whoever is to hold it."""
    from ...common.keyring import Role

    if tenant is not None and role != Role.CLIENT:
        raise click.UsageError("--tenant is for keys with the role client")
    _, place = _keyring(setting, folder).new(name, Role(role), tenant=tenant)
    click.echo(place)
    click.echo(
        "whoever has this file may connect: move it there by a safe way and name it in security.key", err=True
    )


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@_in_folder
def list_keys(setting: Setting, folder: str | None, as_json: bool) -> None:
    """List the keys that are let in."""
    ring = _keyring(setting, folder)
    found = ring.list()
    if as_json:
        click.echo(json.dumps([_shown(key, ring) for key in found], indent=2, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "role", "tenant", "created", "public key"):
        table.add_column(title)
    for key in found:
        table.add_row(escape(key.name), key.role, escape(key.tenant or ""), key.created, escape(key.public))
    console().print(table)


@keys.command()
@click.argument("name")
@_in_folder
def revoke(setting: Setting, folder: str | None, name: str) -> None:
    """Revoke the key called NAME: the broker cuts its holder off within a heartbeat."""
    gone = _keyring(setting, folder).revoke(name)
    click.echo(f"revoked {gone.name} ({gone.role})")


@keys.command()
@click.argument("name", default="server")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@_in_folder
def show(setting: Setting, folder: str | None, name: str, as_json: bool) -> None:
    """Show what is public of the key called NAME; without one, the server's."""
    ring = _keyring(setting, folder)
    if name == "server":
        shown = {"name": name, "role": name, "public": ring.server().public, "file": str(ring.file(name))}
    else:
        known = next((key for key in ring.list() if key.name == name), None)
        if known is None:
            raise ConfigError(f"no key is named {name!r}: `vc keys list` shows them")
        shown = _shown(known, ring)
    if as_json:
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    for word, value in shown.items():
        if value is not None:
            click.echo(f"{word:8} {value}")


@keys.command()
@click.argument("name")
@click.argument("target", metavar="FOLDER")
@_in_folder
def copy(setting: Setting, folder: str | None, name: str, target: str) -> None:
    """Copy the key called NAME into another FOLDER, as the one that its role uses there."""
    click.echo(_keyring(setting, folder).copy(name, target))


def _shown(key: Listed, ring: Keyring) -> dict[str, Any]:
    place: Path = ring.file(key.name)
    return {
        "name": key.name,
        "role": str(key.role),
        "tenant": key.tenant,
        "public": key.public,
        "created": key.created,
        "file": str(place) if place.exists() else None,
    }
