"""Good messages of every kind, and frames as one string of bytes: what the fuzzers begin with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgpack

from tests.fuzz.mutate import UNREADABLE
from voicebus.common import messages, wire
from voicebus.common.bundles import pack
from voicebus.common.errors import Overloaded
from voicebus.common.messages import encode, failed

mp: Any = msgpack
JOBS: Final = tuple(bytes((number,)) * 16 for number in range(1, 7))
PCM: Final = bytes(range(0, 200, 2)) * 2

HEADERS: Final[tuple[messages.Header, ...]] = (
    messages.Submit(),
    messages.Submit("tone", "amber", "en-US", "interactive", "acme", 12, 1.25, False, {"seed": 1,
    "warm": True}),
    messages.Submit("tone", durable=True, options={"a": 0.5, "b": None, "c": "x"}, traceparent="00-1-2-01"),
    messages.Accepted("tone", 3),
    messages.Started("w", "tone", 8000, 2),
    messages.Done(1, len(PCM) // 2, 0.25),
    messages.Spoken("w", "tone", 8000, 1, len(PCM) // 2, 0.1),
    failed(Overloaded("no room", retry_after_s=0.5), ["attempt 1 on w: lost"]),
    messages.Ready("w", 1, "tone", ["en", "pt-BR"], 2, 1000, 8000, "1", ["amber"], 400, True, False),
    messages.Welcome("broker", 1000, 3),
    messages.Heartbeat(1, ["amber"], [JOBS[0]], {"jobs": 1, "load": 0.5, "device": "cpu"}),
    messages.Admin("jobs", "running", 200),
    messages.Admin("job", JOBS[0].hex()),
    messages.AdminReply(True, 200, "", ""),
)  # fmt: skip


def header_of(kind: int) -> bytes:
    """A header that this kind may have."""
    place = {
        wire.SUBMIT: 1, wire.JOB: 1, wire.ACCEPTED: 3, wire.STARTED: 4, wire.DONE: 5, wire.SPOKEN: 6,
        wire.FAILED: 7, wire.READY: 8, wire.WELCOME: 9, wire.HEARTBEAT: 10, wire.ADMIN: 11,
    }[kind]  # fmt: skip
    return encode(HEADERS[place])


def message_of(kind: int, job: bytes = JOBS[0], attempt: int = 1) -> list[bytes]:
    """A good message of this kind."""
    has_header, has_payload = wire.SHAPES[kind]
    if kind == wire.BUNDLE:
        return list(next(iter(pack([message_of(wire.PING), message_of(wire.STARTED)]))))
    flags = wire.SEGMENT_END if kind in (wire.CHUNK, wire.SPOKEN) else 0
    frames = [wire.pack_envelope(kind, job, attempt, flags)]
    if has_header:
        frames.append(header_of(kind))
    if has_payload:
        frames.append(b"A few words." if kind in (wire.SUBMIT, wire.JOB) else PCM)
    return frames


def every_message() -> Iterator[list[bytes]]:
    """One of each kind."""
    for kind in wire.SHAPES:
        yield message_of(kind)


def joined(frames: Sequence[bytes]) -> bytes:
    """Frames as one string."""
    return mp.packb(list(frames))


def apart(data: bytes) -> list[bytes]:
    """The frames in it; a string that is none is one frame."""
    try:
        found: Any = mp.unpackb(data, strict_map_key=False)
    except UNREADABLE:
        return [data]
    if not isinstance(found, list):
        return [data]
    return [frame for frame in found if isinstance(frame, bytes)] or [data]  # pyright: ignore[reportUnknownVariableType]
