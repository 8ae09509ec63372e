"""Known weaknesses the simulator does not provoke as long as they are open. Each flag is to go with its bug.

With one turned on (`--provoke NAME`) the simulator shows it again, `--seed N` at once where a seed is named.
"""

from __future__ import annotations

from typing import Final

PROVOKED: set[str] = set()
"""Names of the weaknesses that are provoked after all."""

KNOWN: Final[dict[str, str]] = {
    "busy-then-silent": (
        "Each `overloaded` doubles the time after which a lost SUBMIT is sent again, without a limit, and"
        " counts as a silent try. Seed 40001261."
    ),
}


def provokes(name: str) -> bool:
    """Whether the simulator may do what is known to go wrong."""
    if name not in KNOWN:
        raise KeyError(name)
    return name in PROVOKED
