"""SPOKEN: a whole attempt in one message, where it is known as a whole.

A short text on a fast engine is over before anybody has read that it began: STARTED, its one CHUNK and DONE
lie side by side in the worker's outbox. They travel as one message then, which saves every process on the way
two thirds of its work. It means exactly what the three mean, and is taken apart wherever that is simpler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import wire
from .messages import Done, Spoken, Started, decode, encode

Message = Sequence[Any]
Part = tuple[bytes, Any]
"""(envelope, header or payload)."""


def merge(started: Message, chunk: Message, done: Message) -> tuple[bytes, bytes, Any] | None:
    """Make one of the last three messages to one peer, or None where they are not a whole attempt."""
    begins, audio, ends = started[0], chunk[0], done[0]
    if (
        (begins[3], audio[3], ends[3]) != (wire.STARTED, wire.CHUNK, wire.DONE)
        or not begins[4:22] == audio[4:22] == ends[4:22]
        or begins[24:28] != audio[28:32]  # its first segment is this one
        or any(audio[24:28])
        or not audio[23] & wire.SEGMENT_END
        or not len(chunk[1])
    ):
        return None
    what, end = decode(started[1], Started), decode(done[1], Done)
    if end.chunks != 1:
        return None
    header = Spoken(what.worker, what.engine, what.sample_rate, what.segments, end.samples, end.engine_s)
    return audio[:3] + bytes((wire.SPOKEN,)) + audio[4:], encode(header), chunk[1]


def parts(envelope: bytes, header: bytes, payload: Any) -> tuple[Part, Part, Part]:
    """Take a SPOKEN apart into the STARTED, CHUNK and DONE it stands for. Raises `ProtocolError`."""
    spoken = decode(header, Spoken)
    job, attempt = envelope[4:20], int.from_bytes(envelope[20:22])
    segment = int.from_bytes(envelope[28:32])
    return (
        (wire.pack_envelope(wire.STARTED, job, attempt, sequence=segment), encode(started_of(spoken))),
        (wire.pack_envelope(wire.CHUNK, job, attempt, wire.SEGMENT_END, 0, segment), payload),
        (wire.pack_envelope(wire.DONE, job, attempt), encode(done_of(spoken))),
    )


def started_of(spoken: Spoken) -> Started:
    """The header of its STARTED."""
    return Started(spoken.worker, spoken.engine, spoken.sample_rate, spoken.segments)


def done_of(spoken: Spoken) -> Done:
    """The header of its DONE."""
    return Done(1, spoken.samples, spoken.engine_s)
