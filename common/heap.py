"""Keep freed memory for the next message instead of giving it back to the system each time.

Audio comes in pieces of up to 256 KiB, and results of megabytes. glibc takes such blocks from the system and
returns them as soon as the end of its heap is free; the next message then faults every page in again, zeroed,
which costs more than the copy it is made for. Processes that carry audio all day keep a few blocks instead.
Only processes of our own do this: a library does not tune the heap of its host.

Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from typing import Final

KEPT_BYTES: Final = 16 * 1024 * 1024
"""So much may lie free at the end of a heap."""
OWN_MAP_BYTES: Final = 4 * 1024 * 1024
"""From here up a block is the system's own affair: taken from it, and returned at once."""
ENGINE_KEPT_BYTES: Final = 128 * 1024 * 1024
ENGINE_MAP_BYTES: Final = 32 * 1024 * 1024
"""For a process that computes: what a model keeps of a batch grows by a new block of megabytes each step.
With the 4 MiB of the others, XTTS took a quarter longer for eight rows: every block's pages were faulted in
anew. Left alone, glibc comes to these 32 MiB, its most, by itself; told a figure, it adapts no more."""
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3


def keep_freed_memory(*, computes: bool = False) -> bool:
    """Ask the C library for it, once and early; an engine's process (`computes`) once its model is loaded.

    Asked before, the weights would come to lie between holes.

    False: it knows no such thing (it is not glibc).
    """
    own_map, kept = (ENGINE_MAP_BYTES, ENGINE_KEPT_BYTES) if computes else (OWN_MAP_BYTES, KEPT_BYTES)
    if sys.platform != "linux":
        return False
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_MMAP_THRESHOLD, own_map) and mallopt(_TRIM_THRESHOLD, kept))
    return False
