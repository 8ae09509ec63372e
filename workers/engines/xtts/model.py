"""XTTS-v2's parts as the engine calls them: a recording's latents, a text's prefix, a step, a waveform.

Coqui's `inference` does one text at a time and keeps it on the module, and its `generate` depends on which
release of transformers is installed. What it computes is kept, to the digit; how it is called is ours.
The language model may be in half precision, which is half the memory traffic, and that is its speed on a
GPU; what is sampled from, the voice and the vocoder stay in float32, where they are heard.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ....common.errors import TextTooLong
from ...engine import Samples
from .. import coqui
from .graphs import Graphs
from .transformer import Cache, Transformer

CONDITIONING_HZ: Final = 22_050
HINDI_DIGITS: Final = ("शून्य", "एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ")
HINDI_POINT: Final = "दशमलव"
_LONG_NUMBER: Final = re.compile(r"\d(?:[.,]?\d){18,}")
"""No language has words for these: num2words fails on them, or makes pages of them in its own time."""


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """What the model keeps of a speaker, on its device: how they speak, and how they sound."""

    latents: Any
    "1 × 32 × channels: conditions the language model."
    embedding: Any
    "1 × 512 × 1: conditions the vocoder."


class Model:
    """The network on its device."""

    def __init__(self, network: Any, config: Any, device: Any, dtype: Any, graphs: bool = True) -> None:
        """Take coqui's model over: it is moved, and its language model made `dtype`.

        `graphs`: on CUDA, record a step once and play it back.
        """
        torch = coqui.torch()
        self.torch = torch
        self.device = device
        self.dtype = dtype
        self.config = config
        for part in network.hifigan_decoder.modules():
            if torch.nn.utils.parametrize.is_parametrized(part, "weight"):
                torch.nn.utils.parametrize.remove_parametrizations(part, "weight")
        network.to(device).train(False)
        network.gpt.gpt.to(dtype)
        network.requires_grad_(False)
        self._network = network
        self._gpt = network.gpt
        # What it hears has its positions in it; the module's own are left out.
        self.transformer = Transformer(network.gpt.gpt)
        self._graphs = Graphs() if graphs and device.type == "cuda" else None
        self.tokenizer = network.tokenizer
        self.start: int = int(self._gpt.start_audio_token)
        self.stop: int = int(self._gpt.stop_audio_token)
        self.tokens: int = int(self._gpt.num_audio_tokens)
        self.max_steps: int = int(self._gpt.max_gen_mel_tokens)
        self.max_text_tokens: int = int(network.args.gpt_max_text_tokens) - 1
        self.sample_rate: int = int(network.args.output_sample_rate)
        decoder = network.hifigan_decoder
        self.hop: int = int(decoder.output_hop_length)
        self._frames_a_token: float = decoder.ar_mel_length_compression / decoder.output_hop_length
        self._stretch: float = decoder.output_sample_rate / decoder.input_sample_rate
        self.widths: tuple[tuple[int, ...], tuple[int, ...]] = (
            (1, 32, int(self._gpt.model_dim)),
            (1, int(network.args.d_vector_dim), 1),
        )

    # Voices.

    def learn(self, samples: Samples, sample_rate: int) -> Voice:
        """Condition on a recording, as `get_conditioning_latents` does on a file."""
        torch, network, config = self.torch, self._network, self.config
        resample = coqui.module("torchaudio.functional").resample
        with torch.inference_mode():
            audio = torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None]
            audio = resample(audio, sample_rate, CONDITIONING_HZ).clip(-1, 1)
            audio = audio[:, : CONDITIONING_HZ * int(config.max_ref_len)].to(self.device)
            if config.sound_norm_refs:
                audio = audio / audio.abs().max() * 0.75
            embedding = network.get_speaker_embedding(audio, CONDITIONING_HZ)
            latents = network.get_gpt_cond_latents(
                audio,
                CONDITIONING_HZ,
                length=int(config.gpt_cond_len),
                chunk_length=int(config.gpt_cond_chunk_len),
            )
        return Voice(latents, embedding)

    @property
    def listening(self) -> str:
        """All that the latents of a recording depend on besides the weights, in a few characters."""
        config = self.config
        lengths = (config.max_ref_len, config.gpt_cond_len, config.gpt_cond_chunk_len)
        return "-".join(str(int(value)) for value in (*lengths, config.sound_norm_refs))

    def voice(self, latents: Any, embedding: Any) -> Voice:
        """A voice from its arrays or tensors; raises `ValueError` where they are another model's."""
        parts: list[Any] = []
        for part, width in zip((latents, embedding), self.widths, strict=True):
            tensor = self.torch.as_tensor(part)
            # Before anything is made of it: a file may claim any shape for a single number.
            if tuple(tensor.shape) != width or not bool(self.torch.isfinite(tensor).all()):
                raise ValueError(f"a voice of this model has a part of {width}, not {tuple(tensor.shape)}")
            parts.append(tensor.float().to(self.device))
        return Voice(*parts)

    # Text.

    def fits(self, text: str, language: str) -> bool:
        """Whether a text is few enough tokens."""
        return len(self._tokenise(text, language)) <= self.max_text_tokens

    def encode(self, text: str, language: str) -> list[int]:
        """The tokens of a text. Raises `TextTooLong` where there are too many for the model."""
        tokens = self._tokenise(text, language)
        if len(tokens) > self.max_text_tokens:
            raise TextTooLong(
                f"xtts: this segment is {len(tokens)} text tokens, above the model's {self.max_text_tokens}: "
                f"send shorter sentences ({text[:40]}…)"
            )
        return tokens

    def _tokenise(self, text: str, language: str) -> list[int]:
        text = _LONG_NUMBER.sub(_digit_by_digit, text.strip().lower())
        try:
            tokens = self.tokenizer.encode(text, lang=language)
        except NotImplementedError:  # num2words has no numbers in Hindi
            tokens = self.tokenizer.encode(_hindi_digits(text), lang=language)
        return [int(token) for token in tokens]

    def prefix(self, tokens: Sequence[int], voice: Voice) -> Any:
        """What the language model hears before the first audio token: 1 × length × channels."""
        torch, gpt = self.torch, self._gpt
        with torch.inference_mode():
            ids = [gpt.start_text_token, *tokens, gpt.stop_text_token]
            text = torch.tensor([ids], device=self.device)
            embedded = gpt.text_embedding(text) + gpt.text_pos_embedding(text)
            return torch.cat([voice.latents, embedded], dim=1)

    # Speaking.

    def prepare(self, rows: int) -> None:
        """Do before the first job what batches of so many rows would wait for."""
        if self._graphs is not None:
            self._graphs.prepare(self._after, self.transformer, rows)

    def cache(self, rows: int, length: int) -> Cache:
        """Where the language model keeps what it hears; `length` is the most that it may be."""
        if self._graphs is not None:
            return self._graphs.cache(self.transformer, rows, length)
        return Cache(self.transformer, rows)

    def embed(self, tokens: Any, position: Any) -> Any:
        """Audio tokens (rows) at a position: rows × 1 × channels."""
        return self._gpt.mel_embedding(tokens)[:, None] + self._gpt.mel_pos_embedding.emb(position)[None]

    def begin(self, prefixes: Any, tokens: Any, cache: Cache) -> tuple[Any, Any]:
        """Hear prefixes (rows × positions × channels) and the first tokens; return what `step` does."""
        first = self.embed(tokens, self.torch.zeros(1, dtype=self.torch.long, device=self.device))
        embedded = self.torch.cat([prefixes, first], dim=1)
        return self._read(self.transformer.hear(embedded.to(self.dtype), cache))

    def step(self, tokens: Any, position: int, cache: Cache) -> tuple[Any, Any]:
        """Hear a token of each row. Return the latents (rows × channels) and logits (rows × tokens)."""
        if self._graphs is not None:
            return self._graphs.step(self._after, tokens, position, cache)
        place = self.torch.tensor([position], device=self.device)
        return self._read(self.transformer.hear(self.embed(tokens, place).to(self.dtype), cache))

    def release(self) -> None:
        """Let go of what only speaks faster, where memory is short."""
        if self._graphs is not None:
            self._graphs.clear()
        if self.device.type == "cuda":
            self.torch.cuda.empty_cache()

    def _after(self, tokens: Any, position: Any, layers: Any, put: Any, mask: Any) -> tuple[Any, Any]:
        """A step whose every argument is a tensor at the same place each time."""
        embedded = self.embed(tokens, position).to(self.dtype)
        return self._read(self.transformer.run(embedded, layers, put, mask))

    def _read(self, heard: Any) -> tuple[Any, Any]:
        latents = self._gpt.final_norm(heard[:, -1].float())
        return latents, self._gpt.mel_head(latents)

    def frames(self, latents: Any, speed: float) -> Any:
        """Latents (length × channels) stretched to the vocoder's frames: 1 × channels × frames."""
        interpolate = self.torch.nn.functional.interpolate
        signal = latents.T[None]
        slowdown = max(1.0 / speed, 1.0 / signal.shape[-1])  # a word in a hurry is at least one frame
        for scale in (slowdown, self._frames_a_token, self._stretch):
            if scale != 1.0:
                signal = interpolate(signal, scale_factor=[scale], mode="linear")
        return signal

    def frames_in(self, tokens: float, speed: float) -> float:
        """How many frames so many tokens become."""
        return tokens / speed * self._frames_a_token * self._stretch

    def vocode(self, frames: Any, voice: Voice) -> Samples:
        """The waveform of some frames, `hop` samples for each."""
        wave = self._network.hifigan_decoder.waveform_decoder(frames, g=voice.embedding)
        return wave.flatten().float().cpu().numpy()


def _digit_by_digit(found: re.Match[str]) -> str:
    return " ".join(found[0])


def _hindi_digits(text: str) -> str:
    """Numbers digit by digit, which anybody understands."""

    def spoken(found: re.Match[str]) -> str:
        words = [HINDI_POINT if sign in ".," else HINDI_DIGITS[unicodedata.digit(sign)] for sign in found[0]]
        return f" {' '.join(words)} "

    return re.sub(r"\d+(?:[.,]\d+)*", spoken, text)
