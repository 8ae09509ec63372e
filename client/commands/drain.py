"""`vc drain`: take a worker out of service without losing a job."""

from __future__ import annotations

import click

from .shared import Setting, with_setting


@click.command()
@click.argument("worker")
@with_setting
def drain(setting: Setting, worker: str) -> None:
    """Have WORKER (an id from `vc status`) finish what it began, give the rest back and leave."""
    with setting.client(admin=True) as bus:
        bus.drain(worker)
    click.echo(f"{worker}: draining")
