"""A real, tiny engine: a sine for every character. For demonstrations, benchmarks and breaking things.

It needs no model and no voice, speaks any language, and behaves as badly as asked: it can take the time a
large model takes (`realtime_factor`), speak several jobs together as one does (`batch`), die in the middle
of a job (`crash_on`), hang (`hang_on`) and fill its memory (`gorge_on`). A character's pitch follows from the
character, the timbre from the voice, so that tests can tell by ear or by spectrum what was spoken by whom.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from ...common.errors import BadRequest, ConfigError
from ..engine import Engine, Part, Reference, Request, Row, Samples

LOWEST_HZ: Final = 220.0
SEMITONES: Final = 24
"""Characters are spread over two octaves above the lowest pitch."""
LOUDNESS: Final = 0.3
FADE_S: Final = 0.004
"""Each character fades in and out over this time: an edge without a fade is a click."""
SLICE_S: Final = 0.05
"""The engine yields at least this often, so that a job can be stopped while it takes its time."""
MAX_CHARS: Final = 400
MAX_KEPT_SAMPLES: Final = 1_000_000
"""4 MB of tones in memory."""
CRASH_EXIT_CODE: Final = 86
GORGED_BYTES: Final = 16 * 1024 * 1024

LANGUAGES: Final = (
    "ar",
    "cs",
    "de",
    "en",
    "es",
    "fr",
    "hi",
    "hu",
    "it",
    "ja",
    "ko",
    "nl",
    "pl",
    "pt",
    "ru",
    "tr",
    "zh",
)

_SENTENCE_END: Final = re.compile(r"(?<=[.!?…。！？])\s+")


@dataclass(frozen=True, slots=True)
class Timbre:
    """What the engine keeps of a voice: the strength of each overtone, from the fundamental on, sum 1."""

    overtones: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting's default and range."""

    default: float | str
    least: float = 0.0
    most: float = 0.0

    def check(self, name: str, value: object) -> float | str:
        """Return the value in its type; raise `ConfigError` naming the range."""
        if isinstance(self.default, str):
            if isinstance(value, str):
                return value
            raise ConfigError(f"tone: {name} must be a string, not {value!r}")
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        if not self.least <= number <= self.most:
            raise ConfigError(
                f"tone: {name} must be a number from {self.least:g} to {self.most:g}, not {value!r}"
            )
        return number


SETTINGS: Final[Mapping[str, Setting]] = {
    "seconds_per_char": Setting(0.06, 0.001, 10),
    "realtime_factor": Setting(0.0, 0, 100),
    "sample_rate": Setting(24_000, 8000, 48_000),
    "load_s": Setting(0.0, 0, 600),
    "batch": Setting(1, 1, 64),
    "crash_on": Setting(""),
    "hang_on": Setting(""),
    "gorge_on": Setting(""),
}
"""`realtime_factor`: seconds taken for a second of audio, 0 as fast as possible; `load_s`: seconds taken to
load; `batch`: most jobs spoken together; a text that contains `crash_on` ends the process, one that contains
`hang_on` never ends, one that contains `gorge_on` takes memory until there is none."""
COMMON_SETTINGS: Final = frozenset({"device", "threads"})
"""Every engine is given these; this one has no use for them."""


