"""Who is let in at all: the one ZAP handler of the process, asked in every CURVE handshake.

Without a handler CURVE lets every key in; with one, each door must be registered under its exact name, since
a wildcard does not cover named domains. pyzmq's authenticator answers in a thread of its own; what it goes by
is the list of keys, which is read again when it changes, so a key that was revoked is refused at once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import zmq
from zmq.auth.thread import ThreadAuthenticator

from ..common.keyring import Allowed, Keyring
from .manners import Manners
from .roles import LET_IN

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Gate:
    """The keys of a broker. Raises `ConfigError` where the keyring cannot be used."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], folder: str, clock: Callable[[], float]
    ) -> None:
        self._server = Keyring(folder).server()
        self.allowed = Allowed(folder)
        self._manners = Manners()
        self._clock = clock
        self._told = ""
        self._zap = ThreadAuthenticator(context)
        for door in LET_IN:
            self._zap.configure_curve_callback(door, self)
        self._zap.start()

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Have a socket, which has its domain and is not yet bound, ask for keys."""
        socket.curve_server = True
        socket.curve_secretkey = self._server.secret.encode()

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a key is let in at a door. Called in the authenticator's thread."""
        public = key.decode("ascii", "replace")
        try:
            listed = self.allowed.find(public)
        except Exception:
            # Nothing may end the thread that answers here: all later handshakes would wait for ever.
            log.exception("the list of keys could not be asked")
            return False
        if listed is not None and listed.role in LET_IN[domain]:
            return True
        if self._manners.worth_a_line(self._clock()):
            who = "a key that is not listed" if listed is None else f"the key {listed.name} ({listed.role})"
            log.warning("%s was refused at %s: %s%s", who, domain, public, self._manners.untold())
        return False

    def report(self) -> None:
        """Say once what is wrong with the list of keys, and that it is right again."""
        if self.allowed.problem != self._told:
            self._told = self.allowed.problem
            if self._told:
                log.error("the keys stay as they were: %s", self._told)
            else:
                log.info("the keys can be read again")

    def close(self) -> None:
        """End the thread."""
        self._zap.stop()
