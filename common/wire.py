"""VB1 framing: the fixed envelope in front of every message, and the limits all peers obey.

A message is one to three ZeroMQ frames, `[envelope][header?][payload?]`, behind the routing id that a
ROUTER adds. The envelope is 32 bytes of fixed layout, so a reply is routed by slicing bytes and never by
decoding; the header is one small MessagePack array (`messages.py`); the payload is opaque (UTF-8 text
one way, PCM the other). This module knows bytes only. docs/protocol.md is the normative text.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from .errors import BadRequest, ProtocolError, TextTooLong

MAGIC: Final = b"VB1"
ENVELOPE: Final = Struct("!3sB16sHHII")
"""magic, kind, job id, attempt, flags, sequence, value: big-endian, 32 bytes."""
ENVELOPE_BYTES: Final = ENVELOPE.size
JOB_ID_BYTES: Final = 16
NO_JOB: Final = bytes(JOB_ID_BYTES)

# Limits. A peer that exceeds one gets `protocol_error` (or the code named) and nothing else changes.
MAX_FRAMES: Final = 3
MAX_HEADER_BYTES: Final = 16 * 1024
MAX_PAYLOAD_BYTES: Final = 256 * 1024
"""Bounds how long one frame can hold up a heartbeat behind it on a slow link (0.04 s at 6 MB/s)."""
MAX_TEXT_CHARS: Final = 100_000
MAX_FRAME_BYTES: Final = MAX_PAYLOAD_BYTES
"""Set as ZMQ_MAXMSGSIZE, so libzmq itself refuses anything larger."""
MAX_BUDGET_MS: Final = 24 * 3600 * 1000
FETCH_CHUNKS: Final = 64
"""CHUNKs a FETCH is answered with at most: the asker sets the pace by asking for the next ones."""
COPY_BELOW_BYTES: Final = 8 * 1024
"""Frames below are copied, from here up forwarded unopened: the measured break-even of pyzmq."""
MAX_BUNDLED: Final = 256
"""Messages in one BUNDLE; none of them with a payload of `COPY_BELOW_BYTES` or more."""

# Kinds. Below 0x20 client ⇄ broker and both, from 0x20 worker ⇄ broker only.
SUBMIT: Final = 0x01
ACCEPTED: Final = 0x02
STARTED: Final = 0x03
CHUNK: Final = 0x04
DONE: Final = 0x05
FAILED: Final = 0x06
CANCEL: Final = 0x07
PING: Final = 0x08
PONG: Final = 0x09
ADMIN: Final = 0x0A
FETCH: Final = 0x0B
BUNDLE: Final = 0x0D
SPOKEN: Final = 0x0E
READY: Final = 0x20
WELCOME: Final = 0x21
HEARTBEAT: Final = 0x22
JOB: Final = 0x23
RETURN: Final = 0x24
DRAIN: Final = 0x25
DRAINED: Final = 0x26
GOODBYE: Final = 0x27
REREGISTER: Final = 0x28

KIND_NAMES: Final[dict[int, str]] = {
    SUBMIT: "SUBMIT",
    ACCEPTED: "ACCEPTED",
    STARTED: "STARTED",
    CHUNK: "CHUNK",
    DONE: "DONE",
    FAILED: "FAILED",
    CANCEL: "CANCEL",
    PING: "PING",
    PONG: "PONG",
    ADMIN: "ADMIN",
    FETCH: "FETCH",
    BUNDLE: "BUNDLE",
    SPOKEN: "SPOKEN",
    READY: "READY",
    WELCOME: "WELCOME",
    HEARTBEAT: "HEARTBEAT",
    JOB: "JOB",
    RETURN: "RETURN",
    DRAIN: "DRAIN",
    DRAINED: "DRAINED",
    GOODBYE: "GOODBYE",
    REREGISTER: "REREGISTER",
}

SHAPES: Final[dict[int, tuple[bool, bool]]] = {
    SUBMIT: (True, True),
    ACCEPTED: (True, False),
    STARTED: (True, False),
    CHUNK: (False, True),
    DONE: (True, False),
    FAILED: (True, False),
    CANCEL: (False, False),
    PING: (False, False),
    PONG: (False, False),
    ADMIN: (True, False),
    FETCH: (False, False),
    BUNDLE: (False, True),
    SPOKEN: (True, True),
    READY: (True, False),
    WELCOME: (True, False),
    HEARTBEAT: (True, False),
    JOB: (True, True),
    RETURN: (False, False),
    DRAIN: (False, False),
    DRAINED: (False, False),
    GOODBYE: (False, False),
    REREGISTER: (False, False),
}
"""Kind → (has a header, has a payload). The broker's ADMIN answer has a payload too."""

# Flags. A bit means the same on every kind that carries it.
STREAM: Final = 0x0001
"""SUBMIT, JOB: somebody is listening while it is spoken; audio once forwarded must not be spoken again."""
SEGMENT_END: Final = 0x0002
"""CHUNK: the last chunk of its segment; a lost job resumes only behind such a chunk."""
ATTACHED: Final = 0x0004
"""ACCEPTED: the job id was known already, this answer belongs to the first submission."""
STORED: Final = 0x0008
"""ACCEPTED: the job has ended well and its audio is kept: FETCH it."""
ANEW: Final = 0x0020
"""SUBMIT: the client holds nothing of this job's audio and wants it from the first chunk on."""
UNBEGUN: Final = 0x0010
"""CANCEL to a worker: only if the attempt has not begun; then it comes back as RETURN."""
PATIENT: Final = 0x0040
"""JOB: its lane is batch, so whoever works on it lets others go first. A client may set it as well, but only
the lane counts."""


def pack_envelope(
    kind: int, job: bytes = NO_JOB, attempt: int = 0, flags: int = 0, sequence: int = 0, value: int = 0
) -> bytes:
    """Build the 32-byte envelope. `job` is 16 bytes."""
    return ENVELOPE.pack(MAGIC, kind, job, attempt, flags, sequence, value)


def unpack_envelope(envelope: bytes) -> tuple[int, bytes, int, int, int, int]:
    """Return (kind, job, attempt, flags, sequence, value); raise `ProtocolError` for anything else."""
    if len(envelope) != ENVELOPE_BYTES:
        raise ProtocolError(f"an envelope has {ENVELOPE_BYTES} bytes, this frame has {len(envelope)}")
    magic, kind, job, attempt, flags, sequence, value = ENVELOPE.unpack(envelope)
    if magic != MAGIC:
        raise ProtocolError(f"this peer speaks VB1; the frame begins with {magic!r}")
    return kind, job, attempt, flags, sequence, value


def check_text(text: str) -> bytes:
    """Encode a job's text as its payload, or raise `BadRequest` / `TextTooLong`."""
    if not text or text.isspace():
        raise BadRequest("the text is empty: give at least one word to speak")
    if len(text) > MAX_TEXT_CHARS:
        raise TextTooLong(f"the text has {len(text):,} characters, at most {MAX_TEXT_CHARS:,} fit one job")
    try:
        payload = text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"the text is not valid Unicode: {error.reason} at character {error.start}"
        ) from None
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise TextTooLong(
            f"the text takes {len(payload):,} bytes as UTF-8, at most {MAX_PAYLOAD_BYTES:,} fit one job"
        )
    return payload
