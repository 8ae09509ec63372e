"""A conversation as data: who sends what, and how much later. What the stateful fuzzers change and keep.

A file of the corpus is one conversation, a MessagePack array of steps, so a finding is seen again by running
its file, and what atheris or the shrinker does to its bytes is still a conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Final, NamedTuple

import msgpack

from tests.fuzz import mutate
from tests.fuzz.samples import JOBS, message_of
from voicebus.common import wire
from voicebus.common.bundles import ALONE, pack

mp: Any = msgpack
MAX_STEPS: Final = 80
MAX_WAIT_MS: Final = 5000
PEERS: Final = 3


class Step(NamedTuple):
    """`side` and `peer` say who sends these frames, so many milliseconds after what came before."""

    wait_ms: int
    side: int
    peer: int
    frames: list[bytes]


def packed(steps: Iterable[Step]) -> bytes:
    """A conversation as bytes."""
    return mp.packb([list(step) for step in steps])


def unpacked(data: bytes, sides: int) -> list[Step]:
    """The conversation in some bytes; what is no step is left out."""
    try:
        found: Any = mp.unpackb(data, strict_map_key=False)
    except mutate.UNREADABLE:
        return []
    steps: list[Step] = []
    for item in found if isinstance(found, list) else []:  # pyright: ignore[reportUnknownVariableType]
        match item:
            case [int(wait_ms), int(side), int(peer), [*frames]] if frames:
                row = [bytes(frame) for frame in frames if isinstance(frame, bytes)]  # pyright: ignore[reportUnknownVariableType]
                if row:
                    steps.append(Step(abs(wait_ms) % (MAX_WAIT_MS + 1), side % sides, peer % PEERS, row))
            case _:
                continue
    return steps[:MAX_STEPS]


class Changes:
    """Changes of conversations: `kinds` are what each side may send at all."""

    def __init__(self, kinds: Sequence[Sequence[int]]) -> None:
        self._kinds = kinds

    def __call__(self, data: bytes, dice: Random) -> bytes:
        """One change of one conversation."""
        steps = unpacked(data, len(self._kinds))
        if not steps or dice.random() < 0.25:
            steps.insert(dice.randrange(len(steps) + 1), self._fresh(dice))
            return packed(steps[:MAX_STEPS])
        at = dice.randrange(len(steps))
        step = steps[at]
        what = dice.randrange(12)
        if what <= 4:
            for _ in range(dice.choice((1, 2, 4))):
                at = dice.randrange(len(steps))
                steps[at] = steps[at]._replace(frames=mutate.message(steps[at].frames, dice, JOBS))
        elif what == 5:
            steps.insert(dice.randrange(len(steps) + 1), step)
        elif what == 6:
            del steps[at]
        elif what == 7:
            to = dice.randrange(len(steps))
            steps[at], steps[to] = steps[to], steps[at]
        elif what == 8:
            steps[at] = step._replace(peer=dice.randrange(PEERS), side=dice.randrange(len(self._kinds)))
        elif what == 9:
            steps[at] = step._replace(wait_ms=dice.choice((0, 1, 10, 600, 1000, 3000, MAX_WAIT_MS)))
        elif what == 10:
            steps[at : at + 8] = _bundled(steps[at : at + 8])
        else:
            steps += steps[at : at + dice.choice((2, 8))]
        return packed(steps[:MAX_STEPS])

    def _fresh(self, dice: Random) -> Step:
        side = dice.randrange(len(self._kinds))
        frames = message_of(
            dice.choice(self._kinds[side]), dice.choice(JOBS), dice.choice((0, 1, 1, 1, 2, 3))
        )
        return Step(dice.choice((0, 0, 5, 700)), side, dice.randrange(PEERS), frames)


def _bundled(steps: list[Step]) -> list[Step]:
    """The same messages of one peer in a bundle."""
    first = steps[0]
    same = [step.frames for step in steps if (step.side, step.peer) == (first.side, first.peer)]
    whole = [frames for frames in same if len(frames[0]) == wire.ENVELOPE_BYTES and frames[0][3] not in ALONE]
    others = [step for step in steps if step.frames not in whole]
    return [*(first._replace(frames=list(bundle)) for bundle in pack(whole)), *others]


def conversation(*said: tuple[int, int, Sequence[bytes]]) -> bytes:
    """A conversation of (side, peer, frames) without pauses."""
    return packed(Step(0, side, peer, list(frames)) for side, peer, frames in said)
