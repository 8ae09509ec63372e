"""`vc up`: a broker, its workers and the edge in one terminal."""

from __future__ import annotations

import click

from .shared import Setting, with_setting


@click.command()
@click.option(
    "--engine", "-e", "engines", multiple=True, metavar="NAME", help="Only these workers; repeatable."
)
@with_setting
def up(setting: Setting, engines: tuple[str, ...]) -> int:
    """Run a broker and the workers of config.yaml in this terminal, until Ctrl-C.

    Lines of all processes are shown with their name before them. Ctrl-C drains: workers finish what they
    began, then the broker leaves. A second Ctrl-C ends everything at once.
    """
    from ..supervisor import Supervisor, plans

    if setting.brokers:
        raise click.UsageError("vc up starts a broker of its own: set broker.frontend in config.yaml instead")
    config = setting.config()
    return Supervisor(plans(config, engines), setting.config_file, say=click.echo).run()
