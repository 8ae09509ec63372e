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


def checked(samples: object) -> NDArray[Any]:
    """Return float audio [samples] as it is, or raise `EngineError` for anything but finite mono floats."""
    array: NDArray[Any] = np.asarray(samples)
    if array.ndim != 1 or array.dtype.kind != "f":
        raise EngineError(
            f"the engine yielded {array.dtype} of shape {array.shape} instead of float32 mono audio"
        )
    if not np.isfinite(array).all():
        raise EngineError("the engine yielded audio that is not a number")
    return array


def pieces(samples: NDArray[Any], first_bytes: int) -> Iterator[bytes]:
    """Yield float audio [samples] in [-1, 1] as payloads of PCM, rounded to nearest and clipped.

    The first is of at most `first_bytes`, the others as large as allowed. Each is converted when it is
    asked for, so that the first has left before the rest is looked at.
    """
    start, size = 0, first_bytes // 2
    while start < len(samples):
        yield to_s16(samples[start : start + size]).astype("<i2", copy=False).tobytes()
        start += size
        size = MAX_PAYLOAD_BYTES // 2
