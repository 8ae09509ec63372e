"""The embedded default engine: Kokoro-82M on a bare CPU, cloning by blended styles and WORLD conversion.

What it is, honestly: timbre and pitch of the reference on Kokoro's own diction, not the speaker's full
identity. What it gives for that: no GPU, no PyTorch, a voice learnt in seconds and speech faster than real
time on two cores. This module joins the parts; each idea has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from ....common.errors import BadRequest, ConfigError, EngineError, ModelMissing
from ...engine import Arrays, Engine, Reference, Request, Samples
from . import clauses, conversion, enrol, joins, world
from .atlas import PROBES
from .atlas import load as load_atlas
from .encoder import SpeakerEncoder
from .enrol import Voice
from .g2p import G2P
from .model import MAX_TOKENS, RATE_HZ, FloatArray, Network, load_packs
from .settings import Settings

SPEEDS: Final = (0.5, 2.0)
_SILENT_RMS: Final = 10 ** (-55 / 20)
_LEAST_REFERENCE_S: Final = 1.0
_WARM_UP: Final = "Good morning."
_USUAL_VOICE: Final = "af_heart"


def _model_folder(settings: Settings) -> Path:
    if settings.model_dir is None:
        from ....common.models import require
        from .manifest import MANIFEST

        return require(MANIFEST)
    folder = settings.model_dir
    for needed in ("model.onnx", "vocab.json", "encoder.pt", "voices"):
        # A pipe of such a name would be waited for, not read.
        if not (folder / needed).is_file() and (needed != "voices" or not (folder / needed).is_dir()):
            raise ModelMissing(
                f"{folder} holds no {needed}; run: vc models pull kokoro, or set model_dir aright"
            )
    return folder


def _language(tag: str) -> str:
    """The language of ours that a tag means. Raises `BadRequest` where there is none."""
    wanted = tag.lower().replace("_", "-")
    for known in KokoroEngine.languages:
        if wanted == known:
            return known
    for known in KokoroEngine.languages:
        if known.split("-")[0] == wanted.split("-")[0]:
            return known
    raise BadRequest(f"kokoro does not speak {tag!r}; it speaks {', '.join(KokoroEngine.languages)}")


class KokoroEngine(Engine[Voice]):
    """Kokoro behind the engine interface."""

    name: ClassVar[str] = "kokoro"
    version: ClassVar[str] = "1"
    sample_rate: int = RATE_HZ
    languages: tuple[str, ...] = G2P.languages

    def load(self, settings: Mapping[str, Any]) -> None:
        """Load network, voices, encoder and phonemiser, and speak once to warm up."""
        checked = Settings.read(settings)
        folder = _model_folder(checked)
        try:
            self._open(folder, checked.threads)
        except ImportError as error:
            raise ModelMissing(
                f"{error.name} is not installed; run: pip install 'voicebus[kokoro]'"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ModelMissing(
                f"the model in {folder} is damaged ({_first_line(error)}); run: vc models pull kokoro"
            ) from error

    def _open(self, folder: Path, threads: int) -> None:
        self._network = Network(folder / "model.onnx", threads)
        self._names, self._packs = load_packs(folder / "voices")
        self._atlas = load_atlas()
        if self._atlas.names != self._names:
            raise ModelMissing("the voices are not those this version knows; run: vc models pull kokoro")
        self.encoder = SpeakerEncoder(folder / "encoder.pt")
        self._g2p = G2P(folder / "vocab.json")
        tokens = self._g2p.tokens(self._g2p.phonemes(_WARM_UP, "en-us"))
        spoken = self._network.run(tokens, self._packs[0])
        conversion.convert(world.analyse(spoken), conversion.identity())
        self.encoder.embed(spoken, RATE_HZ)

    def voice(self, reference: Reference) -> Voice:
        """Learn a voice: about ten seconds of two cores."""
        samples = np.asarray(reference.samples, np.float32)
        if samples.size < _LEAST_REFERENCE_S * reference.sample_rate:
            raise BadRequest("the reference is shorter than one second; give three seconds or more of speech")
        if not np.isfinite(samples).all() or float(np.sqrt(np.mean(samples**2))) < _SILENT_RMS:
            raise BadRequest("the reference is silent; record it again, closer to the microphone")
        if reference.sample_rate != RATE_HZ:
            import soxr

            samples = np.asarray(soxr.resample(samples, reference.sample_rate, RATE_HZ), np.float32)
        probe = self._g2p.tokens(self._g2p.phonemes(PROBES[0], "en-us"))
        try:
            return enrol.enrol(
                samples,
                self._packs,
                self._atlas,
                lambda pack: joins.trim(self._network.run(probe, pack)),
                lambda audio: self.encoder.embed(audio, RATE_HZ),
            )
        except ValueError as error:
            raise BadRequest(
                f"the reference holds no usable speech: {error}; give a clean recording"
            ) from error

    def segments(self, text: str, language: str) -> list[str]:
        """Cut text into stretches, a short first clause first."""
        return clauses.split(text, language)

    def max_chars(self, language: str) -> int:
        """Most characters of one segment; `segments` stays below it."""
        return clauses.MAX_CHARS

    def speak(self, request: Request, voice: Voice) -> Iterator[Samples]:
        """Speak one segment; a segment of more tokens than the network takes comes in several parts."""
        unchanged = _changes_nothing(voice.conversion)
        for spoken in self._spoken(request, voice.pack):
            # The vocoder costs time and leaves a trace; a voice of Kokoro's own needs neither.
            yield (
                spoken
                if unchanged
                else joins.trim(conversion.convert(world.analyse(spoken), voice.conversion))
            )
        if pause := joins.pause_after(request.text):
            yield joins.silence(pause / request.speed)

    def speak_stock(self, request: Request, name: str) -> Iterator[Samples]:
        """Speak with one of Kokoro's own voices, unconverted: what cloning is measured against."""
        if name not in self._names:
            raise BadRequest(f"kokoro has no voice {name!r} of its own")
        yield from self._spoken(request, self._packs[self._names.index(name)])

    def stock_voice(self, name: str = "") -> Voice:
        """One of Kokoro's own voices, unconverted; "" is the one it is best known by."""
        wanted = name or _USUAL_VOICE
        if wanted not in self._names:
            raise ConfigError(f"kokoro has no voice {wanted!r} of its own; it has {', '.join(self._names)}")
        place = self._names.index(wanted)
        weights = np.zeros(len(self._names), np.float32)
        weights[place] = 1.0
        return Voice(weights, self._packs[place], conversion.identity(), similarity=1.0)

    def _spoken(self, request: Request, pack: FloatArray) -> Iterator[Samples]:
        if request.options:
            raise BadRequest(f"kokoro has no option {sorted(request.options)[0]!r}")
        if not SPEEDS[0] <= request.speed <= SPEEDS[1]:
            raise BadRequest(f"speed must be from {SPEEDS[0]} to {SPEEDS[1]}, not {request.speed}")
        phonemes = self._g2p.phonemes(request.text, _language(request.language))
        if not phonemes:
            raise BadRequest("the text holds nothing that can be spoken; give words or numbers")
        for part in _within_limit(phonemes):
            spoken = joins.trim(self._network.run(self._g2p.tokens(part), pack, request.speed))
            if spoken.size == 0:
                raise EngineError("kokoro produced silence for this text; try other words")
            yield spoken

    def pack(self, voice: Voice) -> Arrays:
        """Small arrays: the blend's weights and the conversion."""
        return enrol.to_arrays(voice)

    def unpack(self, arrays: Arrays) -> Voice:
        """Rebuild a voice from its arrays."""
        return enrol.from_arrays(arrays, self._packs)

    def close(self) -> None:
        """End the phonemiser's process."""
        self._g2p.close()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]


def _changes_nothing(found: conversion.Conversion) -> bool:
    """Whether a conversion is the identity; what came through a file counts too."""
    same = conversion.identity()
    return (
        found.level == same.level
        and not len(found.frames)
        and np.array_equal(found.matrix, same.matrix)
        and np.array_equal(found.source_mean, found.target_mean)
        and np.array_equal(found.pitch, same.pitch)
    )


def _within_limit(phonemes: str) -> Iterator[str]:
    """Cut phonemes at spaces so that each part has at most `MAX_TOKENS`."""
    while len(phonemes) > MAX_TOKENS:
        cut = phonemes.rfind(" ", 1, MAX_TOKENS + 1)
        cut = cut if cut > 0 else MAX_TOKENS
        yield phonemes[:cut]
        phonemes = phonemes[cut:].lstrip()
    if phonemes:
        yield phonemes
