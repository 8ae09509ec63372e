"""What the host does about the quality of what an engine says: which checks run, what they count.

Models that draw their speech step by step sometimes fall silent, loop or babble. Each segment is therefore
looked at: by its sound alone and, where that was asked for, by transcribing it. The checks themselves
know nothing of jobs: see `selfcheck.py` and `verify.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .engine import Request, Samples
from .selfcheck import Runaway, find_fault

if TYPE_CHECKING:
    from .verify import Transcriber


HASTY: Final = 1.5
"""Speed beyond which a transcriber errs too often to judge: at 2 it misheard up to .64 of true speech."""


class Checker:
    """Judges segments. Off for engines whose audio is no speech."""

    def __init__(self, *, is_on: bool = False, transcriber: Transcriber | None = None) -> None:
        self.is_on = is_on or transcriber is not None
        self._listens = is_on
        self._transcriber = transcriber
        self.checked = self.respoken = self.faulty = 0

    def holds(self, *, streamed: bool) -> bool:
        """Whether a segment waits for its check. A listener's does not, unless words are verified."""
        return self.is_on and (not streamed or self._transcriber is not None)

    def guard(self, request: Request, sample_rate: int) -> Runaway | None:
        """Something to feed audio to that says when there is more than the text can be worth."""
        if not self._listens:
            return None
        return Runaway(request.text, request.language, sample_rate, request.speed)

    def fault(
        self, request: Request, samples: Samples, sample_rate: int, look: Callable[[], None]
    ) -> str | None:
        """What is wrong with a segment, in a short phrase; None when nothing is.

        `look` is called before what takes long, and may raise.
        """
        if self._listens:
            fault = find_fault(request.text, request.language, samples, sample_rate, request.speed)
            if fault is not None:
                return fault
        if self._transcriber is None or request.speed > HASTY:
            return None
        look()
        return self._transcriber.fault(request.text, request.language, samples, sample_rate)

    def count(self, fault: str | None, *, again: bool) -> None:
        """Keep the accounts of a checked segment; `again`: it is spoken a second time."""
        self.checked += 1
        self.respoken += again
        self.faulty += fault is not None and not again

    def figures(self) -> dict[str, int | float]:
        """How many segments were checked, spoken again, and delivered although they were found faulty."""
        if not self.is_on:
            return {}
        return {
            "segments_checked": self.checked,
            "segments_respoken": self.respoken,
            "segments_faulty": self.faulty,
        }
