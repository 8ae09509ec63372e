"""From an engine's float samples to the wire's: mono signed 16-bit little-endian, in bounded pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..common.audio import to_s16
from ..common.errors import EngineError
from ..common.wire import MAX_PAYLOAD_BYTES

FIRST_CHUNK_BYTES: Final = 32 * 1024
"""The first chunk of an attempt is small (0.7 s at 24 kHz): a listener's player starts on it."""


def to_pcm(samples: object) -> bytes:
    """Convert float audio [samples] in [-1, 1] to PCM, rounded to nearest; what is beyond is clipped.

    Raises `EngineError` for anything but a one-dimensional array of finite real numbers.
    """
    array: NDArray[Any] = np.asarray(samples)
    if array.ndim != 1 or array.dtype.kind != "f":
        raise EngineError(
            f"the engine yielded {array.dtype} of shape {array.shape} instead of float32 mono audio"
        )
    if not np.isfinite(array).all():
        raise EngineError("the engine yielded audio that is not a number")
    return to_s16(array).astype("<i2", copy=False).tobytes()


def pieces(pcm: bytes, first_limit: int) -> Iterator[bytes]:
    """Cut PCM into payloads: the first of at most `first_limit` bytes, the others as large as allowed."""
    start, limit = 0, first_limit
    while start < len(pcm):
        yield pcm[start : start + limit] if start or limit < len(pcm) else pcm
        start += limit
        limit = MAX_PAYLOAD_BYTES
