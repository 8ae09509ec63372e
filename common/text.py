"""Long text into pieces a worker can speak: sentence by sentence, and never above the engine's limit.

Sentence borders come from sentencex, which knows abbreviations, URLs and scripts. A sentence above the
limit is cut at the last clause mark that fits, else at the last space, else before the last whole character.
Pieces keep their white space, so that joining them gives the text back unchanged; nothing is lost
or said twice. Pure functions: the same text is always cut alike. Texts come from strangers, so the time taken
grows with a text's length and no faster, whatever stands in it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate
from typing import Final

SENTENCE_PAUSE_S: Final = 0.12
PARAGRAPH_PAUSE_S: Final = 0.45
"""On top of the quiet that engines leave at the end of a sentence."""

MAX_SEGMENTED_CHARS: Final = 8_000
"""What sentencex is given at once: brackets that are opened and never closed cost it the square of that."""

_PARAGRAPH_MARK: Final = "\u2029"
_CLAUSE = re.compile(
    r"[,;:\u060c\u061b\u00b7\u2013\u2026)](?=\s|$)|[\u3001\uff0c\uff1b\uff1a\u060c\u061b\u2014]"
)
"""ASCII marks only before a space, or numbers and addresses would be cut; marks of other scripts anywhere."""
_ENDS = ".!?\u2026\u3002\uff01\uff1f\uff0e\u061f\u06d4\u0964\u0965"
_END = re.compile(rf"[{_ENDS}\n]")
_CLOSING: Final = "\"')]}\u00bb\u201d\u2019\u300d\u300f"
_SPACE = re.compile(r"\s+")
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")
_SCRIPTS: Final = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("zh", re.compile(r"[\u3400-\u9fff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text, white space included, and the pause that belongs after it."""

    text: str
    pause_s: float = 0.0

    @property
    def spoken(self) -> str:
        """The text without the white space around it: what the limit counts and a worker gets."""
        return self.text.strip()


def split(text: str, *, language: str = "", max_chars: int = 400) -> list[Piece]:
    """Cut `text` into pieces of at most `max_chars` spoken characters each.

    `"".join(piece.text for piece in split(text)) == text`. Empty or blank text gives no pieces.
    """
    if max_chars < 1:
        raise ValueError("max_chars must be positive")
    pieces: list[Piece] = []
    for paragraph in _paragraphs(text):
        parts = [
            part for sentence in _sentences(paragraph, language) for part in _fitting(sentence, max_chars)
        ]
        parts = _joined_marks(parts, max_chars)
        pieces += [Piece(part, SENTENCE_PAUSE_S if _ends_sentence(part) else 0.0) for part in parts[:-1]]
        if parts:
            pieces.append(Piece(parts[-1], PARAGRAPH_PAUSE_S))
    if pieces:
        pieces[-1] = Piece(pieces[-1].text)
    return pieces


def _paragraphs(text: str) -> list[str]:
    """Non-blank paragraphs, each with the blank lines after it; leading white space joins the first."""
    found: list[str] = []
    start = 0
    # Whole runs of space and then a look inside: a pattern for "two line ends" would search each run again
    # from each of its spaces.
    for border in _SPACE.finditer(text):
        inside = border[0]
        if inside.count("\n") < 2 and _PARAGRAPH_MARK not in inside:
            continue
        if text[start : border.start()].strip():
            found.append(text[start : border.end()])
            start = border.end()
    rest = text[start:]
    if rest.strip():
        found.append(rest)
    elif found:
        found[-1] += rest
    return found


def sentences(paragraph: str, language: str) -> list[str]:
    """Cut a paragraph into sentences, white space included; joined they are the paragraph again.

    `language` is a BCP 47 tag, empty to go by the script.
    """
    rules = language.split("-")[0].lower() or _guess(paragraph)
    found: list[str] = []
    rest = ""
    for start in range(0, len(paragraph), MAX_SEGMENTED_CHARS):
        window = rest + paragraph[start : start + MAX_SEGMENTED_CHARS]
        parts = _segmented(rules, window)
        # The last may go on behind the window. One that is longer than that is cut: no engine could speak
        # it whole.
        rest = parts.pop() if len(parts[-1]) < MAX_SEGMENTED_CHARS else ""
        found += parts
    return [*found, rest] if rest else found


