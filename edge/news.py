"""What happens at this edge, told to whoever watches: requests that begin and end, and jobs that go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from msgspec import Struct, field

State = Literal["begun", "running", "done", "failed", "cancelled"]


class Happening(Struct, frozen=True):
    """One thing that happened. `kind` is "speech" for a request that is spoken as it comes, or "job"."""

    kind: Literal["speech", "job"]
    id: str
    state: State
    engine: str = ""
    voice: str = ""
    worker: str = ""
    first_audio_s: float = 0.0
    audio_s: float = 0.0
    done: int = 0
    total: int = 0
    code: str = ""
    at: float = field(default_factory=time.time)


Listener = Callable[[str, Happening], None]
"""Takes a tenant and what happened to something of theirs."""


class News:
    """Passes on what happens. For one thread."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def listen(self, listener: Listener) -> None:
        """Have this called at each happening."""
        self._listeners.add(listener)

    def forget(self, listener: Listener) -> None:
        """No more."""
        self._listeners.discard(listener)

    def tell(self, tenant: str, happening: Happening) -> None:
        """It happened."""
        for listener in tuple(self._listeners):
            listener(tenant, happening)
