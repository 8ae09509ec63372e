"""How many threads an engine takes for itself that was told of none."""

from __future__ import annotations

import os
from typing import Final

MOST_HELPFUL: Final = 4
"""A step of these models is too small for more threads to help."""


def default_threads() -> int:
    """Cores this process may run on, as far as they help."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows cannot tell
        usable = os.cpu_count() or 1
    return min(usable, MOST_HELPFUL)
