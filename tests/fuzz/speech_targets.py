"""Texts and recordings: what is cut, normalised and decoded, in time and memory that are bounded."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from functools import cache
from typing import Any, Final, cast

import numpy as np
import soundfile

from tests.fuzz.edge_targets import change_text
from tests.fuzz.target import Target, refused, require
from voicebus.common.audio import MAX_CHANNELS, decode, encode
from voicebus.common.reference import MAX_STORED_RATE_HZ, MIN_SPEECH_S, prepare_reference
from voicebus.common.text import split
from voicebus.common.wire import check_text
from voicebus.workers.engines.kokoro import clauses
from voicebus.workers.engines.kokoro.locales import LOCALES
from voicebus.workers.engines.kokoro.normalise import normalise

LANGUAGES: Final = ("", "en", "de", "ja", "zh", "ar", "hi", "xx-yy")
MOST_S: Final = 20.0
MOST_TIMES_LONGER: Final = 40


def run_text(data: bytes) -> None:
    """A text cut into pieces; its first byte chooses language and limit."""
    text = data[1:].decode("utf-8", "replace")
    choice = data[0] if data else 0
    most = (1, 5, 40, 400)[choice % 4]
    pieces = split(text, language=LANGUAGES[choice // 4 % len(LANGUAGES)], max_chars=most)
    require(
        "".join(piece.text for piece in pieces) == (text if text.strip() else ""),
        "nothing is lost or said twice",
    )
    require(all(0 < len(piece.spoken) <= most for piece in pieces), "no piece is longer than it may be")
    require(all(piece.pause_s >= 0 for piece in pieces), "a pause is one")


def run_job_text(data: bytes) -> None:
    """Whether a text may be a job's."""
    text = data.decode("utf-8", "surrogatepass") if _is_text(data) else data.decode("latin-1")
    with refused("bad_request", "text_too_long"):
        payload = check_text(text)
        require(payload.decode() == text and len(payload) <= 262_144, "a job's text is the text")


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def run_normalise(data: bytes) -> None:
    """A text as Kokoro's phonemiser is given it, and the stretches that are spoken one by one."""
    text = data[1:].decode("utf-8", "replace")
    names = (*LOCALES, "xx")
    language = names[(data[0] if data else 0) % len(names)]
    said = normalise(text, language)
    require(
        len(said) <= MOST_TIMES_LONGER * len(text) + MOST_TIMES_LONGER, "what is written out stays in bounds"
    )
    require("\n" not in said and said == said.strip(), "it is one line")
    stretches = clauses.split(text, language)
    require(_letters("".join(stretches)) == _letters(text), "no letter is lost between stretches")


def _letters(text: str) -> str:
    return "".join(text.split())


def run_audio(data: bytes) -> None:
    """A stranger's recording, as the process that decodes it reads it."""
    with refused("bad_request"):
        decoded = decode(data, max_seconds=MOST_S, cut=True)
        require(decoded.samples.ndim == 1 and decoded.samples.dtype == np.float32, "it is mono float32")
        require(0 < decoded.samples.size <= MOST_S * decoded.rate_hz, "it is as long as it may be")
        require(bool(np.isfinite(decoded.samples).all()), "its samples are numbers")
        require(
            decode(encode(decoded.samples, decoded.rate_hz)).samples.size == decoded.samples.size,
            "and can be kept",
        )


RATES_HZ: Final = (16_000, 16_001, 24_000, 44_100, 96_000, 8_000)
LENGTHS_S: Final = (MIN_SPEECH_S + 0.5, MIN_SPEECH_S, 0.1, 0.0)


def run_reference(data: bytes) -> None:
    """What was decoded, looked at in the edge itself: samples over and over, until they last long enough."""
    choice = data[0] if data else 0
    rate_hz = RATES_HZ[choice % len(RATES_HZ)]
    length = int(rate_hz * LENGTHS_S[choice // len(RATES_HZ) % len(LENGTHS_S)])
    samples = np.frombuffer(data[1 : 1 + (len(data) - 1) // 2 * 2], "<i2").astype(np.float32) / 32_768
    wav = encode(np.resize(samples, length), rate_hz)
    with refused("bad_request"):
        kept = prepare_reference(wav)
        require(0 < kept.rate_hz <= MAX_STORED_RATE_HZ, "it is kept at a rate that a store may have")
        again = prepare_reference(kept.wav)
        require(again.rate_hz == kept.rate_hz and not again.cut, "what is kept is a recording that would do")


def _reference_seeds() -> Iterable[bytes]:
    """A tone that comes and goes as syllables do, and silence, noise and full scale beside it."""
    at = np.arange(6000) / 16_000
    tone = np.sin(2 * np.pi * 150 * at) * np.where(at % 0.3 < 0.25, 0.3, 0.001)
    for number, sound in enumerate((tone, 0 * tone, np.sign(tone), tone + 0.5)):
        quantised = (np.clip(sound, -1, 1) * 32_767).astype("<i2").tobytes()
        yield bytes((number,)) + quantised
        yield bytes((number + len(RATES_HZ),)) + quantised


@cache
def _sound() -> Any:
    return (0.3 * np.sin(np.arange(800, dtype=np.float32) * 0.2)).astype(np.float32)


def _audio_seeds() -> Iterable[bytes]:
    for name in ("wav", "flac", "mp3", "opus"):
        yield encode(_sound(), 8000, name)
    for container, subtype in (
        ("AIFF", "PCM_24"),
        ("WAV", "IMA_ADPCM"),
        ("WAV", "FLOAT"),
        ("W64", "PCM_16"),
        ("CAF", "ALAC_16"),
    ):
        buffer = io.BytesIO()
        sound = np.stack([_sound()] * min(2, MAX_CHANNELS), axis=1)
        cast("Any", soundfile).write(buffer, sound, 8000, format=container, subtype=subtype)
        yield buffer.getvalue()[:6000]


def _text_seeds() -> Iterable[bytes]:
    said = (
        "Dr. Smith paid $3.50 on 3/14/2024 at 10:05 a.m., i.e. in 1984. Visit example.com!",
        "Sie sagte: „Nein!“ – und ging. 1.234,56 € am 2024-03-14.",
        "これは文です。次の文です！ そう、です。",
        "One\n\nTwo\u2029Three… (four; five, six)",
        json.dumps({"a": 1}),
    )
    for number, text in enumerate(said):
        yield bytes((number * 4 + 3,)) + text.encode()


TARGETS: Final = (
    Target(
        "text", "a text's pieces are the text, none too long, in time that grows with its length",
        run_text, _text_seeds, change_text, 100_000, 4.0,
    ),
    Target(
        "job-text", "a job's text is refused, or travels unchanged",
        run_job_text, lambda: [b"Hello.", b" ", b"\xed\xa0\x80", "é".encode() * 100], change_text, 300_000,
        2.0,
    ),
    Target(
        "normalise", "what is written out stays in bounds, no word is lost, in time that fits the length",
        run_normalise, _text_seeds, change_text, 20_000, 4.0,
    ),
    Target(
        "audio", "a recording is bounded numbers, or refused as bad_request",
        run_audio, _audio_seeds, max_bytes=16_384, most_cpu_s=3.0, most_growth_bytes=512 << 20,
    ),
    Target(
        "reference", "a decoded recording is kept as one that would do again, or refused as bad_request",
        run_reference, _reference_seeds, max_bytes=16_384, most_cpu_s=3.0,
    ),
)  # fmt: skip
