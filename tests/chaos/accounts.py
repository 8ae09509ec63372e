"""Who got what: every client's log against what the engine itself makes of each line."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.chaos.talker import text_of
from voicebus.common.audio import to_s16
from voicebus.common.voices import VoiceStore
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.tone import ToneEngine


class Accounts:
    """The books of a run: `lines` lines for each of `names`."""

    def __init__(self, folder: Path, names: list[str], lines: int) -> None:
        self.names = names
        self.lines = lines
        self._folder = folder
        self._allowed: dict[str, set[int]] = defaultdict(set)
        "Lines answered before their client was killed that its successor speaks once more."
        self._recovered: set[tuple[str, int]] = set()
        self._engine = ToneEngine()
        self._engine.load({"seconds_per_char": 0.002})
        recording = VoiceStore().reference("amber")
        reference = Reference("amber", recording.samples, recording.rate_hz, recording.sha256)
        self._voice = self._engine.voice(reference)

    def answers(self, name: str) -> list[tuple[int, str, str]]:
        """(index, code, digest) of every answer; a line torn by a kill is none."""
        try:
            rows = (self._folder / f"{name}.log").read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        split = (row.split() for row in rows if row.endswith("\n"))
        return [(int(index), code, digest) for index, code, digest in split]

    def missing(self, name: str) -> list[int]:
        """Lines that have no answer."""
        answered = {index for index, _, _ in self.answers(name)}
        return [index for index in range(self.lines) if index not in answered]

    def killed(self, name: str, missing: list[int]) -> None:
        """Note that a client died: a successor begins with the first line that is missing."""
        self._recovered |= {(name, index) for index in missing}
        self._allowed[name] |= set(range(missing[0], self.lines)) - set(missing)

    def done_everything(self) -> bool:
        """Whether every line has an answer."""
        return not any(self.missing(name) for name in self.names)

    def report(self, injected: Mapping[str, int]) -> bool:
        """Print the table; True if nothing is wrong."""
        tally: Counter[str] = Counter()
        codes: Counter[str] = Counter()
        for name in self.names:
            times: Counter[int] = Counter()
            for index, code, digest in self.answers(name):
                times[index] += 1
                if code != "done":
                    codes[code] += 1
                elif digest != self._digest(text_of(name, index)):
                    tally["unexpected"] += 1
                else:
                    tally["recovered" if (name, index) in self._recovered else "acknowledged"] += (
                        times[index] == 1
                    )
            repeats = {index: count - 1 for index, count in times.items() if count > 1}
            tally["repeated by a successor"] += sum(n for i, n in repeats.items() if i in self._allowed[name])
            tally["duplicated"] += sum(n for i, n in repeats.items() if i not in self._allowed[name])
            tally["lost"] += len(self.missing(name))
        print(f"\n{'fault':<20}times")
        for kind, count in injected.items():
            print(f"{kind:<20}{count:>5}")
        print(f"{'in all':<20}{sum(injected.values()):>5}\n")
        print(f"{'jobs':<28}{self.lines * len(self.names):>7}")
        for what in (
            "acknowledged",
            "recovered",
            "repeated by a successor",
            "lost",
            "duplicated",
            "unexpected",
        ):
            print(f"{what:<28}{tally[what]:>7}")
        for code, count in codes.items():
            print(f"{'failed ' + code:<28}{count:>7}")
        return not (tally["lost"] or tally["duplicated"] or tally["unexpected"] or codes)

    def _digest(self, text: str) -> str:
        """The audio as the worker makes it: segment by segment."""
        spoken = [
            to_s16(part)
            for segment in self._engine.segments(text, "en")
            for part in self._engine.speak(Request(segment, "en"), self._voice)
        ]
        return hashlib.sha256(np.concatenate(spoken).tobytes()).hexdigest()
