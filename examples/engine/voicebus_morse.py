"""A whole engine: Morse code, two octaves above the pitch of the recording it is given.

pip install ./examples/engine
vc-worker morse --set words_per_minute=25
vc say "sos" --engine morse -o sos.wav
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from voicebus.common.errors import ConfigError
from voicebus.workers.engine import Arrays, Engine, Reference, Request, Samples

_TABLE = """
a.- b-... c-.-. d-.. e. f..-. g--. h.... i.. j.--- k-.- l.-.. m-- n-. o--- p.--. q--.- r.-. s... t- u..- v...-
w.-- x-..- y-.-- z--.. 0----- 1.---- 2..--- 3...-- 4....- 5..... 6-.... 7--... 8---.. 9----.
"""
CODE = {entry[0]: entry[1:] for entry in _TABLE.split()}


class MorseEngine(Engine[float]):
    """What it keeps of a voice is one number: a tone in Hz."""

    name: ClassVar[str] = "morse"
    version: ClassVar[str] = "1"
    speech: ClassVar[bool] = False  # the host shall not look for words in it

    def load(self, settings: Mapping[str, Any]) -> None:
        """Take `words_per_minute`, 5 to 60."""
        speed = settings.get("words_per_minute", 20)
        if not isinstance(speed, int | float) or not 5 <= speed <= 60:
            raise ConfigError(f"morse: words_per_minute must be a number from 5 to 60, not {speed!r}")
        self.sample_rate, self.languages = 16_000, ("en",)
        self.unit_s = 1.2 / speed  # a dot lasts 1.2 s divided by the words a minute, by convention

    def voice(self, reference: Reference) -> float:
        """Find the pitch: the strongest period between 70 and 400 Hz in the recording's autocorrelation."""
        spectrum = np.fft.rfft(reference.samples, 2 * len(reference.samples))
        correlation = np.fft.irfft(np.abs(spectrum) ** 2)
        shortest, longest = reference.sample_rate // 400, reference.sample_rate // 70
        return 4.0 * reference.sample_rate / (shortest + int(np.argmax(correlation[shortest:longest])))

    def speak(self, request: Request, voice: float) -> Iterator[Samples]:
        """Yield letter by letter; signs without a code are silent."""
        for letter in request.text.lower():
            for mark in CODE.get(letter, ""):
                yield self._tone(voice, 3 if mark == "-" else 1, request.speed)
                yield self._tone(0.0, 1, request.speed)
            yield self._tone(0.0, 6 if letter == " " else 2, request.speed)

    def _tone(self, hz: float, units: int, speed: float) -> Samples:
        times = np.arange(round(units * self.unit_s / speed * self.sample_rate)) / self.sample_rate
        fade = np.minimum(1.0, np.minimum(times, times[::-1]) / 0.005)  # an edge without a fade is a click
        return (0.3 * fade * np.sin(2 * np.pi * hz * times)).astype(np.float32)

    def pack(self, voice: float) -> Arrays:
        """One number for the disk."""
        return {"hz": np.array(voice)}

    def unpack(self, arrays: Arrays) -> float:
        """And back."""
        return float(arrays["hz"])
