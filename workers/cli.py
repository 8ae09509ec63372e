"""vc-worker: one engine, offered to one or several brokers until it is told to stop."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import sys
import time
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..common.errors import BadRequest, BusError, ConfigError, EngineError
from ..common.printable import printable
from ..common.yaml_reading import read_yaml

if TYPE_CHECKING:
    from .agent import Agent

MAX_NAME_CHARS: Final = 128
EXIT_FAILED, EXIT_USAGE = 1, 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("engine")
@click.option("--broker", "brokers", multiple=True, metavar="ADDR", help="Backend address; repeatable.")
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda:0, mps, or a list for several slots.")
@click.option("--slots", type=click.IntRange(1, 1024), help="Engines side by side, each with its own model.")
@click.option("--id", "name", metavar="NAME", help="This worker's name on the bus.")
@click.option("--config", "config_file", metavar="FILE", help="Default: ./config.yaml if it exists.")
@click.option("--key", "key_file", metavar="FILE", help="The key to show; default: of security.keys.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting of the engine.")
def command(
    engine: str,
    brokers: tuple[str, ...],
    device: str | None,
    slots: int | None,
    name: str | None,
    config_file: str | None,
    key_file: str | None,
    pairs: tuple[str, ...],
) -> None:
    """Offer ENGINE (kokoro, tone, …) to a broker. Ctrl-C drains it; a second one ends it at once."""
    try:
        error = serve(engine, brokers, device, slots, name, config_file, pairs, key_file)
    except BusError as problem:
        error = problem
    except Exception as problem:
        logging.getLogger(__name__).exception("a defect has ended this worker")
        error = EngineError(f"a defect has ended this worker: {type(problem).__name__}: {problem}")
    if error is not None:
        click.echo(f"vc-worker: {printable(' '.join(str(error).split()))}", err=True)
        sys.exit(EXIT_USAGE if isinstance(error, ConfigError | BadRequest) else EXIT_FAILED)


def serve(
    engine: str,
    brokers: tuple[str, ...] = (),
    device: str | None = None,
    slots: int | None = None,
    name: str | None = None,
    config_file: str | None = None,
    pairs: tuple[str, ...] = (),
    key_file: str | None = None,
) -> BusError | None:
    """Run a worker to its end; return or raise the error that ended it, return None for a clean end."""
    import msgspec

    from ..common.config import Worker, load_config
    from ..common.heap import keep_freed_memory
    from ..common.keyring import Role, key_for
    from ..common.logging import setup_logging
    from ..common.urgency import Urgency
    from . import control
    from .agent import Agent
    from .core import WorkerCore
    from .environment import engine_environment
    from .host_settings import HostSettings
    from .links import Timing
    from .registry import find

    config = load_config(config_file)
    find(engine)
    section = config.workers.get(engine, Worker())
    given = dict(section.settings) | dict(map(_setting, pairs))
    host, settings = HostSettings.read({"idle_unload_s": section.idle_unload_s} | given)
    if section.accept_cpml:
        settings.setdefault("accept_cpml", True)
    key = key_for(config.security.keys, key_file or config.security.key, Role.WORKER)
    devices = _devices(device or section.device)
    name = _name(name or f"{socket.gethostname()}-{engine}-{os.getpid()}")
    addresses = _addresses(brokers) or [_reachable(config.broker.backend)]
    setup_logging(config.logging, "worker")
    started = os.getpriority(os.PRIO_PROCESS, 0)
    setup = control.Setup(
        worker=name,
        engine=engine,
        settings=settings,
        voices_path=config.voices.path,
        default_voice=config.voices.default,
        cache_dir=config.voices.cache_dir or _cache_dir(),
        logging=msgspec.to_builtins(config.logging),
        nice=started + section.nice,
        host=host.raw(),
    )
    core = WorkerCore(
        name,
        time.time_ns(),
        engine,
        addresses,
        slots=slots or section.slots,
        timing=Timing(
            interval_s=section.heartbeat_interval_s,
            idle_unload_s=inf if host.idle_unload_s is None else host.idle_unload_s,
        ),
        random=random.random,
    )

    def announce() -> None:
        with suppress(OSError):  # whoever started the worker may have stopped listening
            click.echo(f"vc-worker ready engine={engine} id={name}")
            sys.stdout.flush()

    try:
        keep_freed_memory()
        urgency = Urgency(started + section.agent_nice)
        environment = engine_environment(_threads(settings.get("threads")), slots or section.slots)
        agent = Agent(
            core,
            setup,
            devices=devices,
            environment=environment,
            announce=announce,
            key=key,
            urgency=urgency,
        )
    except TypeError as error:
        raise ConfigError(f"a setting of {engine} cannot be sent to it: {error}") from None
    _install_signals(agent)
    return agent.run()


def _install_signals(agent: Agent) -> None:
    def handle(number: int, frame: object) -> None:
        agent.request_stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    signal.set_wakeup_fd(agent.wakeup_fd(), warn_on_full_buffer=False)


def _addresses(brokers: tuple[str, ...]) -> list[str]:
    addresses = [address.strip() for value in brokers for address in value.split(",") if address.strip()]
    return [_checked(address) for address in dict.fromkeys(addresses)]


def _checked(address: str) -> str:
    """Let libzmq itself judge an address, before anything is started."""
    import zmq

    if address.startswith(("tcp://", "ipc://")):
        with zmq.Context() as context, context.socket(zmq.DEALER) as probe:
            probe.linger = 0
            probe.ipv6 = "[" in address
            with suppress(zmq.ZMQError):
                probe.connect(address)
                return address
    raise ConfigError(f"not a broker's address: {address!r} (example: tcp://127.0.0.1:5556)")


def _reachable(backend: str) -> str:
    """Where a broker that listens on all of this machine's addresses is found from this machine."""
    for everywhere in ("tcp://*:", "tcp://0.0.0.0:"):
        if backend.startswith(everywhere):
            return _checked("tcp://127.0.0.1:" + backend.removeprefix(everywhere))
    return _checked(backend)


def _setting(pair: str) -> tuple[str, Any]:
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes KEY=VALUE, not {pair!r}")
    try:
        return key, read_yaml(value) if value else ""
    except ValueError:
        raise ConfigError(f"--set {key}: its value is not valid YAML: put it in quotes") from None


def _devices(listed: str) -> list[str]:
    import re

    devices = [device.strip() for device in listed.split(",")]
    for device in devices:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", device):
            raise ConfigError(f"not a device: {device!r} (allowed: auto, cpu, cuda, cuda:N, mps)")
    return devices


def _threads(threads: Any) -> int | None:
    """How many threads numeric libraries get; whatever else `threads` may be is for the engine to judge."""
    return threads if type(threads) is int and threads >= 1 else None


def _name(name: str) -> str:
    if len(name) > MAX_NAME_CHARS or not name.isprintable() or not name.strip() or " " in name:
        raise ConfigError(f"--id must be 1 to {MAX_NAME_CHARS} printable characters without spaces")
    return name


def _cache_dir() -> str:
    from platformdirs import user_cache_dir

    return str(Path(user_cache_dir("voicebus", appauthor=False)))


def main() -> None:
    """Entry point of the console script."""
    command(prog_name="vc-worker")


if __name__ == "__main__":
    main()
