"""`vc-broker`: read the configuration, bind, serve, drain on SIGTERM or Ctrl-C."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from ..common.config import Config, load_config
from ..common.errors import ConfigError, StorageError
from ..common.heap import keep_freed_memory
from ..common.logging import setup_logging
from ..common.printable import printable
from ..common.urgency import Urgency

if TYPE_CHECKING:
    from types import FrameType

    from .loop import Loop

log = logging.getLogger(__name__)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", "config_file", type=click.Path(), help="Configuration file (default: ./config.yaml)."
)
@click.option("--frontend", help="Where clients connect, for example tcp://127.0.0.1:5555.")
@click.option("--backend", help="Where workers connect, for example tcp://127.0.0.1:5556.")
@click.option("--strategy", help="lru, round_robin, least_load or random.")
@click.option("--default-engine", help="The engine of jobs that name none.")
def main(config_file: str | None, **options: str | None) -> None:
    """Run the broker: clients and workers meet here."""
    try:
        config = _configure(config_file, {key: value for key, value in options.items() if value is not None})
        loop = _bind(config)
    except ConfigError as error:
        click.echo(f"vc-broker: {printable(str(error))}", err=True)
        sys.exit(2)
    except StorageError as error:
        click.echo(f"vc-broker: {printable(str(error))}", err=True)
        sys.exit(1)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        loop.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    frontend, backend = loop.endpoints
    click.echo(f"vc-broker ready frontend={frontend} backend={backend}")
    log.info("ready frontend=%s backend=%s strategy=%s", frontend, backend, config.broker.strategy)
    loop.run()
    log.info("stopped: %s", loop.core.ledger.totals)


def _configure(config_file: str | None, options: dict[str, str]) -> Config:
    """The file, with the command line's options over it, checked by the same rules."""
    environ = dict(os.environ) | {f"VOICEBUS_BROKER__{key.upper()}": value for key, value in options.items()}
    config = load_config(config_file, environ)
    setup_logging(config.logging, "broker")
    return config


def _bind(config: Config) -> Loop:
    import zmq

    from .loop import Loop

    for endpoint in (config.broker.frontend, config.broker.backend):
        _refuse_open_bind(endpoint, config)
    _raise_file_limit()
    keep_freed_memory()
    Urgency(os.getpriority(os.PRIO_PROCESS, 0) + config.broker.nice)
    try:
        return Loop(config)
    except zmq.ZMQError as error:
        raise ConfigError(
            f"cannot listen on {config.broker.frontend} and {config.broker.backend}: {error.strerror}; "
            "is another broker running? --frontend and --backend choose other addresses"
        ) from None


def _refuse_open_bind(endpoint: str, config: Config) -> None:
    """Without keys anyone who reaches the bus may use it: then it stays on this machine."""
    if not endpoint.startswith("tcp://") or config.security.keys is not None:
        return
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        safe = ipaddress.ip_address(host).is_loopback
    except ValueError:
        safe = host in ("localhost", "lo")
    if safe:
        return
    if not config.security.allow_insecure_bind:
        raise ConfigError(
            f"{endpoint} can be reached from other machines and the bus has no keys: run `vc keys init` and "
            "set `security.keys: keys` in config.yaml (VOICEBUS_SECURITY__KEYS=keys), or listen on 127.0.0.1"
        )
    log.warning("%s is open to whoever reaches it: security.allow_insecure_bind", endpoint)


def _raise_file_limit() -> None:
    """Each connection is a file: take as many as the system grants."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:
        log.warning("the limit of open files stays as it is: %s", error)


if __name__ == "__main__":
    main()
