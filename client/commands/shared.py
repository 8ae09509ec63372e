"""What all commands of `vc` share: where the broker is, the configuration, and how results look."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from ...common.config import Config
    from ...common.keyring import KeyFile
    from ..sync import Client

PLAIN_WIDTH: Final = 240
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Setting:
    """What the common options say; read when first needed, so that wrong use is told before anything."""

    brokers: tuple[str, ...]
    config_file: str | None
    key_file: str | None = None

    def config(self) -> Config:
        """The configuration. Raises `ConfigError`."""
        from ...common.config import load_config

        return load_config(self.config_file)

    def addresses(self) -> list[str]:
        """The brokers to talk to. Raises `ConfigError` where no address can be dialled."""
        from ..face import addresses, dialled

        if self.brokers:
            return addresses(self.brokers)
        return [dialled(self.config().broker.frontend)]

    def key(self, *, admin: bool = False) -> KeyFile | None:
        """The key to show: `admin`: the operator's, where there is one. Raises `ConfigError`."""
        from ...common.keyring import Role, key_for

        roles = (Role.ADMIN, Role.CLIENT) if admin else (Role.CLIENT, Role.ADMIN)
        security = self.config().security
        return key_for(security.keys, self.key_file or security.key, *roles)

    def client(self, *, admin: bool = False, **arguments: Any) -> Client:
        """A client for these brokers."""
        from ..sync import Client

        return Client(self.addresses(), key=self.key(admin=admin), **arguments)


def with_setting(command: Callable[Concatenate[Setting, P], R]) -> Callable[..., R]:
    """Give a command --broker, --config and --key, and their values as its first argument."""

    @functools.wraps(command)
    def wrapped(
        *args: Any, brokers: tuple[str, ...], config_file: str | None, key_file: str | None, **kwargs: Any
    ) -> R:
        return command(Setting(brokers, config_file, key_file), *args, **kwargs)

    wrapped = click.option(
        "--key",
        "key_file",
        type=click.Path(),
        metavar="FILE",
        help="The key to show to the broker; default: of security.keys.",
    )(wrapped)
    wrapped = click.option(
        "--config",
        "config_file",
        type=click.Path(),
        metavar="FILE",
        help="Default: ./config.yaml if it exists.",
    )(wrapped)
    return click.option(
        "--broker",
        "brokers",
        multiple=True,
        metavar="ADDR",
        help="The broker's address; repeatable, or a,b,c.",
    )(wrapped)


def console(*, stderr: bool = False) -> Console:
    """A rich console on stdout or stderr."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    # What goes into a file or a pipe has no width of its own to be cut to.
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


def span(seconds: float) -> str:
    """Seconds as people say them."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def note(text: str) -> None:
    """Say something to a person that is not the command's result."""
    click.echo(text, err=True)


def is_terminal() -> bool:
    """Whether progress is watched by a person."""
    return sys.stderr.isatty()
