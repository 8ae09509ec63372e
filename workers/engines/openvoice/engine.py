"""OpenVoice v2 on the bus: another engine speaks, and its tone colour is changed for the voice's.

What is said, how fast and with what melody is the base engine's; only who seems to say it changes. A voice is
learnt in one step from one recording, so it costs little. The base speaks in a voice of its own, whose tone
colour is learnt here too: once for each of its voices, when it is first needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
import soxr

from ....common.errors import BadRequest, ConfigError
from ... import registry
from ...engine import Arrays, Engine, Reference, Request, Samples
from .. import coqui
from .converter import TONE_SIZE, Converter, FloatArray
from .phrases import most_natural, phrase
from .pieces import Piece, Pieces
from .settings import NAME, Settings, tau_of

FORM: Final = "1"
"Of a voice's arrays."
_SILENT_RMS: Final = 10 ** (-55 / 20)
_LEAST_REFERENCE_S: Final = 1.0
_MOST_REFERENCE_S: Final = 30.0
"A tone colour is a mean over time, which more changes little; the memory it takes grows."


class OpenVoiceEngine(Engine[FloatArray]):
    """Converts what a base engine says. A voice is its tone colour, [1, 256, 1]."""

    name: ClassVar[str] = NAME
    version: ClassVar[str] = FORM

    def load(self, settings: Mapping[str, Any]) -> None:
        """Load converter and base, hear the base's first voice, and convert once to warm up."""
        self._settings = checked = Settings.read(settings)
        registry.find(checked.base)
        self._converter = Converter(checked.converter, checked.device)
        if checked.threads is not None:
            coqui.set_threads(checked.threads)
        self.base = self._loaded_base(checked)
        try:
            self._begin(checked)
        except BaseException:
            # Nobody closes an engine that did not load, and a base may have processes of its own.
            self.base.close()
            raise

    def _begin(self, checked: Settings) -> None:
        # Facts of a class to most engines; here they depend on the files and on the base.
        vars(self).update(version=f"{FORM}-{self._converter.fingerprint}", speech=self.base.speech)
        self.sample_rate = self._converter.rate_hz
        self.languages = self.base.languages
        checked.check_languages(self.languages)
        self._voices: dict[tuple[str, str], tuple[Any, FloatArray]] = {}
        for voice in set(checked.base_voices.values()):
            self.base.stock_voice(voice)  # a wrong name shall be told now
        first = most_natural(self.languages)
        _, tone = self._source(first)
        warm = Request(phrase(first)[:20], first)
        for _ in self.speak(warm, tone):
            pass

    @staticmethod
    def _loaded_base(settings: Settings) -> Engine[Any]:
        base = registry.create(settings.base)
        try:
            base.load(settings.base_settings)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"the base engine {settings.base} needs the package {error.name}:"
                f" {registry.remedy(settings.base)}"
            ) from error
        return base

    def _source(self, language: str) -> tuple[Any, FloatArray]:
        """The voice in which the base speaks a language: its state and its tone colour."""
        name = self._settings.base_voice(language)
        # A voice for one language is heard in it; one for all, in what suits the engine best. A voice for
        # two is heard twice: were the first to come used for both, workers would differ.
        own = name != self._settings.base_voices.get("", "")
        spoken = language if own else most_natural(self.languages)
        if (name, spoken) not in self._voices:
            state = self.base.stock_voice(name)
            said = [*self.base.speak(Request(phrase(spoken), spoken), state)]
            audio = self._resampled(np.concatenate(said), self.base.sample_rate)
            self._voices[name, spoken] = state, self._converter.tone(audio)
        return self._voices[name, spoken]

    def _resampled(self, samples: Samples, rate_hz: int) -> Samples:
        return np.asarray(soxr.resample(samples, rate_hz, self._converter.rate_hz), np.float32)

    def voice(self, reference: Reference) -> FloatArray:
        """Hear who speaks in a recording: well under a second."""
        samples = np.asarray(reference.samples, np.float32)
        if samples.size < _LEAST_REFERENCE_S * reference.sample_rate:
            raise BadRequest("the reference is shorter than one second; give three seconds or more of speech")
        samples = samples[: int(_MOST_REFERENCE_S * reference.sample_rate)]
        if not np.isfinite(samples).all() or float(np.sqrt(np.mean(samples**2))) < _SILENT_RMS:
            raise BadRequest("the reference is silent; record it again, closer to the microphone")
        return self._converter.tone(self._resampled(samples, reference.sample_rate))

    def speak(self, request: Request, voice: FloatArray) -> Iterator[Samples]:
        """Speak one segment, some seconds at a time; each take draws the converter's noise anew."""
        request, tau = self._own_options(request)
        state, source = self._source(request.language)
        convert = partial(self._converted, source=source, target=voice, tau=tau, take=request.take)
        pieces = Pieces(self.base.sample_rate, streamed=request.streamed)
        given = 0
        spoken = iter(self.base.speak(request, state))
        try:
            for part in spoken:
                for piece in pieces.feed(part):
                    yield convert(piece, given)
                    given += piece.stop - piece.start
        finally:
            close: Any = getattr(spoken, "close", None)
            if close is not None:
                close()
        for piece in pieces.end():
            yield convert(piece, given)
            given += piece.stop - piece.start

    def _converted(
        self, piece: Piece, given: int, *, source: FloatArray, target: FloatArray, tau: float, take: int
    ) -> Samples:
        """The wanted part of a piece; `given` samples of the base's came before it."""
        ratio = self._converter.rate_hz / self.base.sample_rate
        length = piece.stop - piece.start
        # Counted from the segment's start, so that the whole is as long as the base's to a sample.
        count = round((given + length) * ratio) - round(given * ratio)
        if piece.is_silent:
            return np.zeros(count, np.float32)
        audio = self._resampled(piece.samples, self.base.sample_rate)
        made = self._converter.convert(audio, source, target, tau=tau, seed=take)
        start = round(piece.start * ratio)
        wanted = made[start : start + count]
        return np.pad(wanted, (0, count - len(wanted)))

    def check(self, request: Request) -> None:
        """Refuse a `tau` that is none, and what the base refuses."""
        self.base.check(self._own_options(request)[0])

    def _own_options(self, request: Request) -> tuple[Request, float]:
        """The request as the base shall see it, and `tau`."""
        options = dict(request.options)
        tau = tau_of(options.pop("tau", self._settings.tau), BadRequest)
        return replace(request, options=options), tau

    def max_chars(self, language: str) -> int:
        """As the base."""
        return self.base.max_chars(language)

    def segments(self, text: str, language: str) -> list[str]:
        """Cut text as the base does."""
        return self.base.segments(text, language)

    def figures(self) -> Mapping[str, int | float]:
        """The base's own, and what is in use on the device."""
        return {**self.base.figures(), **self._converter.figures()}

    def pack(self, voice: FloatArray) -> Arrays:
        """One array, `tone` float32 [1, 256, 1]."""
        return {"tone": voice}

    def unpack(self, arrays: Arrays) -> FloatArray:
        """Rebuild a voice. Raises `KeyError` or `ValueError` for arrays of another make."""
        tone = np.asarray(arrays["tone"], np.float32)
        if tone.shape != (1, TONE_SIZE, 1) or not np.isfinite(tone).all():
            raise ValueError("the array is no tone colour")
        return tone

    def close(self) -> None:
        """Let go of base and converter."""
        self.base.close()
        del self._converter
