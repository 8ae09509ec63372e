"""`vc status`: what the broker knows, for people, for programs, and live."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from ...common.printable import printable
from .shared import Setting, console, span, with_setting

if TYPE_CHECKING:
    from rich.console import Group

    from ..sync import Client


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the status as one JSON document.")
@click.option("--watch", is_flag=True, help="Keep showing it, until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, metavar="SECONDS"
)
@with_setting
def status(setting: Setting, as_json: bool, watch: bool, interval: float) -> None:
    """Show workers, queues and rates."""
    if as_json and watch:
        raise click.UsageError(
            "--json and --watch do not go together: run vc status --json as often as needed"
        )
    with setting.client() as bus:
        if as_json:
            click.echo(json.dumps(bus.status(), indent=2, default=_plain))
        elif watch:
            _watch(bus, interval)
        else:
            console().print(view(bus.status(), None))


def _watch(bus: Client, interval_s: float) -> None:
    from rich.live import Live

    before = bus.status()
    with Live(view(before, None), auto_refresh=False, console=console()) as live:
        while True:
            time.sleep(interval_s)
            now = bus.status()
            live.update(view(now, _rate(before, now)), refresh=True)
            before = now


def view(status: dict[str, Any], jobs_per_s: float | None) -> Group:
    """A status as tables."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    jobs, totals = _part(status, "jobs"), _part(status, "totals")
    line = (
        f"{printable(str(status.get('broker', 'broker')))}{' (draining)' if status.get('draining') else ''}: "
        f"up {span(status.get('uptime_s', 0))}, "
        f"{jobs.get('queued', 0)} queued, {jobs.get('running', 0)} running, "
        f"{totals.get('done', 0)} done, {totals.get('failed', 0)} failed"
    )
    if jobs_per_s is not None:
        line += f", {jobs_per_s:.1f} jobs/s"
    table = Table(box=None, pad_edge=False)
    for title in ("worker", "engine", "state", "open", "slots", "done", "silent", "up", "warm voices"):
        table.add_column(
            title, justify="right" if title in ("open", "slots", "done", "silent", "up") else "left"
        )
    workers: list[dict[str, Any]] = status.get("workers", [])
    for worker in workers:
        table.add_row(
            *(escape(printable(str(worker.get(name, "")))) for name in ("id", "engine", "state")),
            str(worker.get("open", "")),
            str(worker.get("slots", "")),
            str(worker.get("jobs_done", "")),
            f"{worker.get('silent_s', 0):.1f} s",
            span(worker.get("up_s", 0)),
            escape(printable(", ".join(worker.get("warm_voices", [])))),
        )
    parts: list[Any] = [Text(line), table]
    failures = _part(status, "failures")
    if failures:
        parts.append(
            Text(
                "failures: "
                + printable(", ".join(f"{code} {count}" for code, count in sorted(failures.items())))
            )
        )
    return Group(*parts)


def _rate(before: dict[str, Any], now: dict[str, Any]) -> float:
    """Jobs ended a second between two looks."""
    seconds = now.get("uptime_s", 0) - before.get("uptime_s", 0)
    done = _part(now, "totals").get("done", 0) - _part(before, "totals").get("done", 0)
    return done / seconds if seconds > 0 else 0.0


def _part(status: dict[str, Any], name: str) -> dict[str, Any]:
    return status.get(name, {})


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)