class ToneEngine(Engine[Timbre]):
    """Speaks in sines."""

    name: ClassVar[str] = "tone"
    version: ClassVar[str] = "1"
    needs_voice: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    speech: ClassVar[bool] = False

    def __init__(self) -> None:
        self.sample_rate = 24_000
        self.languages = LANGUAGES
        self._seconds_per_char = 0.06
        self._realtime_factor = 0.0
        self._crash_on = self._hang_on = self._gorge_on = ""
        self._calls = self._rows = 0
        self._tones: dict[tuple[str, int, Timbre], Samples] = {}
        self._tones_samples = 0

    def load(self, settings: Mapping[str, Any]) -> None:
        """Check the settings. Raises `ConfigError` for an unknown one or a value out of range."""
        unknown = sorted(set(settings) - set(SETTINGS) - COMMON_SETTINGS)
        if unknown:
            raise ConfigError(f"tone has no setting {unknown[0]!r}: allowed are {', '.join(SETTINGS)}")
        values = {
            name: setting.check(name, settings.get(name, setting.default))
            for name, setting in SETTINGS.items()
        }
        self._seconds_per_char = float(values["seconds_per_char"])
        self._realtime_factor = float(values["realtime_factor"])
        self.sample_rate = int(values["sample_rate"])
        self.batch = int(values["batch"])
        self._crash_on, self._hang_on = str(values["crash_on"]), str(values["hang_on"])
        self._gorge_on = str(values["gorge_on"])
        time.sleep(float(values["load_s"]))

    def voice(self, reference: Reference) -> Timbre:
        """Derive the overtones from the reference's hash: the same recording always sounds the same."""
        digest = bytes.fromhex(reference.sha256)[:4]
        strengths = [1.0] + [byte / 255 / order for order, byte in enumerate(digest, 2)]
        return Timbre(tuple(strength / sum(strengths) for strength in strengths))

    def stock_voice(self, name: str = "") -> Timbre:
        """A bare sine; it has no name."""
        if name:
            raise ConfigError(f"tone has no voice {name!r} of its own, only one without a name")
        return Timbre((1.0,))

    def pack(self, voice: Timbre) -> Mapping[str, np.ndarray[Any, Any]]:
        """One array, `overtones` float64 [overtones]."""
        return {"overtones": np.array(voice.overtones)}

    def unpack(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Timbre:
        """Rebuild the timbre."""
        return Timbre(tuple(float(strength) for strength in arrays["overtones"]))

    def max_chars(self, language: str) -> int:
        """The same in every language."""
        return MAX_CHARS

    def segments(self, text: str, language: str) -> list[str]:
        """Cut at the ends of sentences, and longer ones at the limit."""
        sentences = [part for part in _SENTENCE_END.split(text.strip()) if part]
        return [
            sentence[start : start + MAX_CHARS]
            for sentence in sentences
            for start in range(0, len(sentence), MAX_CHARS)
        ]

    def speak(self, request: Request, voice: Timbre) -> Iterator[Samples]:
        """Yield each character's tone: all at once, or in slices at the pace asked for.

        Raises `BadRequest` for any option: there are none.
        """
        self.check(request)
        if self._crash_on and self._crash_on in request.text:
            os._exit(CRASH_EXIT_CODE)
        if self._hang_on and self._hang_on in request.text:
            while True:
                time.sleep(3600)
        if self._gorge_on and self._gorge_on in request.text:
            hoard: list[bytes] = []
            while True:
                hoard.append(bytes(GORGED_BYTES))
        samples = self._speech(request.text, request.speed, voice)
        # A list's iterator tells that nothing follows, a generator cannot: the host saves a message by it.
        return self._paced(samples) if self._realtime_factor else iter([samples])

    def check(self, request: Request) -> None:
        """Refuse options: there are none."""
        if request.options:
            raise BadRequest(f"tone has no option {next(iter(request.options))!r}: it takes none")

    def speak_batch(self, rows: Sequence[Row[Timbre]]) -> Iterator[Part]:
        """Speak all rows side by side, slice by slice."""
        self._calls += 1
        self._rows += len(rows)
        speaking = {place: self.speak(row.request, row.voice) for place, row in enumerate(rows)}
        while speaking:
            for place in list(speaking):
                part = None if rows[place].stopped else next(speaking[place], None)
                if part is None:
                    del speaking[place]
                yield place, part

    def figures(self) -> Mapping[str, int | float]:
        """How many calls spoke how many rows together."""
        return {"batch_calls": self._calls, "batch_rows": self._rows} if self.batch > 1 else {}

    def _speech(self, text: str, speed: float, voice: Timbre) -> Samples:
        length = max(1, round(self._seconds_per_char / speed * self.sample_rate))
        return np.concatenate([self._tone(character, length, voice) for character in text])

    def _tone(self, character: str, length: int, voice: Timbre) -> Samples:
        """One character, from memory if it is there: benchmarks shall measure the bus and not sines."""
        tone = self._tones.get((character, length, voice))
        if tone is None:
            tone = self._synthesise(character, length, voice)
            if self._tones_samples + length > MAX_KEPT_SAMPLES:
                self._tones.clear()
                self._tones_samples = 0
            self._tones[character, length, voice] = tone
            self._tones_samples += length
        return tone

    def _synthesise(self, character: str, length: int, voice: Timbre) -> Samples:
        tone = np.zeros(length, np.float32)
        if character.isspace():
            return tone
        times = np.arange(length, dtype=np.float32) / np.float32(self.sample_rate)
        pitch_hz = LOWEST_HZ * 2.0 ** ((ord(character) % SEMITONES) / 12)
        for order, strength in enumerate(voice.overtones, 1):
            if pitch_hz * order < self.sample_rate / 2:
                tone += np.float32(strength) * np.sin(np.float32(2 * math.pi * pitch_hz * order) * times)
        fade = max(1, min(length // 2, round(FADE_S * self.sample_rate)))
        rise = (0.5 - 0.5 * np.cos(np.pi * np.arange(fade) / fade)).astype(np.float32)
        tone[:fade] *= rise
        tone[length - fade :] *= rise[::-1]
        return tone * np.float32(LOUDNESS)

    def _paced(self, samples: Samples) -> Iterator[Samples]:
        step = max(1, round(SLICE_S / max(self._realtime_factor, 1.0) * self.sample_rate))
        due = time.monotonic()
        for start in range(0, len(samples), step):
            part = samples[start : start + step]
            due += len(part) / self.sample_rate * self._realtime_factor
            time.sleep(max(0.0, due - time.monotonic()))
            yield part
