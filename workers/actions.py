"""What the worker's core asks of the loop that runs it: the whole list of its effects on the world.

The core appends these to a list, the loop carries them out in order. Frames are bytes or the unopened
frames that came in; the core never looks into a payload.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from ..common.errors import BusError

Frames: TypeAlias = list[Any]
"""The frames of one message, from the envelope on: bytes, or frames of the transport passed through."""


class ToBroker(NamedTuple):
    """Send a message on this link."""

    link: int
    frames: Frames


class Beat(NamedTuple):
    """Send a heartbeat on this link, ahead of whatever waits there; a newer one replaces an unsent one."""

    link: int
    frames: Frames


class OpenLink(NamedTuple):
    """Connect a new socket to this link's broker."""

    link: int


class CloseLink(NamedTuple):
    """Close the link's socket; `flush` lets what is queued there still go out, for a bounded time."""

    link: int
    flush: bool


class ToChild(NamedTuple):
    """Send a message to the engine process of this slot."""

    slot: int
    frames: Frames


class StartChild(NamedTuple):
    """Start the engine process of this slot."""

    slot: int


class KillChild(NamedTuple):
    """End the engine process of this slot, without asking it."""

    slot: int


class Log(NamedTuple):
    """Write one line; `level` is a level of the standard library's logging."""

    level: int
    line: str


class Exit(NamedTuple):
    """Everything is over. `error` says why where it was not asked for."""

    error: BusError | None


Action: TypeAlias = ToBroker | Beat | OpenLink | CloseLink | ToChild | StartChild | KillChild | Log | Exit
Actions: TypeAlias = list[Action]

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
