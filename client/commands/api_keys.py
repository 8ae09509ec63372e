"""`vc keys api`: who may use the edge. A key is shown once, when it is made; what is kept is its hash."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import msgspec

from ...common.errors import ConfigError
from .shared import Setting, console, with_setting

if TYPE_CHECKING:
    from ...common.apikeys import ApiKeys


@click.group()
def api() -> None:
    """API keys of the HTTP edge (edge.api_keys in config.yaml)."""


def _file(setting: Setting) -> ApiKeys:
    from ...common.apikeys import ApiKeys

    path = setting.config().edge.api_keys
    if path is None:
        raise ConfigError(
            "edge.api_keys names no file: set it in config.yaml, for example to state/api-keys.json"
        )
    return ApiKeys(path)


@api.command()
@click.argument("name")
@click.option("--tenant", default="", help="Whose share of the bus its jobs use.")
@click.option("--rpm", type=int, help="Requests a minute; default: what bounds everybody.")
@with_setting
def new(setting: Setting, name: str, tenant: str, rpm: int | None) -> None:
    """Make a key called NAME and print it, this once."""
    made, key = _file(setting).new(name, tenant=tenant, rpm=rpm)
    click.echo(key)
    click.echo(f"key {made.id} for {made.name}: it is not shown again", err=True)


@api.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@with_setting
def list_keys(setting: Setting, as_json: bool) -> None:
    """List the keys by their ids."""
    found = _file(setting).all()
    if as_json:
        shown = [
            {name: value for name, value in msgspec.structs.asdict(key).items() if name != "sha256"}
            for key in found
        ]
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("id", "name", "tenant", "rpm", "created"):
        table.add_column(title, justify="right" if title == "rpm" else "left")
    for key in found:
        table.add_row(key.id, escape(key.name), escape(key.tenant), str(key.rpm or ""), key.created)
    console().print(table)


@api.command()
@click.argument("id")
@with_setting
def revoke(setting: Setting, id: str) -> None:
    """Revoke the key with this ID: it stops working at the next request."""
    gone = _file(setting).revoke(id)
    click.echo(f"revoked {gone.id} ({gone.name})")
