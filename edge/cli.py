"""`vc-edge`: read the configuration, refuse what is not safe, listen, and leave in order."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from ..common.config import Config, load_config
from ..common.errors import BusError, ConfigError
from ..common.keyring import Role, key_for
from ..common.logging import setup_logging

if TYPE_CHECKING:
    from ..common.config import Edge

log = logging.getLogger(__name__)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", "config_file", type=click.Path(), help="Configuration file (default: ./config.yaml)."
)
@click.option("--broker", "brokers", multiple=True, help="The broker's address; repeatable.")
@click.option("--key", "key_file", type=click.Path(), help="The key to show to the broker.")
@click.option("--host", help="Where to listen (default: 127.0.0.1).")
@click.option("--port", help="On which port; 0 takes a free one.")
@click.option("--wyoming-port", help="A port for Home Assistant as well.")
def main(
    config_file: str | None, brokers: tuple[str, ...], key_file: str | None, **options: str | None
) -> None:
    """Run the HTTP edge: a web page, and the API that clients of OpenAI and others already speak."""
    try:
        given = {name: value for name, value in options.items() if value is not None}
        config = _configure(config_file, given, key_file)
        asyncio.run(serve(config, _addresses(config, brokers)))
    except ConfigError as error:
        click.echo(f"vc-edge: {error}", err=True)
        sys.exit(2)
    except BusError as error:
        click.echo(f"vc-edge: {error}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        click.echo(f"vc-edge: {error.name} is not installed: pip install 'voicebus[edge]'", err=True)
        sys.exit(2)


async def serve(config: Config, brokers: list[str]) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises `ConfigError`."""
    from ..client import AsyncClient
    from .app import Server

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    key = key_for(config.security.keys, config.security.key, Role.CLIENT, Role.ADMIN)
    async with (
        AsyncClient(brokers, key=key) as client,
        Server(config, client, brokers, key).listening() as addresses,
    ):
        also = "" if addresses.wyoming is None else f" wyoming={addresses.wyoming}"
        click.echo(f"vc-edge ready http={addresses.http}{also}")
        log.info("ready http=%s%s", addresses.http, also)
        await stopped.wait()
        log.info("stopping")


def refuse_open_edge(edge: Edge) -> None:
    """Raise `ConfigError` for an edge that everybody could use."""
    if edge.allow_without_keys or _is_loopback(edge.host):
        return
    if edge.api_keys is not None:
        if edge.wyoming_port is None:
            return
        raise ConfigError(
            f"edge.host {edge.host} can be reached from elsewhere, and edge.wyoming_port would let everybody "
            "speak without a key, which its protocol does not know: set edge.allow_without_keys if your "
            "network keeps strangers out, or run another edge on 127.0.0.1 for it"
        )
    raise ConfigError(
        f"edge.host {edge.host} can be reached from elsewhere, and no API keys are asked for: "
        "set edge.api_keys to a file and make a key with `vc keys api new NAME`, or listen on 127.0.0.1"
    )


def _configure(config_file: str | None, options: dict[str, str], key_file: str | None) -> Config:
    """The file, with the command line's options over it, checked by the same rules."""
    environ = dict(os.environ) | {f"VOICEBUS_EDGE__{key.upper()}": value for key, value in options.items()}
    if key_file is not None:
        environ["VOICEBUS_SECURITY__KEY"] = os.path.abspath(key_file)  # meant from here, not from the file
    config = load_config(config_file, environ)
    refuse_open_edge(config.edge)
    setup_logging(config.logging, "edge")
    return config


def _addresses(config: Config, brokers: tuple[str, ...]) -> list[str]:
    from ..client.face import addresses, dialled

    if brokers:
        return addresses(brokers)
    return addresses(dialled(config.broker.frontend))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
