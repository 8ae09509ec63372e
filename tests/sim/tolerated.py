"""Known weaknesses the simulator does not provoke as long as they are open. Each flag is to go with its bug.

With one turned on (`--provoke NAME`) the simulator shows it again, `--seed N` at once where a seed is named.
"""

from __future__ import annotations

from typing import Final

PROVOKED: set[str] = set()
"""Names of the weaknesses that are provoked after all."""

KNOWN: Final[dict[str, str]] = {
    "late-submit": (
        "A SUBMIT that an old connection delivers after the client has asked over a new one moves the job to"
        " the old one, and ends it with that; a client without a deadline then waits for ever. Seed 900930."
    ),
    "busy-then-silent": (
        "Each `overloaded` doubles the time after which a lost SUBMIT is sent again, without a limit, and"
        " counts as a silent try. Seed 40001261."
    ),
    "replay-burst": (
        "What is replayed to a client that connects anew is sent at once. If it exceeds the budget of unsent"
        " bytes the client is cut off again, however fast it reads, and so on for ever. Seed 15000200."
    ),
}


def provokes(name: str) -> bool:
    """Whether the simulator may do what is known to go wrong."""
    if name not in KNOWN:
        raise KeyError(name)
    return name in PROVOKED
