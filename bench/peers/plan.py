"""The work that every system is given: 200 bytes of text in, that text a number of times out.

Nothing but the standard library, because the ends of all systems import it, each in its own environment. The
answer follows from the text alone, so that a worker needs no settings and a client can check every byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

TEXT_BYTES: Final = 200
LARGE_BYTES: Final = 200_000
WINDOW: Final = 64
WINDOWED: Final = f"window{WINDOW}"
SINGLE: Final = "single"

_TIMES_DIGITS: Final = 6
_NUMBER_DIGITS: Final = 10
_WORDS: Final = b" the ferry leaves the northern harbour at a quarter past nine and the last bus waits"
_REST: Final = (_WORDS * 3)[: TEXT_BYTES - _TIMES_DIGITS - _NUMBER_DIGITS - 1] + b"s"
"""Words without the end of a sentence, where a client of ours might cut the text, and no space last."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One figure to take: so many requests under way, answers of this size, for so long."""

    mode: str
    size_bytes: int
    seconds: float
    warm_s: float
    """This long the same is done before anything is counted."""

    @property
    def window(self) -> int:
        """Requests under way at once."""
        return WINDOW if self.mode == WINDOWED else 1


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a client process is told: where to connect, whose processor time to account, what to take."""

    address: str
    middle: Sequence[int]
    worker: Sequence[int]
    phases: Sequence[Phase]
    options: Mapping[str, Any]

    def to_json(self) -> str:
        """For the command line of the client."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` made."""
        found: dict[str, Any] = json.loads(text)
        found["phases"] = [Phase(**phase) for phase in found["phases"]]
        return cls(**found)


def text_of(number: int, size_bytes: int) -> bytes:
    """The text of a request: how often it is to come back, its number, words."""
    return b"%0*d%0*d" % (_TIMES_DIGITS, size_bytes // TEXT_BYTES, _NUMBER_DIGITS, number) + _REST


def answer_of(text: bytes) -> bytes:
    """What a worker makes of a text."""
    return text * int(text[:_TIMES_DIGITS])


def number_of(answer: bytes) -> int:
    """Whose answer, or text, this is."""
    return int(answer[_TIMES_DIGITS : _TIMES_DIGITS + _NUMBER_DIGITS])
