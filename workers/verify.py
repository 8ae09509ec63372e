"""The optional check by ear: a segment is transcribed, and one whose words differ too much is spoken again.

The ear is Whisper, by faster-whisper, which needs no PyTorch. Letters are compared and not words: a name
spelt otherwise costs a letter or two, a word that was left out or babbled costs all of its letters. Numbers
are the trouble, since '7' and 'seven' sound the same: Whisper is kept from writing digits, letters that stand
where the text has digits are free, and a text with many digits is not judged.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..common.errors import ConfigError, ModelMissing
from .selfcheck import repeats

RATE_HZ: Final = 16_000
"""What Whisper hears."""
MOST_DIGITS: Final = 0.2
"""Share of digits in a text above which its transcription says little."""
LETTERS_A_DIGIT: Final = 12
"""Most letters that a digit can be said in: 'seven hundred'."""
UNJUDGED: Final = frozenset({"ja"})
"""Languages in which a word is written in several ways, so that letters tell nothing: kanji or kana."""
PROMPTS: Final = {"zh": "以下是普通话的句子。"}
"""Whisper writes Chinese in whichever characters it has just seen: here, simplified ones."""
LEAST_LETTERS: Final = 16
"""A word or two is easily misheard without a sentence around it."""
REMEDY: Final = "install it with pip install 'voicebus[verify]'"


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """`verify` is off or asr; `limit` the share of letters that may differ before a segment is misspoken.

    .35 lies between what Whisper mishears of clear speech and speech that lost or invented a third of its
    words. Its smallest model in English, on some thirty odd texts in Kokoro's voices: at most .26 at speeds
    .5 and 1, acronyms aside; at speed 2 up to .64, so that a hurried tongue-twister may be spoken again.
    """

    verify: str = "off"
    model: str = "small"
    device: str = "cpu"
    limit: float = 0.35

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> tuple[VerifySettings, dict[str, Any]]:
        """Take `verify`, `verify_model`, `verify_device` and `verify_limit` out of raw settings.

        Returns them and the rest. Raises `ConfigError` for a value that is not allowed.
        """
        rest = dict(settings)
        verify = rest.pop("verify", "off")
        if verify is False or verify is None:  # YAML reads off as False
            verify = "off"
        if verify not in ("off", "asr"):
            raise ConfigError(f"verify must be off or asr, not {verify!r}")
        model, device = rest.pop("verify_model", "small"), rest.pop("verify_device", "cpu")
        if not isinstance(model, str) or not model:
            raise ConfigError(f"verify_model must be a folder or the name of a Whisper model, not {model!r}")
        if device not in ("cpu", "cuda", "auto"):
            raise ConfigError(f"verify_device must be cpu, cuda or auto, not {device!r}")
        limit = rest.pop("verify_limit", 0.35)
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit <= 1:
            raise ConfigError(f"verify_limit must be a number above 0 and at most 1, not {limit!r}")
        return cls(str(verify), model, str(device), float(limit)), rest


class Transcriber:
    """Whisper, loaded: from a folder, or by name from where faster-whisper keeps, and fetches, its models.

    Raises `ConfigError` without the package or for an unknown name, `ModelMissing` without the model.
    """

    def __init__(self, settings: VerifySettings) -> None:
        try:
            whisper: Any = import_module("faster_whisper")
            self._levenshtein: Any = import_module("rapidfuzz.distance").Levenshtein
        except ModuleNotFoundError as error:
            raise ConfigError(f"verify=asr needs the package {error.name}: {REMEDY}") from None
        self._limit = settings.limit
        try:
            self._model = whisper.WhisperModel(
                settings.model, device=settings.device, compute_type="int8", num_workers=1
            )
        except ValueError as error:
            raise ConfigError(f"verify_model={settings.model}: {error}") from None
        except Exception as error:  # the library below raises whatever its download or reader does
            hint = (
                "" if Path(settings.model).exists() else "; verify_model may also be a folder that holds one"
            )
            raise ModelMissing(
                f"the Whisper model {settings.model!r} cannot be loaded: {error}{hint}"
            ) from None
        self._languages = frozenset(self._model.supported_languages) - UNJUDGED
        vocabulary: dict[str, int] = self._model.hf_tokenizer.get_vocab()
        # -1 stands for what Whisper leaves out anyway: music and other signs.
        self._suppressed = [-1, *(n for token, n in vocabulary.items() if _is_number(token))]

    def fault(
        self, text: str, language: str, samples: NDArray[np.floating[Any]], sample_rate: int
    ) -> str | None:
        """What is wrong with the words of a segment, None when they are right or cannot be judged."""
        if not self.judges(text, language):
            return None
        apart = self.difference(text, language, samples, sample_rate)
        return None if apart <= self._limit else f"{apart:.0%} of its letters are heard otherwise"

    def judges(self, text: str, language: str) -> bool:
        """Whether the model knows the language, and the text has words enough, not one again and again.

        Whisper hears rows of 'ha' as one, or goes on with them for ever.
        """
        digits = sum(map(str.isdigit, text))
        enough = len(letters(text)) >= LEAST_LETTERS and digits <= MOST_DIGITS * len(text)
        return enough and not repeats(text) and _bare(language) in self._languages

    def difference(
        self, text: str, language: str, samples: NDArray[np.floating[Any]], sample_rate: int
    ) -> float:
        """Edit distance in letters between text and transcript, as a share of the longer of both."""
        import soxr

        audio = np.asarray(soxr.resample(np.nan_to_num(samples), sample_rate, RATE_HZ), np.float32)
        said, heard = letters(text), letters(self._heard(audio, _bare(language)))
        longer = max(len(said), len(heard), 1)
        apart = int(self._levenshtein.distance(said, heard))
        numbers = LETTERS_A_DIGIT * sum(map(str.isdigit, text))
        if numbers and apart:
            steps: Any = self._levenshtein.editops(said, heard)
            apart -= min(numbers, sum(1 for step in steps if step.tag == "insert"))
        return apart / longer

    def _heard(self, audio: NDArray[np.float32], language: str) -> str:
        if not len(audio):
            return ""
        segments, _ = self._model.transcribe(
            audio,
            language=language,
            beam_size=5,
            # Hearing again with chance, as it does by default where it is unsure, would make bad speech slow.
            temperature=0.0,
            condition_on_previous_text=False,
            initial_prompt=PROMPTS.get(language),
            suppress_tokens=self._suppressed,
        )
        return " ".join(str(segment.text) for segment in segments)


def letters(text: str) -> str:
    """A text's letters alone, without case, accents and width: what sounds alike is written alike."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in folded if character.isalpha())


def _bare(language: str) -> str:
    return language.split("-")[0].lower()


def _is_number(token: str) -> bool:
    """Whether a token of the model's vocabulary writes a number; its own signs are in angle brackets."""
    return any(map(str.isdigit, token)) and not token.startswith("<|")
