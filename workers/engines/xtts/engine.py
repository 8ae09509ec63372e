"""XTTS-v2 by coqui: clones a voice from seconds of speech, in seventeen languages, many segments at a time.

A language model turns text into audio tokens, a vocoder turns what the model thought into sound. The first
is limited by memory and not by arithmetic, so the segments of several jobs are decoded together; each is
heard as it comes if somebody listens, and sounds the same if nobody does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import numpy as np

from ....common.errors import BadRequest, ConfigError, EngineError
from ...engine import Arrays, Engine, Part, Reference, Request, Row, Samples, is_out_of_memory
from .. import coqui
from . import languages, weights
from .decode import Batch, Line
from .model import Model, Voice
from .options import SEEDS, check_speed, sampling
from .settings import Settings
from .tape import Tape

log = logging.getLogger(__name__)

BATCH_ON_CPU: Final = 4
BATCH_ON_GPU: Final = 8
PULSE_STEPS: Final = 4
"""Audio tokens between two chances for the host to look who still wants what."""
SHORTEST_S: Final = 1.0
SILENT: Final = 1e-3
"""A recording whose loudest sample is below this, −60 dB, has nobody in it."""
TOKENS_AT_LEAST: Final = 90
TOKENS_A_TEXT_TOKEN: Final = 12
"""A text token is some two and a half letters, four audio tokens; a model that has lost its thread is cut off
at three times that."""
WARM_UP_TOKENS: Final = 4

_EMPTY: Final[Samples] = np.zeros(0, np.float32)


class XttsEngine(Engine[Voice]):
    """Speaks in a cloned voice, or in one of the model's own."""

    name: ClassVar[str] = "xtts"
    version: ClassVar[str] = "1"
    needs_voice: ClassVar[bool] = False

    def __init__(self) -> None:
        self.sample_rate = 24_000
        self.languages = ("en",)
        self._settings = Settings()
        self._speakers: dict[str, dict[str, Any]] = {}
        self._loaded: Model | None = None
        self._calls = self._rows = self._tokens = 0

    def load(self, settings: Mapping[str, Any]) -> None:
        """Read the checkpoint and speak a word nobody hears."""
        self._settings = chosen = Settings.read(settings)
        device = coqui.device(chosen.device)
        folder = weights.find(chosen)
        coqui.set_threads(chosen.threads)
        coqui.limit_device_memory(device, chosen.device_memory_mib)
        network, config = weights.load(folder, chosen)
        self._loaded = model = Model(network, config, device, self._dtype(device), chosen.graphs)
        self._speakers = weights.speakers(folder)
        if chosen.speaker:
            self.stock_voice(chosen.speaker)
        self.sample_rate = model.sample_rate
        self.languages = languages.available()
        self.batch = chosen.batch or (BATCH_ON_GPU if device.type == "cuda" else BATCH_ON_CPU)
        # A fact of a class to most engines; here it depends on the files.
        vars(self)["version"] = f"{type(self).version}-{weights.fingerprint(folder)}-{model.listening}"
        self._warm_up()
        log.info(
            "XTTS from %s on %s in %s, up to %d segments at once", folder, device, model.dtype, self.batch
        )

    @property
    def model(self) -> Model:
        """The network; there is none before `load` and after `close`."""
        if self._loaded is None:
            raise EngineError("xtts is not loaded")
        return self._loaded

    # Voices.

    def voice(self, reference: Reference) -> Voice:
        """Condition the model on a recording; without one, its own voice."""
        samples = reference.samples
        if samples.size == 0 and not reference.sha256.strip("0"):
            try:
                return self.stock_voice()
            except ConfigError as error:
                raise BadRequest(f"a voice must be named: {error.message}") from error
        if not np.isfinite(samples).all():
            raise BadRequest("the recording holds values that are not finite numbers")
        if samples.size < SHORTEST_S * reference.sample_rate:
            raise BadRequest(f"the recording is shorter than {SHORTEST_S:g} s; six or more are best")
        if float(np.abs(samples).max()) < SILENT:
            raise BadRequest("the recording is silent")
        return self.model.learn(samples, reference.sample_rate)

    def stock_voice(self, name: str = "") -> Voice:
        """One of the voices that come with the checkpoint."""
        if not self._speakers:
            raise ConfigError(
                f"this XTTS checkpoint has no voices of its own ({weights.SPEAKERS} is missing)"
            )
        wanted = name or self._settings.speaker or next(iter(self._speakers))
        parts = self._speakers.get(wanted)
        if parts is None:
            some = ", ".join(list(self._speakers)[:5])
            raise ConfigError(f"XTTS has no speaker {wanted!r}; it has {len(self._speakers)}: {some}…")
        try:
            return self.model.voice(parts["gpt_cond_latent"], parts["speaker_embedding"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"speaker {wanted!r} does not fit the checkpoint: {error}") from error

    def pack(self, voice: Voice) -> Arrays | None:
        """The latents and the embedding, 130 KB."""
        return {
            "latents": voice.latents.float().cpu().numpy(),
            "embedding": voice.embedding.float().cpu().numpy(),
        }

    def unpack(self, arrays: Arrays) -> Voice:
        """A voice of the same checkpoint."""
        return self.model.voice(arrays["latents"], arrays["embedding"])

    # Text.

    def max_chars(self, language: str) -> int:
        """Coqui's limit for the language."""
        return languages.max_chars(language)

    def segments(self, text: str, language: str) -> list[str]:
        """Sentences, halved where one is more tokens than the model takes: numbers written out can be."""
        return [
            part for segment in super().segments(text, language) for part in self._fitting(segment, language)
        ]

    def check(self, request: Request) -> None:
        """Refuse a speed or options out of range."""
        check_speed(request.speed)
        sampling(request.options, self._settings.sampling)

    # Speaking.

    def speak(self, request: Request, voice: Voice) -> Iterator[Samples]:
        """Speak one segment: a batch of one."""
        for _, samples in self.speak_batch([Row(request, voice)]):
            if samples is not None and samples.size:
                yield samples

    def speak_batch(self, rows: Sequence[Row[Voice]]) -> Iterator[Part]:
        """Decode all rows together, and render each when it is wanted."""
        lines = [self._line(place, row) for place, row in enumerate(rows)]
        self._calls += 1
        self._rows += len(lines)
        batch = Batch(self.model)
        try:
            batch.begin(lines)
            yield from self._decode(batch)
        except Exception:
            # The caller may try again with fewer rows, while the traceback still holds on to these.
            batch.clear()
            for line in lines:
                line.latents.clear()
            self.model.release()
            raise
        finally:
            self._tokens += sum(len(line.tokens) for line in lines)

    def figures(self) -> Mapping[str, int | float]:
        """How much was decoded, in how many calls, and what is in use on the device."""
        figures: dict[str, int | float] = {
            "generate_calls": self._calls,
            "rows_spoken": self._rows,
            "tokens": self._tokens,
        }
        if self._loaded is not None:
            figures |= coqui.device_figures(self._loaded.device)
        return figures

    def close(self) -> None:
        """Let go of the network."""
        loaded, self._loaded = self._loaded, None
        self._speakers = {}
        if loaded is not None and loaded.device.type == "cuda":
            loaded.release()
            del loaded
            coqui.torch().cuda.empty_cache()

    def _decode(self, batch: Batch) -> Iterator[Part]:
        tapes = {line.place: Tape(self.model, line) for line in batch.lines}
        while batch.lines:
            batch.step()
            staying: list[Line] = []
            for line in batch.lines:
                tape = tapes[line.place]
                unheard = len(line.tokens) - tape.tokens
                streamed = line.row.request.streamed and unheard >= line.way.stream_chunk_size
                if line.ended or streamed:
                    for samples in tape.play():
                        yield line.place, _sound(samples)
                if line.ended or line.row.stopped:
                    yield line.place, None
                else:
                    staying.append(line)
            batch.keep(staying)
            if batch.lines and batch.steps % PULSE_STEPS == 0:
                yield batch.lines[0].place, _EMPTY

    def _line(self, place: int, row: Row[Voice]) -> Line:
        request = row.request
        text = self.model.encode(request.text, request.language)
        way = sampling(request.options, self._settings.sampling)
        most = min(
            self._settings.max_tokens,
            self.model.max_steps,
            TOKENS_AT_LEAST + TOKENS_A_TEXT_TOKEN * len(text),
        )
        way = replace(way, seed=(way.seed + request.take) % SEEDS)
        return Line(place, row, text, way, most)

    def _fitting(self, segment: str, language: str) -> list[str]:
        if self.model.fits(segment, language) or len(segment) < 2:
            return [segment]
        middle = len(segment) // 2
        space = segment.rfind(" ", 1, middle)
        cut = space if space > 0 else middle
        halves = (segment[:cut].strip(), segment[cut:].strip())
        return [part for half in halves if half for part in self._fitting(half, language)]

    def _warm_up(self) -> None:
        """Everything the first job would wait for: kernels, and the dictionaries of Chinese and Japanese."""
        noise = np.random.default_rng(0).normal(0, 0.1, 2 * self.sample_rate).astype(np.float32)
        voice = self.model.learn(noise, self.sample_rate)
        for language, text in (("zh-cn", "你好"), ("ja", "こんにちは")):
            if language in self.languages:
                self.model.encode(text, language)
        while not self._speaks(Request("Ready to speak.", "en"), voice):
            self.batch //= 2
            log.warning("not enough memory: no more than %d segments at once", self.batch)

    def _speaks(self, request: Request, voice: Voice) -> bool:
        """Whether a full batch fits into memory. Raises `EngineError` where not even one row does."""
        rows = [Row(request, voice) for _ in range(self.batch)]
        batch = Batch(self.model)
        try:
            self.model.prepare(self.batch)
            batch.begin(
                [replace(self._line(place, row), most=WARM_UP_TOKENS) for place, row in enumerate(rows)]
            )
            for _ in self._decode(batch):
                pass
        except Exception as error:
            if not is_out_of_memory(error) or self.batch == 1:
                raise
            batch.clear()
            self.model.release()
            return False
        return True

    def _dtype(self, device: Any) -> Any:
        wanted = self._settings.precision
        if wanted == "auto":
            wanted = "float16" if device.type == "cuda" else "float32"
        return getattr(coqui.torch(), wanted)


def _sound(samples: Samples) -> Samples:
    """Raises `EngineError` for what half precision can make of an overflow."""
    if not np.isfinite(samples).all():
        raise EngineError(
            "xtts computed something that is not a number: set precision to float32 or bfloat16"
        )
    return samples
