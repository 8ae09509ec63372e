"""The books of a run, as Jepsen keeps them: for each job exactly one of five, from what clients wrote down.

acknowledged: answered once, with its own audio, by the process that began it. recovered: the same, but its
client was killed under way, or it was refused for want of disk and asked for again. lost: no answer, or an
accepted durable job of which no broker knows. duplicated: answered more than once. unexpected: other audio,
or a code that nothing excuses. A refusal is excused if a disk was full at any time since the line was begun,
or since it was refused before: a successor may hear late of what befell its predecessor's job.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import numpy as np

from tests.chaos.diary import ANSWERS, Row
from voicebus.common.audio import to_s16
from voicebus.common.voices import VoiceStore
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.tone import ToneEngine


class Fate(Enum):
    """What became of a job."""

    ACKNOWLEDGED = "acknowledged"
    RECOVERED = "recovered"
    LOST = "lost"
    DUPLICATED = "duplicated"
    UNEXPECTED = "unexpected"


GOOD: Final = frozenset({Fate.ACKNOWLEDGED, Fate.RECOVERED})


@dataclass(slots=True)
class Account:
    """What one client's diary amounts to."""

    jobs: int = 0
    fates: Counter[Fate] = field(default_factory=Counter[Fate])
    refused: Counter[str] = field(default_factory=Counter[str])
    fetched: int = 0
    "Lines a successor got by fetching its predecessor's job."
    unpromised: int = 0
    wrong: list[tuple[int, Fate, list[Row]]] = field(default_factory=list[tuple[int, Fate, list[Row]]])


def account(
    rows: Iterable[Row], lines: int, expected: Callable[[int], str], full: Sequence[tuple[float, float]]
) -> Account:
    """Judge a diary of at least `lines` lines. `expected(index)` is the digest of a line's audio."""
    by_index: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.what != "finished":
            by_index[row.index].append(row)
    found = Account(jobs=max(lines, max(by_index, default=-1) + 1))
    for index in range(found.jobs):
        story = by_index[index]
        fate = _fate(story, expected(index), full)
        found.fates[fate] += 1
        found.refused.update(row.detail for row in story if row.what == "refused")
        found.unpromised += sum(row.what == "unpromised" for row in story)
        found.fetched += fate is Fate.RECOVERED and _was_fetched(story)
        if fate not in GOOD:
            found.wrong.append((index, fate, story))
    return found


def _fate(story: list[Row], digest: str, full: Sequence[tuple[float, float]]) -> Fate:
    answers = [row for row in story if row.what in ANSWERS]
    if not answers:
        return Fate.LOST
    if len(answers) > 1:
        return Fate.DUPLICATED
    answer = answers[0]
    if answer.what == "failed":
        promised = any(row.what == "accepted" for row in story)
        return Fate.LOST if promised and answer.detail == "unknown_job" else Fate.UNEXPECTED
    since = story[0].at
    refusals = [row.at for row in story if row.what == "refused"]
    for at in refusals:
        if not any(begun <= at and since <= ended for begun, ended in full):
            return Fate.UNEXPECTED
        since = at
    if answer.detail != digest:
        return Fate.UNEXPECTED
    lives = {row.life for row in story}
    return Fate.RECOVERED if refusals or len(lives) > 1 else Fate.ACKNOWLEDGED


def _was_fetched(story: list[Row]) -> bool:
    """Whether the answer came to another process than the one that had submitted the job."""
    submitted = [row for row in story if row.what == "submitted"]
    return bool(submitted) and submitted[-1].life < story[-1].life


class Ear:
    """Knows how the tone engine speaks a text."""

    def __init__(self) -> None:
        self._engine = ToneEngine()
        self._engine.load({"seconds_per_char": 0.002})
        recording = VoiceStore().reference("amber")
        reference = Reference("amber", recording.samples, recording.rate_hz, recording.sha256)
        self._voice = self._engine.voice(reference)

    def digest(self, text: str) -> str:
        """The audio as the worker makes it: segment by segment."""
        spoken = [
            to_s16(part)
            for segment in self._engine.segments(text, "en")
            for part in self._engine.speak(Request(segment, "en"), self._voice)
        ]
        return hashlib.sha256(np.concatenate(spoken).tobytes()).hexdigest()
