"""Texts whose true audio everybody can compute: what an engine says, and what a listener must have heard.

A text spells out its own shape, and each chunk of its audio names the text, the segment and the chunk. So
audio of another job, words heard twice and words left out all differ from the truth.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from voicebus.common import wire

FATES: Final = ("plain", "poison", "hang", "refused")
"""What happens to the engine that speaks it: nothing, it dies, it hangs, it answers that it will not."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk."""

    segment: int
    flags: int
    pcm: bytes


@dataclass(frozen=True, slots=True)
class Speech:
    """A text as an engine takes it. `at` is the chunk before which its fate strikes, -1 before STARTED."""

    fate: str
    at: int
    segments: int
    pieces: tuple[Piece, ...]
    truth: bytes


def compose(number: int, fate: str, dice: random.Random) -> bytes:
    """Make up a text."""
    shape = [dice.randint(1, 3) for _ in range(dice.randint(1, 3))]
    at = dice.randint(-1, sum(shape) - 1) if fate != "plain" else 0
    size = dice.choice((8, 8, 40, 400))
    ending = dice.choice("ab")
    return f"{number} {fate} {at} {size} {ending} {'.'.join(map(str, shape))}".encode()


@lru_cache(maxsize=4096)
def understand(text: bytes) -> Speech:
    """What a text sounds like. With ending b, segments end in an empty chunk: some engines learn it late."""
    number, fate, at, size, ending, shape = text.decode().split()
    pieces: list[Piece] = []
    for segment, chunks in enumerate(map(int, shape.split("."))):
        for chunk in range(chunks):
            last = chunk == chunks - 1 and ending == "a"
            pcm = f"{number}:{segment}.{chunk};".encode()
            pcm = pcm.ljust(max(int(size), len(pcm) + len(pcm) % 2), b"~")
            pieces.append(Piece(segment, wire.SEGMENT_END if last else 0, pcm))
        if ending == "b":
            pieces.append(Piece(segment, wire.SEGMENT_END, b""))
    truth = b"".join(piece.pcm for piece in pieces)
    return Speech(fate, int(at), shape.count(".") + 1, tuple(pieces), truth)
