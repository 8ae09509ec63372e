"""The private half of the link between an agent and its engine process.

The link carries the very messages of VB1: a JOB and a CANCEL go down as the broker sent them, and STARTED,
CHUNK, DONE and FAILED come up as the broker gets them, so that the agent passes frames on unopened. What
only these two say to each other is defined here: a few kinds from 0x80 on, which never leave the machine.

    child HELLO → agent SETUP → child LOADED (or FAILED without a job id) → JOB … → GOODBYE → child ends
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from ..common import wire
from ..common.errors import ProtocolError
from ..common.messages import Count, Language, Name
from ..common.wire import pack_envelope

HELLO: Final = 0x80
"""Up, no header: the process runs and asks for its set-up."""
SETUP: Final = 0x81
"""Down, header `Setup`."""
LOADED: Final = 0x82
"""Up, header `Loaded`: the engine is warm."""
REPORT: Final = 0x83
"""Up, header `Report`: the voices in memory have changed."""
LEARNING: Final = 0x84
"""Up, no header: a voice is being learnt, which takes time and makes no sound."""
PROGRESS: Final = 0x85
"""Up, no header: the engine works on what it has, although nothing is to be heard yet."""


_FROM_ENGINE: Final = {
    HELLO: 1, LOADED: 2, REPORT: 2, LEARNING: 1, PROGRESS: 1,
    wire.STARTED: 2, wire.CHUNK: 2, wire.DONE: 2, wire.FAILED: 2, wire.BUNDLE: 2,
}  # fmt: skip
"""Kind → frames of what an engine process may say."""

Figure = Annotated[str, Meta(min_length=1, max_length=48, pattern=r"^[a-z][a-z0-9_]*$")]
MAX_BATCH: Final = 256


class Setup(Struct, frozen=True, array_like=True):
    """Everything an engine process is told."""

    worker: str
    engine: str
    settings: dict[str, Any]
    voices_path: str
    default_voice: str
    cache_dir: str
    logging: dict[str, Any]
    nice: int = 0
    "The niceness of interactive work."
    host: dict[str, Any] = {}
    "What the host itself is told: see `HostSettings`."


class Loaded(Struct, frozen=True, array_like=True):
    """What the engine says of itself once it is loaded."""

    engine: Name
    version: Name
    sample_rate: Annotated[int, Meta(ge=4000, le=192_000)]
    languages: Annotated[list[Language], Meta(min_length=1, max_length=256)]
    max_chars: Count
    warm_voices: list[str] = []
    learns: bool = False
    "Whether learning a voice takes time, so that it is worth giving its jobs to who knows it."
    batch: Annotated[int, Meta(ge=1, le=MAX_BATCH)] = 1
    "How many jobs it speaks together."


class Report(Struct, frozen=True, array_like=True):
    """The voices whose states are in memory, most recently used last, and what engine and host count."""

    warm_voices: list[str]
    figures: Annotated[dict[Figure, int | float], Meta(max_length=64)] = {}


def kind_of(frames: Sequence[Any]) -> int:
    """The kind of a message from an engine process; 0 for what has not the frames of any."""
    envelope = frames[0]
    kind = envelope[3] if len(envelope) == wire.ENVELOPE_BYTES else 0
    return kind if _FROM_ENGINE.get(kind) == len(frames) else 0


ControlT = TypeVar("ControlT", Setup, Loaded, Report)


def message(kind: int, header: Setup | Loaded | Report | None = None) -> list[bytes]:
    """Build a message of this link. Raises `TypeError` for a setting that MessagePack cannot carry."""
    if header is None:
        return [pack_envelope(kind)]
    return [pack_envelope(kind), msgspec.msgpack.encode(header)]


def decode(data: bytes, cls: type[ControlT]) -> ControlT:
    """Unpack a header of this link; raise `ProtocolError` when the two sides differ."""
    try:
        return msgspec.msgpack.decode(data, type=cls)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"bad {cls.__name__} on the link to the engine process: {error}") from None
