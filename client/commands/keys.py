"""`vc keys`: who may use what: the edge by API keys."""

from __future__ import annotations

import click

from .api_keys import api


@click.group()
def keys() -> None:
    """Make, list and revoke keys."""


keys.add_command(api)