def _segmented(rules: str, window: str) -> list[str]:
    """What sentencex makes of a text, cut out of that text by length; all of it as one where it fails."""
    # Imported late: it takes longer than all else here. It carries no types.
    segmenter = import_module("sentencex")
    # It takes any space for one byte: "Plan B\u00a0. And" made it panic.
    plain = _WIDE_SPACE.sub(" ", window)
    try:
        found: list[str] = list(segmenter.segment(rules, plain))
    except BaseException as error:
        # A panic in Rust is no `Exception`, so that nobody who only guards against those survives it.
        if type(error).__name__ != "PanicException":
            raise
        return [window]
    # The contract of this module outlives any release of the library below it.
    if "".join(found) != plain:
        return [window]
    ends = list(accumulate(map(len, found)))
    return [window[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _sentences(paragraph: str, language: str) -> list[str]:
    spoken = paragraph.rstrip()
    if not _END.search(spoken, 0, len(spoken) - 1):
        return [paragraph]
    kept: list[str] = []
    lead = ""
    for sentence in sentences(paragraph, language):
        if sentence.strip():
            kept.append(lead + sentence)
            lead = ""
        elif kept:
            kept[-1] += sentence
        else:
            lead += sentence
    return kept


def _guess(text: str) -> str:
    """A language whose sentence rules fit the script; English for the rest."""
    for language, pattern in _SCRIPTS:
        if pattern.search(text):
            return language
    return "en"


def _fitting(sentence: str, max_chars: int) -> list[str]:
    """Cut one sentence so that each part, white space aside, fits."""
    parts: list[str] = []
    end = len(sentence.rstrip())
    start = 0
    while True:
        lead = _SPACE.match(sentence, start)
        first = lead.end() if lead else start
        if end - first <= max_chars:
            parts.append(sentence[start:])
            return parts
        cut = first + _cut(sentence[first : first + max_chars + 1], max_chars)
        # The white space after a cut stays with the part before it.
        after = _SPACE.match(sentence, cut)
        cut = after.end() if after else cut
        parts.append(sentence[start:cut])
        start = cut


def _cut(window: str, max_chars: int) -> int:
    """Where to cut: `window` begins with a word and is one character longer than fits."""
    last = 0
    for mark in _CLAUSE.finditer(window):
        if mark.end() <= max_chars:
            last = mark.end()
    # A clause of two words makes for choppy speech: then a space further on is better.
    if last >= max_chars // 3 and last > 0:
        return last
    for space in _SPACE.finditer(window):
        if 0 < space.start() <= max_chars:
            last = max(last, space.start())
    if last:
        return last
    cut = max_chars
    while cut > 1 and _continues(window[cut]):
        cut -= 1
    return cut if cut > 1 or not _continues(window[1]) else max_chars


def _continues(character: str) -> bool:
    """Whether a character belongs to the one before it: accents, vowel signs, joiners."""
    return unicodedata.category(character) in ("Mn", "Mc", "Me") or character in "\u200c\u200d\ufe0f"


def _joined_marks(parts: list[str], max_chars: int) -> list[str]:
    """Put parts without a letter or digit, which no engine can speak, to the one before or behind."""
    joined: list[str] = []
    for part in parts:
        if joined:
            both = joined[-1] + part
            silent = not _speakable(part) or not _speakable(joined[-1])
            if silent and len(both.strip()) <= max_chars:
                joined[-1] = both
                continue
        joined.append(part)
    return joined


def _speakable(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _ends_sentence(text: str) -> bool:
    return text.rstrip().rstrip(_CLOSING).endswith(tuple(_ENDS))
