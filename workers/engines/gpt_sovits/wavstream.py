"""Reads a WAV as it comes, cut anywhere, and says whether it came whole.

A streamed answer of api_v2 begins with a header that gives a length of nothing, for the length is not known
yet; others write the largest number there is. Both mean: until the answer ends. The chunks before the audio
are read and skipped, since some writers put tags there. Nothing but 16-bit mono is taken: anything else
would be noise if it were played as what we expect.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from ....common.audio import MAX_RATE_HZ, MIN_RATE_HZ
from ....common.errors import EngineError

if TYPE_CHECKING:
    from ....common.audio import Pcm

MAX_HEADER_BYTES: Final = 16 * 1024
OPEN_BYTES: Final = 0x7FFFFF00
"From here on, a length in a header is one that was not known."

_PCM: Final = 1
_EXTENSIBLE: Final = 0xFFFE
_FMT: Final = struct.Struct("<HHIIHH")
_PCM_GUID_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")
_NOTHING: Final = np.zeros(0, np.int16)


class WavReader:
    """Feed it an answer's bytes. `rate_hz` is 0 until the header has been read."""

    __slots__ = ("_buffer", "_left", "_started", "rate_hz")

    def __init__(self) -> None:
        self.rate_hz = 0
        self._buffer = bytearray()
        self._left: int | None = None
        "Bytes of audio still to come, None where the header does not say."
        self._started = False

    def feed(self, data: bytes) -> Pcm:
        """Take more bytes and return the audio in them. Raises `EngineError` for another format."""
        self._buffer += data
        if not self._started and not self._header():
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise EngineError(f"the server's WAV has no audio in its first {MAX_HEADER_BYTES:,} bytes")
            return _NOTHING
        size = len(self._buffer) if self._left is None else min(len(self._buffer), self._left)
        # Half a sample waits for its other half.
        size -= size % 2
        if self._left is not None:
            self._left -= size
        pcm = np.frombuffer(bytes(self._buffer[:size]), "<i2").astype(np.int16, copy=False)
        del self._buffer[:size]
        if self._left == 0:
            self._buffer.clear()  # chunks behind the audio say nothing that is heard
        return pcm

    @property
    def missing(self) -> str:
        """What an answer that ends here lacks; empty where it is whole."""
        if not self._started:
            return "it ends within its header" if self._buffer else "it is empty"
        if self._left:
            return f"{self._left:,} bytes are missing"
        return "it ends within a sample" if self._buffer else ""

    def _header(self) -> bool:
        """Read the header if it is there; leave the audio in the buffer."""
        head = self._buffer
        if not b"RIFF".startswith(head[:4]) or (len(head) >= 12 and bytes(head[8:12]) != b"WAVE"):
            raise EngineError("the server's answer calls itself audio/wav and is none")
        place = 12
        while len(head) >= place + 8:
            name, size = bytes(head[place : place + 4]), int.from_bytes(head[place + 4 : place + 8], "little")
            if name == b"data":
                if not self.rate_hz:
                    raise EngineError("the server's WAV does not say its format before its audio")
                self._left = None if size == 0 or size >= OPEN_BYTES else size
                del head[: place + 8]
                self._started = True
                return True
            end = place + 8 + size + size % 2
            if name == b"fmt " and len(head) >= end:
                self._format(bytes(head[place + 8 : end]))
            elif end > MAX_HEADER_BYTES:
                raise EngineError(f"the server's WAV has no audio in its first {MAX_HEADER_BYTES:,} bytes")
            place = end
        return False

    def _format(self, body: bytes) -> None:
        if len(body) < _FMT.size:
            raise EngineError("the server's WAV has a format that cannot be read")
        kind, channels, rate_hz, _, _, bits = _FMT.unpack_from(body)
        if kind == _EXTENSIBLE and body[26:40] == _PCM_GUID_TAIL:
            kind = int.from_bytes(body[24:26], "little")
        if (kind, channels, bits) != (_PCM, 1, 16):
            raise EngineError(
                f"the server's WAV has {bits} bits on {channels} channels in format {kind}: only 16-bit mono"
                " PCM can be taken"
            )
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise EngineError(f"the server's WAV claims a sample rate of {rate_hz} Hz")
        self.rate_hz = rate_hz
