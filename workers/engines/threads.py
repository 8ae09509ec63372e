"""How many threads an engine takes for itself that was told of none."""

from __future__ import annotations

import os
from typing import Final

MOST_HELPFUL: Final = 4
"""A step of these models is too small for more threads to help."""


def usable_cores() -> int:
    """Cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows cannot tell
        return os.cpu_count() or 1


def default_threads() -> int:
    """As many as there are cores to use, as far as they help."""
    return min(usable_cores(), MOST_HELPFUL)
