"""HTTPS: a certificate that may be renewed while the edge runs, and handshakes that count as connections.

The files are looked at when somebody connects; a pair that has changed and is sound serves from then on, and
one that is not is told in the log while the old one goes on. asyncio's own TLS server gives a connection to
its protocol only after the handshake: whoever never begins one would hold a place that no limit knows of. So
connections are taken here, and asked of the gate before a byte is read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from ..common.errors import ConfigError
from .guard import Gate

log = logging.getLogger(__name__)

OLDEST: Final = ssl.TLSVersion.TLSv1_2
BACKLOG: Final = 100
REST_S: Final = 1.0
"""After a connection that could not be taken, mostly for want of file descriptors."""


class Certificate:
    """A certificate and its key in PEM files. Raises `ConfigError` for a pair that cannot be used."""

    def __init__(self, certificate: str, key: str | None) -> None:
        self._certificate = certificate
        self._key = key
        self._stamp = self._look()
        self._context = _load(certificate, key)
        if os.stat(key or certificate).st_mode & 0o004:
            log.warning("%s can be read by everybody on this machine: chmod 600 it", key or certificate)

    @property
    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = _load(self._certificate, self._key)
                log.info("took up the renewed certificate %s", self._certificate)
            except ConfigError as error:
                log.warning("the certificate that was in use goes on: %s", error)
        return self._context

    def _look(self) -> tuple[tuple[int, int, int], ...] | None:
        try:
            stats = [os.stat(path) for path in (self._certificate, self._key) if path is not None]
        except OSError:
            return None
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


def certificate_of(certificate: str | None, key: str | None) -> Certificate | None:
    """What the configuration names; None for plain HTTP. Raises `ConfigError`."""
    if certificate is None:
        if key is not None:
            raise ConfigError("edge.certificate_key is set and edge.certificate is not: set both, or none")
        return None
    return Certificate(certificate, key)


@asynccontextmanager
async def serving(
    admitted: Callable[[str], Callable[[], asyncio.Protocol]],
    gate: Gate,
    certificate: Certificate,
    host: str,
    port: int,
    handshake_timeout_s: float,
) -> AsyncGenerator[tuple[str, int]]:
    """Serve while the block runs, and give the first address. Raises `OSError` where none can be had.

    `admitted` makes the protocols for an address that the gate has let in; they leave it when they are lost.
    """
    shaking: set[asyncio.Task[None]] = set()

    async def take(listener: socket.socket) -> None:
        while True:
            try:
                wire, peer = await asyncio.get_running_loop().sock_accept(listener)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                log.warning("no connection can be taken for a moment: %s", error.strerror)
                await asyncio.sleep(REST_S)
                continue
            if not gate.enter(str(peer[0])):
                wire.close()
                continue
            task = asyncio.create_task(shake(wire, str(peer[0])))
            shaking.add(task)
            task.add_done_callback(shaking.discard)

    async def shake(wire: socket.socket, address: str) -> None:
        is_through = False
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                admitted(address),
                wire,
                ssl=certificate.context,
                ssl_handshake_timeout=handshake_timeout_s,
            )
            is_through = True
        except OSError as error:  # an SSLError is one, and so is a timeout
            log.debug("%s did not come through the handshake: %s", address, error)
        finally:
            if not is_through:
                gate.leave(address)
                wire.close()

    listeners = await _bound(host, port)
    taking = [asyncio.create_task(take(listener)) for listener in listeners]
    try:
        found = listeners[0].getsockname()
        yield str(found[0]), int(found[1])
    finally:
        tasks = [*taking, *shaking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in listeners:
            listener.close()


async def _bound(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
    except BaseException:
        for listener in listeners:
            with suppress(OSError):
                listener.close()
        raise
    return listeners


def _load(certificate: str, key: str | None) -> ssl.SSLContext:
    for setting, path in (("certificate", certificate), ("certificate_key", key)):
        if path is not None:
            try:
                with open(path, "rb") as file:
                    file.read(1)
            except OSError as error:
                raise ConfigError(f"edge.{setting} {path}: cannot be read: {error.strerror}") from None

    def ask() -> str:
        # Without this OpenSSL would ask the terminal, and a service would wait for ever.
        raise ConfigError(
            f"the key in {key or certificate} is encrypted: give one without a passphrase, in a file that "
            "only the edge's user can read"
        )

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = OLDEST
    try:
        context.load_cert_chain(certificate, key, ask)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"edge.certificate_key {key or certificate} is not the key of edge.certificate {certificate}"
            ) from None
        raise ConfigError(
            f"edge.certificate {certificate} and its key cannot be used: give both in PEM "
            f"({error.reason or error})"
        ) from None
    except OSError as error:
        raise ConfigError(f"edge.certificate {certificate} cannot be used: {error.strerror}") from None
    return context
