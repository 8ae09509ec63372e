"""Faults that speech models really have, laid over real speech; and real speech that must pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from voicebus.workers.engine import Request
from voicebus.workers.engines.kokoro.engine import KokoroEngine
from voicebus.workers.selfcheck import Runaway, bounds_s, find_fault

Audio = NDArray[np.float32]
RATE_HZ = 24_000
SENTENCE = (
    "The quick brown fox jumps over the lazy dog while the old man watches from the window and is silent."
)
VOICES = Path(__file__).resolve().parents[2] / "voices"


@pytest.fixture(scope="module")
def speak() -> Callable[..., Audio]:
    engine = KokoroEngine()
    engine.load({"threads": 2})

    def spoken(text: str, language: str = "en-us", voice: str = "af_heart", speed: float = 1.0) -> Audio:
        return np.concatenate(list(engine.speak_stock(Request(text, language, speed), voice)))

    return spoken


ODD = [
    (SENTENCE, "en-us"),
    ("Yes.", "en-us"),
    ("Oh.", "en-us"),
    ("WWW, HTTPS and WYSIWYG.", "en-us"),
    ("A B C D E F G H I J K L M N O P Q R S T U V W X Y Z", "en-us"),
    ("One, two, three, four, five, six, seven, eight, nine.", "en-us"),
    ("Twenty-one, twenty-two, twenty-three, twenty-four.", "en-us"),
    ("In 1984, 73% of 12,345 people paid $19.99.", "en-us"),
    ("Dial 777777777 now.", "en-us"),
    ("No, no, no, no, no, no!", "en-us"),
    ("Ha ha ha ha ha ha ha ha ha ha ha ha.", "en-us"),
    ("Left, right, left, right, left, right, left, right.", "en-us"),
    ("Gently down the stream. Gently down the stream. Gently down the stream.", "en-us"),
    ("The cat sat on the mat. The cat sat on the mat.", "en-us"),
    ("She sells sea shells; the shells she sells are sea shells.", "en-gb"),
    ("Mmmmm. Aaaaah.", "en-us"),
    ("El veloz murciélago hindú comía feliz cardillo y kiwi.", "es"),
    ("Portez ce vieux whisky au juge blond qui fume.", "fr"),
    ("Quel vituperabile xenofobo zelante assaggia il whisky.", "it"),
    ("मैं कल बाज़ार जाऊँगा और कुछ फल खरीदूँगा।", "hi"),
]
SPEEDS = (1.0, 0.5, 2.0)


@pytest.mark.model
@pytest.mark.parametrize("place", range(len(ODD)))
def test_true_speech_passes_however_odd(speak: Callable[..., Audio], place: int) -> None:
    """One speed and voice for each text keeps it short; all were tried when the bounds were chosen."""
    text, language = ODD[place]
    speed, voice = SPEEDS[place % 3], ("af_heart", "am_adam")[place % 2]
    assert find_fault(text, language, speak(text, language, voice, speed), RATE_HZ, speed) is None


@pytest.mark.parametrize("voice", ["amber", "basil"])
def test_the_shipped_recordings_pass(voice: str) -> None:
    read, rate_hz = sf.read(VOICES / voice / "reference.wav", dtype="float32")
    samples = np.asarray(read, np.float32)
    assert find_fault("word " * round(len(samples) / rate_hz * 3), "en", samples, rate_hz) is None


def tremble(audio: Audio, by: float, chance: np.random.Generator) -> Audio:
    """The same sound a little longer or shorter, louder or softer: a model that loops is no tape."""
    places = np.arange(0, len(audio), 1 + by * chance.standard_normal())
    louder = 1 + by * chance.standard_normal()
    return (louder * np.interp(places, np.arange(len(audio)), audio)).astype(np.float32)


@pytest.mark.model
def test_faults_of_speech_models_are_found_and_named(speak: Callable[..., Audio]) -> None:
    whole = speak(SENTENCE)
    chance = np.random.default_rng(7)
    syllable = whole[RATE_HZ : RATE_HZ + RATE_HZ * 2 // 5]
    half = whole[: len(whole) // 2]
    vowel = whole[30_000:32_400] * np.hanning(2400).astype(np.float32)
    hum = np.concatenate([vowel] * 40)
    faults = {
        "cut off": (whole[: RATE_HZ // 2], "s of sound for"),
        "padded": (
            np.concatenate([whole[: RATE_HZ // 2], np.zeros(3 * RATE_HZ, np.float32)]),
            "s of sound for",
        ),
        "silent": (np.zeros(5 * RATE_HZ, np.float32), "of silence"),
        "empty": (np.zeros(0, np.float32), "of silence"),
        "hole": (np.concatenate([half, np.zeros(5 * RATE_HZ, np.float32), half]), "silence inside"),
        "looping": (
            np.concatenate([half, *(tremble(syllable, 0.03, chance) for _ in range(12))]),
            "over and over",
        ),
        "looping long": (
            np.concatenate([half, *(tremble(whole[20_000:56_000], 0.01, chance) for _ in range(6))]),
            "over and over",
        ),
        "twice": (np.concatenate([whole, whole]), "twice"),
        "twice after a pause": (
            np.concatenate([whole, np.zeros(RATE_HZ // 4, np.float32), tremble(whole, 0.002, chance)]),
            "twice",
        ),
        "droning": (np.concatenate([half, hum, hum]), "over and over"),
        "hissing": (
            np.concatenate([half, 0.1 * chance.standard_normal(4 * RATE_HZ).astype(np.float32)]),
            "over and over",
        ),
        "clipped": (np.clip(40 * whole, -1, 1), "clipped"),
        "babbling": (np.concatenate([whole] * 4), "s of audio for"),
        "not a number": (np.full(RATE_HZ, np.nan, np.float32), "no numbers"),
    }
    found: dict[str, tuple[str, str | None]] = {}
    for name, (samples, words) in faults.items():
        fault = find_fault(SENTENCE, "en-us", samples.astype(np.float32), RATE_HZ)
        found[name] = (words, fault)
    assert {name: pair for name, pair in found.items() if pair[0] not in str(pair[1])} == {}


@given(st.text(max_size=200), st.sampled_from(["en", "ja", "zh-cn", "ko", "ar"]), st.floats(0.25, 4))
def test_bounds_are_in_order_for_any_text_and_grow_with_it(text: str, language: str, speed: float) -> None:
    least, most = bounds_s(text, language, speed)
    assert 0 <= least < most
    more = bounds_s(text + " a", language, speed)
    assert more[0] >= least
    assert more[1] >= most


@given(st.integers(0, 40_000), st.integers(4000, 48_000))
def test_any_noise_of_any_length_is_judged(length: int, rate_hz: int) -> None:
    samples = np.random.default_rng(length).standard_normal(length).astype(np.float32) / 4
    fault = find_fault("a word", "en", samples, rate_hz)
    assert fault is None or fault.strip()


def test_a_runaway_is_noticed_before_its_end() -> None:
    guard = Runaway("Hello there.", "en", RATE_HZ)
    second = np.zeros(RATE_HZ, np.float32)
    limit_s = bounds_s("Hello there.", "en")[1]
    fed = 0
    while guard.feed(second) is None:
        fed += 1
    assert fed == int(limit_s)
    assert (
        Runaway("Hello there.", "en", RATE_HZ, speed=0.5).feed(np.zeros(int(1.9 * limit_s * RATE_HZ))) is None
    )
