"""A million ways to be wrong: malformed VB1 as the bytes that go over a TCP connection.

Each message is framed by ZMTP as it should be, so that it gets as far as the broker's own code; what ZMTP
itself is told wrongly is libzmq's business. Some need decoding to be seen through, some are large, some
have frames without end, and some are well-formed words of the other kind of peer.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Sequence
from typing import Final

import msgpack

from voicebus.common import wire

GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
GREETING_BYTES: Final = 64


def ready_command() -> bytes:
    """A DEALER's READY, without a routing id of its own."""
    body = b"\x05READY" + _property(b"Socket-Type", b"DEALER") + _property(b"Identity", b"")
    return bytes((4, len(body))) + body


def message(*frames: bytes) -> bytes:
    """The frames of one message as ZMTP has them."""
    last = len(frames) - 1
    return b"".join(
        struct.pack("!BQ", 2 | (number < last), len(frame)) + frame for number, frame in enumerate(frames)
    )


def wrong_messages(dice: random.Random) -> Sequence[bytes]:
    """One of each kind, framed."""
    job = dice.randbytes(16)
    submit = wire.pack_envelope(wire.SUBMIT, job)
    header = _pack(["tone", "amber", "en"])
    beat = wire.pack_envelope(wire.HEARTBEAT)
    wrong = (
        (b"",),
        (b"GET / HTTP/1.1\r\n",),
        (b"VB2" + submit[3:], header, b"text"),
        (submit,),
        (submit, header),
        (submit, header, b"text", b"more"),
        (submit, *[b"x"] * 40),
        (submit, b"\x81" * (wire.MAX_HEADER_BYTES + 1), b"text"),
        (submit, b"\x91" * 16_000, b"text"),
        (submit, _pack([msgpack.ExtType(5, b"boom")]), b"text"),
        (submit, _pack(["x" * 129]), b"text"),
        (submit, _pack(["tone", "../../etc/passwd"]), b"text"),
        (submit, _pack([["tone"] * 500]), b"text"),
        (submit, os.urandom(300), os.urandom(2000)),
        (submit, header[:-1], b"text"),
        (wire.pack_envelope(wire.ADMIN, job), b"\xc1"),
        (wire.pack_envelope(0xFF, job), b"x"),
        (wire.pack_envelope(wire.JOB, job, 1), header, b"text"),
        (wire.pack_envelope(wire.WELCOME), _pack(["broker", 1000, 3])),
        (wire.pack_envelope(wire.BUNDLE), os.urandom(64)),
        (wire.pack_envelope(wire.BUNDLE), _pack([beat, beat, beat])),
        (wire.pack_envelope(wire.BUNDLE), _pack([submit, header])),
        (wire.pack_envelope(wire.SPOKEN, job, 1), b"\xc1", b"\0"),
        (dice.randbytes(32), dice.randbytes(64), dice.randbytes(8000)),
    )
    return [message(*frames) for frames in wrong]


def _pack(value: object) -> bytes:
    packed = msgpack.packb(value)
    return packed if isinstance(packed, bytes) else b""


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + struct.pack("!I", len(value)) + value
