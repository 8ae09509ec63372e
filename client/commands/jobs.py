"""`vc jobs`: what the brokers hold, whoever has submitted it, and durable results by their ids."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ...common.errors import DeadlineExceeded
from ...common.printable import printable
from .say import check_output, write
from .shared import Setting, console, span, with_setting

if TYPE_CHECKING:
    from rich.table import Table


@click.group()
def jobs() -> None:
    """List, fetch and cancel jobs, those of other clients too."""


@jobs.command("list")
@click.option(
    "--state",
    type=click.Choice(["queued", "running", "done", "failed", "cancelled"]),
    help="Only jobs in this state.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@with_setting
def list_jobs(setting: Setting, state: str | None, as_json: bool) -> None:
    """List the jobs that are open, and the durable ones whose results are kept."""
    with setting.client(admin=True) as bus:
        found = bus.jobs(state or "")
    if as_json:
        click.echo(printable(json.dumps(found, indent=2, ensure_ascii=False), lines=True))
    else:
        console().print(view(found))


@jobs.command()
@click.argument("id")
@click.option(
    "-o", "--output", default="speech.wav", show_default=True, help="Where to; `-` is stdout, as WAV."
)
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer than this.")
@with_setting
def get(setting: Setting, id: str, output: str, timeout: float | None) -> None:
    """Wait for the job ID and write its speech to a file.

    The file's format follows from its name: .wav, .flac, .mp3, .opus. Nothing is written on failure.
    """
    check_output(output)
    with setting.client(admin=True) as bus:
        job = bus.job(id)
        try:
            speech = job.result(timeout)
        except TimeoutError:
            raise DeadlineExceeded(f"job {id} has not ended within {timeout:g} s; it goes on") from None
    write(output, "", speech)


@jobs.command()
@click.argument("id")
@with_setting
def cancel(setting: Setting, id: str) -> None:
    """End the open job ID."""
    with setting.client(admin=True) as bus:
        bus.cancel(id)
    click.echo(f"{id}: cancelled")


def view(found: list[dict[str, Any]]) -> Table:
    """Jobs as a table."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in (
        "job",
        "state",
        "durable",
        "engine",
        "voice",
        "lane",
        "characters",
        "attempts",
        "age",
        "failure",
    ):
        numeric = title in ("characters", "attempts", "age")
        table.add_column(title, justify="right" if numeric else "left", no_wrap=title == "job")
    for job in found:
        code = str(job.get("code", ""))
        table.add_row(
            *(escape(printable(str(job.get(name, "")))) for name in ("id", "state")),
            "yes" if job.get("durable") else "no",
            *(escape(printable(str(job.get(name, "")))) for name in ("engine", "voice", "lane")),
            *(escape(printable(str(job.get(name, "")))) for name in ("characters", "attempts")),
            span(job.get("age_s", 0)),
            escape(printable(f"{code}: {job.get('message', '')}")) if code else "",
        )
    return table
