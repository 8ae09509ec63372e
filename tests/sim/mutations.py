"""Four deliberate defects, each of which would break a promise, to show that the simulator would notice.

A mutation patches the real classes while it lasts. If what it patches is not there any more it fails loudly,
for a mutation that changes nothing would prove nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from voicebus.broker.attempts import Attempts
from voicebus.broker.core import BrokerCore
from voicebus.common.errors import BusError, PoisonJob


class MissingTargetError(Exception):
    """What a mutation should change does not exist."""


@contextmanager
def patched(owner: type | ModuleType, name: str, make: Callable[[Any], Any]) -> Generator[None]:
    """Replace one attribute by what `make` makes of it."""
    original = vars(owner).get(name)
    if original is None:
        raise MissingTargetError(f"{owner.__name__} has no {name}: adjust tests/sim/mutations.py")
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def no_fencing() -> Generator[None]:
    """Whatever a worker says of a job is taken, whichever attempt it belongs to."""

    def unheeded(original: Callable[..., None]) -> Callable[..., None]:
        def take(self: BrokerCore, peer: bytes, envelope: bytes, body: Any, now: float) -> None:
            worker, job = self.members.by_peer.get(peer), self.ledger.jobs.get(envelope[4:20])
            key = envelope[4:22]
            if worker is None or job is None or worker.inflight.get(key) is not None:
                original(self, peer, envelope, body, now)
                return
            worker.inflight[key] = job
            original(self, peer, envelope, body, now)
            worker.inflight.pop(key, None)

        return take

    def unfenced(original: Callable[..., Any]) -> Callable[..., Any]:
        def take(self: Attempts, peer: bytes, envelope: bytes, now: float, **how: bool) -> Any:
            job = original(self, peer, envelope, now, **how)
            return job or self._ledger.jobs.get(envelope[4:20])

        return take

    with (
        patched(BrokerCore, "started", unheeded),
        patched(BrokerCore, "chunk", unheeded),
        patched(Attempts, "close", unfenced),
    ):
        yield


@contextmanager
def no_dedupe() -> Generator[None]:
    """A job id that comes again is a new job."""

    def make(_: Callable[..., None]) -> Callable[..., None]:
        def submit(
            self: BrokerCore, peer: bytes, envelope: bytes, header: bytes, payload: Any, now: float
        ) -> None:
            client = self.ledger.client(peer, now)
            try:
                self.intake.accept(client, envelope[4:20], envelope, header, payload, now)
            except BusError as error:
                self.ledger.refuse(peer, envelope[4:20], 0, error)

        return submit

    with patched(BrokerCore, "submit", make):
        yield


@contextmanager
def no_retry_cap() -> Generator[None]:
    """A job that brings down workers is tried again for ever."""

    def endless(original: Callable[..., BusError | None]) -> Callable[..., BusError | None]:
        def verdict(*arguments: Any) -> BusError | None:
            error = original(*arguments)
            return None if isinstance(error, PoisonJob) else error

        return verdict

    # The module that decides holds a name of its own for the function.
    with patched(sys.modules[Attempts.__module__], "verdict", endless):
        yield


@contextmanager
def no_lease() -> Generator[None]:
    """Nobody looks whether an engine makes progress."""

    def make(_: Callable[..., None]) -> Callable[..., None]:
        def unchecked(self: Attempts, now: float) -> None:
            del self, now

        return unchecked

    with patched(Attempts, "_check_leases", make):
        yield


MUTATIONS: dict[str, Callable[[], Any]] = {
    "no fencing": no_fencing,
    "no dedupe": no_dedupe,
    "no retry cap": no_retry_cap,
    "no lease": no_lease,
}
