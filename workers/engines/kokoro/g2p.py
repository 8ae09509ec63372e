"""Text to the phoneme tokens Kokoro was trained on.

The model's alphabet is that of misaki: IPA with single letters for diphthongs and affricates, stress
marks, and the punctuation that shapes its prosody. Text is cut at punctuation, each stretch is phonemised
by espeak-ng, the result is rewritten in the model's letters, and the marks are put back between.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final, cast

from .espeak import VOICES, Espeak
from .normalise import normalise

_TIED: Final = {
    "a^ɪ": "I", "a^ʊ": "W", "e^ɪ": "A", "ɔ^ɪ": "Y", "o^ʊ": "O", "ə^ʊ": "Q",
    "d^ʒ": "ʤ", "t^ʃ": "ʧ", "d^z": "ʣ", "t^s": "ʦ", "s^s": "S",
}  # fmt: skip
_ENGLISH: Final = {
    "ʔˌn\u0329": "ʔn", "ʔn\u0329": "ʔn", "ə^l": "ᵊl", "ʲo": "jo", "ʲə": "jə", "ʲ": "",
    "ɚɹ": "əɹ", "ɹɹ": "ɹ", "ɚ": "əɹ", "r": "ɹ", "x": "k", "ç": "k", "ɐ": "ə", "ɬ": "l", "\u0303": "",
}  # fmt: skip
_AMERICAN: Final = {"ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɪə": "iə", "ː": "", "o": "ɔ", "ɾ": "T", "ʔ": "t"}
_BRITISH: Final = {"e^ə": "ɛː", "iə": "ɪə", "o": "ɔ", "ɾ": "T", "ʔ": "t"}

_MARK: Final = re.compile(r"([;:,.!?…—()“”\"]+)")
_INSIDE: Final = re.compile(r"(?<=\w)[.,:](?=\w)")
_GUARD: Final = {".": "\ue000", ",": "\ue001", ":": "\ue002"}


class G2P:
    """Holds the model's vocabulary and the phonemiser."""

    languages: tuple[str, ...] = tuple(VOICES)

    def __init__(self, vocabulary: Path) -> None:
        self._ids = _vocabulary(vocabulary)
        self._espeak = Espeak()

    def close(self) -> None:
        """End the phonemiser's process."""
        self._espeak.close()

    def phonemes(self, text: str, language: str) -> str:
        """Return the model's phonemes of `text` with punctuation; empty where nothing in it can be spoken."""
        guarded = _INSIDE.sub(lambda m: _GUARD[m[0]], normalise(text, language))
        said: list[str] = []
        spoken = False
        for i, piece in enumerate(_MARK.split(guarded)):
            if i % 2:
                said.append(_marks(piece))
                continue
            for sign, guard in _GUARD.items():
                piece = piece.replace(guard, sign)
            if re.search(r"\w", piece):
                heard = " ".join(filter(None, self._espeak.phonemes(piece.strip(), language)))
                spoken = spoken or bool(heard)
                lead, trail = piece[:1].isspace(), piece[-1:].isspace()
                said.append(" " * lead + to_model(heard, language) + " " * trail)
            elif piece:
                said.append(" ")
        line = re.sub(r"\s+", " ", "".join(said)).strip()
        return "".join(char for char in line if char in self._ids) if spoken else ""

    def tokens(self, phonemes: str) -> list[int]:
        """Return the model's numbers of phonemes, without the padding at the ends."""
        return [self._ids[char] for char in phonemes if char in self._ids]


def _vocabulary(file: Path) -> dict[str, int]:
    """The numbers of phonemes. Raises `ValueError` naming the file where it says none."""
    try:
        ids: object = json.loads(file.read_text(encoding="utf-8"))["vocab"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is no vocabulary: {type(error).__name__}") from error
    if not isinstance(ids, dict) or not all(type(n) is int for n in cast("dict[str, object]", ids).values()):
        raise ValueError(f"{file} is no vocabulary: it numbers no phonemes")
    return cast("dict[str, int]", ids)


def _marks(run: str) -> str:
    """Of a run of marks keep what shapes prosody: '?!…' becomes '?', an ellipsis stays one sign."""
    for strong in "?!…":
        if strong in run:
            quote = "".join(c for c in run if c in '()“”"')
            return strong + quote[-1:]
    return "".join(dict.fromkeys(run))


def to_model(ipa: str, language: str) -> str:
    """Rewrite espeak-ng's IPA, ties marked by `^`, in the model's letters."""
    ipa = re.sub(r"\([^)]*\)", "", ipa)  # marks of a switch of language
    rules = dict(_TIED)
    if language.startswith("en"):
        rules |= _ENGLISH
        ipa = ipa.replace("e^ə", "ɛː") if language == "en-gb" else ipa
    for old in sorted(rules, key=len, reverse=True):
        ipa = ipa.replace(old, rules[old])
    if language.startswith("en"):
        # An untied "e" is the first half of a diphthong that espeak wrote short.
        ipa = ipa.replace("e", "A")
        ipa = re.sub(r"(\S)\u0329", r"ᵊ\1", ipa)
        for old, new in (_BRITISH if language == "en-gb" else _AMERICAN).items():
            ipa = ipa.replace(old, new)
    return ipa.replace("^", "").replace("-", "").replace("\u0329", "").replace("\u032a", "")
