"""`vc keys api`: who may use the edge. A key is shown once, when it is made; what is kept is its hash."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click
import msgspec

from ...common.apikeys import LEAST, SCOPES, has_expired
from ...common.errors import ConfigError
from ...common.printable import printable
from .shared import Setting, console, with_setting

if TYPE_CHECKING:
    from ...common.apikeys import ApiKey, ApiKeys
    from ...common.audit import Audit

_SPAN: Final = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    """A span from now, or a date and perhaps a time; what names no zone is UTC, and a day begins at 0:00."""
    if value is None:
        return None
    try:
        if span := _SPAN.fullmatch(value):
            return datetime.now(UTC) + timedelta(**{_UNITS[span["unit"]]: int(span["number"])})
        at = datetime.fromisoformat(value)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter("give 30d, 12h or a date: 2027-01-31, 2027-01-31T18:00+01:00") from None


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


def _audit(setting: Setting) -> Audit:
    from ...common.audit import Audit

    return Audit(setting.config().security.audit)


@api.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=LEAST,
    show_default=True,
    help="What it may do, repeatable: speak (and hand over jobs), voices (add and remove them), "
    "operate (see metrics and workers).",
)
@click.option(
    "--expires",
    metavar="30d|12h|DATE",
    callback=_moment,
    help="When it ends by itself; default: when it is revoked.",
)
@click.option("--tenant", default="", help="Whose share and whose jobs it has; default: its NAME.")
@click.option("--rpm", type=int, help="Requests a minute; default: what bounds everybody.")
@click.option("--chars-per-day", type=int, help="Characters spoken a day; default: no bound.")
@with_setting
def new(
    setting: Setting,
    name: str,
    scopes: tuple[str, ...],
    expires: datetime | None,
    tenant: str,
    rpm: int | None,
    chars_per_day: int | None,
) -> None:
    """Make a key called NAME and print it, this once."""
    from ...common.audit import user

    file = _file(setting)
    with _audit(setting).act("key.new", user(), key_name=name, key_scopes=" ".join(scopes)) as act:
        made, key = file.new(
            name, tenant=tenant, rpm=rpm, chars_per_day=chars_per_day, scopes=scopes, expires=expires
        )
        act.add(
            key_id=made.id, key_tenant=made.tenant, key_expires=None if made.expires is None else _until(made)
        )
    click.echo(key)
    may = f"may {', '.join(made.scopes)}" if made.scopes else "may look"
    click.echo(f"key {made.id} for {made.name} {may}, until {_until(made)}: it is not shown again", err=True)


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
        listed = msgspec.json.format(msgspec.json.encode(shown), indent=2).decode()
        click.echo(printable(listed, lines=True))
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("id", "name", "tenant", "may", "rpm", "chars a day", "created", "until"):
        table.add_column(title, justify="right" if title in ("rpm", "chars a day") else "left")
    for key in found:
        table.add_row(
            key.id,
            escape(printable(key.name)),
            escape(printable(key.tenant)),
            " ".join(key.scopes),
            str(key.rpm or ""),
            f"{key.chars_per_day:,}" if key.chars_per_day else "",
            escape(printable(key.created)),
            f"{_until(key)} (expired)" if has_expired(key) else _until(key),
        )
    console().print(table)


@api.command()
@click.argument("id")
@with_setting
def revoke(setting: Setting, id: str) -> None:
    """Revoke the key with this ID: it stops working at the next request."""
    from ...common.audit import user

    file = _file(setting)
    with _audit(setting).act("key.revoke", user(), key_id=id) as act:
        gone = file.revoke(id)
        act.add(key_name=gone.name, key_tenant=gone.tenant)
    click.echo(f"revoked {gone.id} ({printable(gone.name)})")


def _until(key: ApiKey) -> str:
    return "it is revoked" if key.expires is None else f"{key.expires:%Y-%m-%dT%H:%M:%SZ}"
