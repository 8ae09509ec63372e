"""A long text in parts, cut where sentences end: what is spoken as one is also held in memory as one."""

from __future__ import annotations

from typing import Final

from ..common.text import split

SENTENCE_CHARS: Final = 400
PART_CHARS: Final = 1000
"""A minute or so of speech."""


def parts_of(text: str, *, most_chars: int = PART_CHARS) -> list[str]:
    """Parts of whole sentences, none longer than this unless one sentence is; joined they are the text."""
    parts: list[str] = []
    for piece in split(text, max_chars=SENTENCE_CHARS):
        if parts and len(parts[-1]) + len(piece.text) <= most_chars:
            parts[-1] += piece.text
        else:
            parts.append(piece.text)
    return parts
